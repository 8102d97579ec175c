package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tarOf makes a tar file of a map's files.
func tarOf(t testing.TB, files map[string][]byte, links map[string]string) string {
	t.Helper()
	var entries []entry
	for name, data := range files {
		entries = append(entries, entry{name: name, data: string(data)})
	}
	for name, to := range links {
		entries = append(entries, entry{name: name, link: to})
	}
	return writeFile(t, filepath.Join(t.TempDir(), "image.tar"), layerTar(t, entries))
}

// readTree reads a directory's files.
func readTree(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		files[rel] = readFile(t, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// savedFiles is an image as `docker save` writes it, with layers stored as store makes them.
func savedFiles(t testing.TB, store func([]byte) []byte, layers ...[]entry) map[string][]byte {
	t.Helper()
	config := v1.ConfigFile{OS: "linux", Architecture: "amd64"}
	files := map[string][]byte{}
	manifest := []map[string]any{{"Config": "config.json", "RepoTags": []string{"a:b"}}}
	var names []string
	for i, entries := range layers {
		data := layerTar(t, entries)
		h, _, err := v1.SHA256(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, h)
		name := string(rune('a'+i)) + "/layer.tar"
		names, files[name] = append(names, name), store(data)
	}
	manifest[0]["Layers"] = names
	for name, v := range map[string]any{"config.json": config, "manifest.json": manifest} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return files
}

func asIs(b []byte) []byte { return b }

func gzipOf(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zstdOf(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

// TestForms: every form in which an image may come is read the same.
func TestForms(t *testing.T) {
	ca := authority(t)
	image := baseImage(t, v1.Config{}, debian...)
	lay := saveLayout(t, image)
	linked := savedFiles(t, asIs, debian...)
	linked["store/one.tar"] = linked["a/layer.tar"]
	delete(linked, "a/layer.tar")
	var want map[string]found
	for _, c := range []struct{ name, file string }{
		{"saved", saveTar(t, image)},
		{"layout", lay},
		{"layout in a tar file", tarOf(t, readTree(t, lay), nil)},
		{"saved, plain layers", tarOf(t, savedFiles(t, asIs, debian...), nil)},
		{"saved, gzip", tarOf(t, savedFiles(t, gzipOf, debian...), nil)},
		{"saved, zstd", tarOf(t, savedFiles(t, zstdOf, debian...), nil)},
		{"saved, a layer by a link", tarOf(t, linked, map[string]string{"a/layer.tar": "../store/one.tar"})},
	} {
		b, err := Open(t.Context(), c.file)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		r := add(t, b, ca)
		got := flatten(t, r.Image)
		out := filepath.Join(t.TempDir(), "out")
		if err := WriteLayout(out, r.Image, "x:y"); err != nil {
			t.Errorf("%s: write: %v", c.name, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		again := flatten(t, mustImage(t, open(t, out)))
		if want == nil {
			want = got
		}
		for name, f := range want {
			if got[name].data != f.data || again[name].data != f.data || got[name].Mode != f.Mode {
				t.Errorf("%s: %s differs", c.name, name)
			}
		}
		if len(got) != len(want) || len(again) != len(want) {
			t.Errorf("%s: %d files, written and read again %d, want %d", c.name, len(got), len(again), len(want))
		}
	}
}

func mustImage(t testing.TB, b *Base) v1.Image {
	t.Helper()
	image, err := b.image()
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestWhatIsNoBase: an image that is broken, ambiguous or for others is refused with a word that tells which.
func TestWhatIsNoBase(t *testing.T) {
	good := func() map[string][]byte { return savedFiles(t, asIs, debian...) }
	with := func(name string, data []byte) string {
		files := good()
		files[name] = data
		return tarOf(t, files, nil)
	}
	without := func(name string, links map[string]string) string {
		files := good()
		delete(files, name)
		return tarOf(t, files, links)
	}
	other := layerTar(t, alpine[0])
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	pipes := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(pipes, "index.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	lay := saveLayout(t, baseImage(t, v1.Config{}, debian...))
	outside := saveLayout(t, baseImage(t, v1.Config{}, debian...))
	index := filepath.Join(outside, "index.json")
	if err := errors.Join(os.Rename(index, filepath.Join(filepath.Dir(outside), "index.json")), os.Symlink("../index.json", index)); err != nil {
		t.Fatal(err)
	}
	flipped := readTree(t, lay)
	for name, data := range flipped {
		if strings.HasPrefix(name, "blobs/") {
			data[len(data)-1] ^= 1
		}
	}
	for name, c := range map[string]struct{ file, want string }{
		"missing":              {filepath.Join(t.TempDir(), "none"), "no such file"},
		"FIFO":                 {fifo, "neither a file nor a directory"},
		"empty directory":      {t.TempDir(), "no image"},
		"empty file":           {writeFile(t, filepath.Join(t.TempDir(), "x"), nil), "no image"},
		"text":                 {writeFile(t, filepath.Join(t.TempDir(), "x"), bytes.Repeat([]byte("text\n"), 500)), "tar"},
		"compressed":           {writeFile(t, filepath.Join(t.TempDir(), "x"), gzipOf(layerTar(t, debian[0]))), "gunzip"},
		"not an image":         {tarOf(t, map[string][]byte{"a": nil}, nil), "no image"},
		"FIFO in a directory":  {pipes, "no regular file"},
		"link out of a layout": {outside, "escapes"},
		"other layer":          {with("a/layer.tar", other), "digests"},
		"cut off":              {with("a/layer.tar", layerTar(t, debian[0])[:700]), "EOF"},
		"flipped bits":         {tarOf(t, flipped, nil), "something else"},
		"links in a circle":    {without("a/layer.tar", map[string]string{"a/layer.tar": "../b", "b": "a/layer.tar"}), "too many links"},
		"no layer":             {without("a/layer.tar", nil), "not exist"},
		"two images":           {with("manifest.json", []byte(`[{"Config":"config.json"},{"Config":"config.json"}]`)), "save one alone"},
		"fewer layers":         {with("manifest.json", []byte(`[{"Config":"config.json","Layers":[]}]`)), "names 1 layers"},
		"of Windows":           {with("config.json", []byte(`{"os":"windows","rootfs":{"diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`)), "runs Linux"},
		"large configuration":  {with("config.json", make([]byte, maxJSON+1)), "bytes of config.json"},
		"other architecture":   {tarOf(t, map[string][]byte{"index.json": []byte(`{"manifests":[{"mediaType":"` + string(types.OCIManifestSchema1) + `","digest":"sha256:` + strings.Repeat("0", 64) + `","platform":{"os":"linux","architecture":"s390x"}}]}`)}, nil), "s390x"},
		"bad digest":           {tarOf(t, map[string][]byte{"index.json": []byte(`{"manifests":[{"mediaType":"` + string(types.OCIManifestSchema1) + `","digest":"sha512:` + strings.Repeat("0", 128) + `"}]}`)}, nil), "SHA-256"},
	} {
		b, err := Open(t.Context(), c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if b != nil {
			t.Errorf("%s: a base beside an error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, tarOf(t, good(), nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestIndexInACircle: an index that refers to others may not make them be read for ever.
func TestIndexInACircle(t *testing.T) {
	files := map[string][]byte{}
	inner := []byte(`{"manifests":[]}`)
	for range 3 {
		h, _, err := v1.SHA256(bytes.NewReader(inner))
		if err != nil {
			t.Fatal(err)
		}
		files["blobs/sha256/"+h.Hex] = inner
		d := `{"mediaType":"` + string(types.OCIImageIndex) + `","digest":"` + h.String() + `"}`
		inner = []byte(`{"manifests":[` + strings.TrimSuffix(strings.Repeat(d+",", 50), ",") + `]}`)
	}
	files["index.json"] = inner
	_, err := Open(t.Context(), tarOf(t, files, nil))
	var bound *BoundError
	if !errors.As(err, &bound) {
		t.Errorf("got %v", err)
	}
}

// TestBounds: an image may not make the host read or remember without end.
func TestBounds(t *testing.T) {
	deep := strings.Repeat("d/", maxDepth+1) + "f"
	loops := []entry{{name: "a", link: "b"}, {name: "b", link: "a"}, {name: "a/x"}}
	zeros := make([]byte, maxContent+1)
	for name, c := range map[string]struct {
		entries []entry
		want    string
	}{
		"deep":                    {[]entry{{name: deep}}, "directories of a name"},
		"long":                    {[]entry{{name: strings.Repeat("n", maxPath+1)}}, "bytes of a name"},
		"links in a circle":       {loops, "too many symbolic links"},
		"file as directory":       {[]entry{{name: "f", data: "x"}, {name: "f/g"}}, "a file is where"},
		"hard link to nothing":    {[]entry{{name: "f", hard: "g"}}, "no file"},
		"hard link to directory":  {[]entry{{name: "d/"}, {name: "f", hard: "d"}}, "no file"},
		"deep by links":           {deepByLinks(), "bytes of a name"},
		"huge bundle":             {[]entry{{name: "etc/ssl/certs/ca-certificates.crt", data: string(zeros)}}, "bytes of etc/ssl"},
		"more stores than anyone": {manyStores(), "trust stores"},
	} {
		b, err := Open(t.Context(), tarOf(t, savedFiles(t, gzipOf, c.entries), nil))
		if err == nil {
			_, err = b.Add(t.Context(), testPlan(t, "true"), inputs(authority(t)))
			if closed := b.Close(); closed != nil {
				t.Error(closed)
			}
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.300v, want %s", name, err, c.want)
		}
	}
}

// deepByLinks goes on from the deepest directory by a link to it.
func deepByLinks() (entries []entry) {
	at := strings.Repeat("dddddddddddddddd/", 200)
	for _, link := range []string{"a", "b", "c"} {
		entries = append(entries, entry{name: at}, entry{name: link, link: "/" + at})
		at = link + "/" + strings.Repeat("dddddddddddddddd/", 200)
	}
	return entries
}

func manyStores() (entries []entry) {
	for i := range maxContents + 1 {
		entries = append(entries, entry{name: "jvm" + strings.Repeat("x", i) + "/lib/security/cacerts", data: "x"})
	}
	return entries
}

// TestArchiveEntries bounds the index of a tar file.
func TestArchiveEntries(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for range maxArchiveEntries + 1 {
		if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var bound *BoundError
	if _, err := indexTar(bytes.NewReader(b.Bytes()), int64(b.Len())); !errors.As(err, &bound) {
		t.Errorf("got %v", err)
	}
}
