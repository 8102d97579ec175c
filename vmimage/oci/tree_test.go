package oci

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func treeOf(t testing.TB, layers ...[]entry) *tree {
	t.Helper()
	tr := newTree()
	for i, entries := range layers {
		if err := tr.apply(i, bytes.NewReader(layerTar(t, entries))); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func (t *tree) list() []string {
	var names []string
	t.walk(func(name string, n *node) {
		if n.kind != directory {
			names = append(names, name)
		}
	})
	slices.Sort(names)
	return names
}

// TestWhiteouts: what a layer hides is what the layers below have, in whatever order its entries come.
func TestWhiteouts(t *testing.T) {
	lower := []entry{{name: "a/"}, {name: "a/1"}, {name: "a/2"}, {name: "a/b/3"}, {name: "a/b/4"}, {name: "c"}}
	for _, c := range []struct {
		name   string
		layers [][]entry
		want   []string
	}{
		{"file", [][]entry{{{name: "a/.wh.1"}, {name: ".wh.c"}}}, []string{"/a/2", "/a/b/3", "/a/b/4"}},
		{"directory", [][]entry{{{name: "a/.wh.b"}}}, []string{"/a/1", "/a/2", "/c"}},
		{"directory made anew", [][]entry{{{name: "a/b/5"}, {name: "a/.wh.b"}}}, []string{"/a/1", "/a/2", "/a/b/5", "/c"}},
		{"opaque, first", [][]entry{{{name: "a/.wh..wh..opq"}, {name: "a/5"}}}, []string{"/a/5", "/c"}},
		{"opaque, last", [][]entry{{{name: "a/b/"}, {name: "a/5"}, {name: "a/.wh..wh..opq"}}}, []string{"/a/5", "/c"}},
		{"in its own layer", [][]entry{{{name: "d"}, {name: ".wh.d"}}}, []string{"/a/1", "/a/2", "/a/b/3", "/a/b/4", "/c", "/d"}},
		{"of nothing", [][]entry{{{name: "x/.wh.y"}, {name: "a/1/.wh.z"}}}, []string{"/a/1", "/a/2", "/a/b/3", "/a/b/4", "/c"}},
		{"AUFS's own", [][]entry{{{name: ".wh..wh.plnk/x"}, {name: ".wh..wh.aufs"}}}, []string{"/.wh..wh.plnk/x", "/a/1", "/a/2", "/a/b/3", "/a/b/4", "/c"}},
		{"file for directory", [][]entry{{{name: "a"}}}, []string{"/a", "/c"}},
		{"directory for file", [][]entry{{{name: "c/d"}, {name: "c/"}}, {}}, nil},
		{"two layers on", [][]entry{{{name: "a/.wh..wh..opq"}}, {{name: "a/6"}}}, []string{"/a/6", "/c"}},
	} {
		tr := treeOf(t, lower)
		var err error
		for i, entries := range c.layers {
			if err = tr.apply(i+1, bytes.NewReader(layerTar(t, entries))); err != nil {
				break
			}
		}
		if c.want == nil {
			if !errors.Is(err, errNoDir) && err == nil {
				t.Errorf("%s: no error", c.name)
			}
			continue
		}
		if got := tr.list(); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

// TestLookup: links are followed as in a chroot.
func TestLookup(t *testing.T) {
	tr := treeOf(t, []entry{
		{name: "usr/bin/x"}, {name: "bin", link: "usr/bin"}, {name: "up", link: "../../../../usr"}, {name: "abs", link: "/usr/bin"},
		{name: "usr/rel", link: "../bin/x"}, {name: "loop", link: "loop"}, {name: "gone", link: "/no/where"}, {name: "../../../usr/bin/y"},
		{name: "bin/z"}, {name: "h", hard: "usr/bin/x"},
	})
	for _, c := range []struct {
		name, real string
		there      bool
	}{
		{"/bin/x", "/usr/bin/x", true}, {"/up/bin/x", "/usr/bin/x", true}, {"/abs/y", "/usr/bin/y", true}, {"/usr/rel", "/usr/bin/x", true},
		{"/gone", "/no/where", false}, {"/usr/bin/z", "/usr/bin/z", true}, {"/loop", "", false}, {"/loop/x", "", false}, {"/usr/bin/x/y", "", false},
		{"/", "/", true}, {"/../..", "/", true}, {"/h", "/h", true}, {"/new/dir/f", "/new/dir/f", false},
	} {
		real, n := tr.find(c.name)
		if real != c.real || (n != nil) != c.there {
			t.Errorf("%s: %q, %v", c.name, real, n)
		}
	}
	if x, h := mustFind(tr, "/usr/bin/x"), mustFind(tr, "/h"); x.content != h.content {
		t.Error("a hard link has another content")
	}
	if real, n, err := tr.lookup("/usr/rel", false); err != nil || real != "/usr/rel" || n.kind != symlink {
		t.Errorf("not followed: %q %v %v", real, n, err)
	}
}

func mustFind(t *tree, name string) *node { _, n := t.find(name); return n }

// TestWork: whiteouts that hide the same large directory again and again are given up on.
func TestWork(t *testing.T) {
	tr := treeOf(t, []entry{{name: "a/1"}, {name: "a/2"}})
	tr.steps = 3
	err := tr.apply(1, bytes.NewReader(layerTar(t, []entry{{name: "a/.wh..wh..opq"}, {name: "b"}})))
	var bound *BoundError
	if !errors.As(err, &bound) {
		t.Errorf("got %v", err)
	}
}

// FuzzTree: no layers make the tree hold a name that leaves it, and every name is found where it is.
func FuzzTree(f *testing.F) {
	for _, layers := range [][][]entry{debian, fedora, {{{name: "../../x"}, {name: "a", link: "/b"}, {name: "b", link: "a"}, {name: "a/c"}}},
		{{{name: "d/e"}, {name: "d/.wh..wh..opq"}, {name: ".wh.d"}, {name: "h", hard: "d/e"}}}} {
		f.Add(layerTar(f, layers[0]), layerTar(f, debian[0]))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		tr := newTree()
		tr.entries, tr.steps = 2000, 100_000
		for i, data := range [][]byte{first, second} {
			if tr.apply(i, bytes.NewReader(data)) != nil {
				return
			}
		}
		var names []string
		tr.walk(func(name string, _ *node) { names = append(names, name) })
		for _, name := range names {
			if path.Clean(name) != name || strings.Contains(name, "/../") {
				t.Fatalf("name %q", name)
			}
			if real, n, err := tr.lookup(name, false); tr.steps > 0 && (err != nil || n == nil || real != name) {
				t.Fatalf("%q is found at %q: %v, %v", name, real, n, err)
			}
		}
	})
}

// FuzzRead: whatever a tar file holds is an image or an error, and never more than was given is held.
func FuzzRead(f *testing.F) {
	for _, files := range []map[string][]byte{savedFiles(f, asIs, debian...), savedFiles(f, gzipOf, alpine...), savedFiles(f, zstdOf, fedora...),
		readTree(f, saveLayout(f, baseImage(f, v1.Config{User: "agent:wheel"}, debian...)))} {
		f.Add(readFile(f, tarOf(f, files, nil)))
		f.Add(readFile(f, tarOf(f, files, map[string]string{"manifest.json": "index.json", "index.json": "manifest.json"})))
	}
	p, ca := testPlan(f, "true"), authority(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := indexTar(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		b, err := read(t.Context(), a)
		if err != nil {
			return
		}
		r, err := b.Add(t.Context(), p, inputs(ca))
		if err != nil {
			return
		}
		if _, err := r.Image.Digest(); err != nil {
			t.Fatal(err)
		}
	})
}
