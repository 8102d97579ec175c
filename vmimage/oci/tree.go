package oci

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// kind is what a node is.
type kind uint8

const (
	directory kind = iota
	file
	symlink
	special // device, FIFO: nothing that is read or written here
)

// node is a file or directory of the image as its layers make it.
type node struct {
	kind     kind
	mode     int64 // permission bits, with set-id and sticky
	uid, gid int
	mtime    time.Time
	link     string // of a symbolic link
	children map[string]*node
	layer    int      // the last layer that named it
	content  location // of a file
}

// location is where a file's bytes are: which entry of which layer.
type location struct{ layer, entry int }

// tree is the file system of an image: names and modes, no content. Nothing is ever unpacked, so that no name can leave it.
type tree struct {
	root    *node
	entries int   // left
	names   int64 // bytes of names, left
	steps   int   // from name to name, left
}

func newTree() *tree {
	return &tree{root: &node{mode: 0o755}, entries: maxEntries, names: maxNames, steps: maxSteps}
}

// Whiteouts (layer.md of the OCI image specification).
const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // AUFS's own files
)

// apply puts a layer on top. Entries may come in any order; what a layer hides is only what layers below have.
func (t *tree) apply(layer int, in io.Reader) error {
	r := tar.NewReader(in)
	for entry := 0; ; entry++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.bound(h); err != nil {
			return err
		}
		if err := t.add(h, location{layer, entry}); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
}

func (t *tree) bound(h *tar.Header) error {
	t.entries--
	t.names -= int64(len(h.Name) + len(h.Linkname))
	switch {
	case t.entries < 0:
		return &BoundError{What: "entries of all layers", Most: maxEntries}
	case t.names < 0:
		return &BoundError{What: "bytes of all names", Most: maxNames}
	case len(h.Name) > maxPath || len(h.Linkname) > maxPath:
		return &BoundError{What: "bytes of a name", Most: maxPath}
	case strings.Count(h.Name, "/") > maxDepth:
		return &BoundError{What: "directories of a name", Most: maxDepth}
	}
	return nil
}

// add puts one entry into the tree. A name that begins with ../ means the same as below the root, as for a chroot.
func (t *tree) add(h *tar.Header, at location) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean("/" + h.Name)
	base := path.Base(name)
	if strings.HasPrefix(base, whiteout) {
		return t.hide(path.Dir(name), base, at.layer)
	}
	if name == "/" {
		t.root.describe(h, at)
		return nil
	}
	dir, err := t.makeDir(path.Dir(name), at.layer)
	if err != nil {
		return err
	}
	var n *node
	switch h.Typeflag {
	case tar.TypeDir:
		if n = dir.children[base]; n == nil || n.kind != directory {
			n = &node{}
		}
	case tar.TypeLink:
		return t.hardLink(dir, base, h.Linkname, at.layer)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n = &node{kind: file}
	case tar.TypeSymlink:
		n = &node{kind: symlink, link: h.Linkname}
	default:
		n = &node{kind: special}
	}
	n.describe(h, at)
	dir.put(base, n)
	return nil
}

func (n *node) describe(h *tar.Header, at location) {
	n.mode, n.uid, n.gid, n.mtime, n.layer, n.content = h.Mode&0o7777, h.Uid, h.Gid, h.ModTime, at.layer, at
}

func (n *node) put(name string, child *node) {
	if n.children == nil {
		n.children = map[string]*node{}
	}
	n.children[name] = child
}

// hardLink gives a file another name.
func (t *tree) hardLink(dir *node, base, target string, layer int) error {
	real, n, err := t.lookup(path.Clean("/"+target), false)
	switch {
	case err != nil:
		return err
	case n == nil || n.kind == directory:
		return fmt.Errorf("a hard link to %q, which is no file", real)
	}
	same := *n // files have no children: a copy is as good
	same.layer = layer
	dir.put(base, &same)
	return nil
}

// makeDir returns a directory, made if it is not there. Links on the way are followed.
func (t *tree) makeDir(name string, layer int) (*node, error) {
	real, n, err := t.lookup(name, true)
	if err != nil {
		return nil, err
	}
	if len(real) > maxPath { // links may lead from one deep directory into another
		return nil, &BoundError{What: "bytes of a name", Most: maxPath}
	}
	if n == nil {
		n = t.root
		for part := range strings.SplitSeq(strings.Trim(real, "/"), "/") {
			next := n.children[part]
			if next == nil {
				next = &node{mode: 0o755, layer: layer}
				if t.entries--; t.entries < 0 {
					return nil, &BoundError{What: "entries of all layers", Most: maxEntries}
				}
				n.put(part, next)
			}
			n = next
		}
	}
	if n.kind != directory {
		return nil, fmt.Errorf("%s: %w", real, errNoDir)
	}
	return n, nil
}

// hide follows a whiteout.
func (t *tree) hide(dir, base string, layer int) error {
	_, parent, err := t.lookup(dir, true)
	if err != nil || parent == nil || parent.kind != directory {
		return err
	}
	switch name := strings.TrimPrefix(base, whiteout); {
	case base == whiteoutOpaque:
		t.prune(parent, layer)
	case strings.HasPrefix(base, whiteoutMeta):
	case parent.children[name] != nil && !t.survives(parent.children[name], layer):
		delete(parent.children, name)
	}
	return t.spent()
}

// prune removes what layers below layer have put into the directory.
func (t *tree) prune(n *node, layer int) {
	for name, child := range n.children {
		if !t.survives(child, layer) {
			delete(n.children, name)
		}
	}
}

// survives tells whether anything of a node is of the layer itself, and prunes the rest.
func (t *tree) survives(n *node, layer int) bool {
	if t.steps--; t.steps > 0 {
		t.prune(n, layer)
	}
	return n.layer == layer || len(n.children) > 0
}

// spent says when a tree has cost more work than an honest image does.
func (t *tree) spent() error {
	if t.steps <= 0 {
		return &BoundError{What: "steps from name to name", Most: maxSteps}
	}
	return nil
}

// errLoop and errNoDir are what a name can fail of.
var (
	errLoop  = errors.New("too many symbolic links")
	errNoDir = errors.New("a file is where a directory must be")
)

// lookup follows a clean absolute name through the tree, links on the way as for a chroot, and the last one with follow. It
// returns the name without links, and nil if there is no such file: the name is then where it would be made.
func (t *tree) lookup(name string, follow bool) (real string, n *node, err error) {
	todo := strings.Split(strings.Trim(name, "/"), "/")
	var done []string
	at := []*node{t.root} // of done, the root first; nil from where nothing is
	for hops := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		if t.steps--; t.steps <= 0 {
			return "", nil, t.spent()
		}
		switch part {
		case "", ".":
			continue
		case "..":
			if len(done) > 0 {
				done, at = done[:len(done)-1], at[:len(at)-1]
			}
			continue
		}
		dir := at[len(at)-1]
		if dir != nil && dir.kind != directory {
			return "", nil, fmt.Errorf("%s: %w", "/"+strings.Join(done, "/"), errNoDir)
		}
		var next *node
		if dir != nil {
			next = dir.children[part]
		}
		if next != nil && next.kind == symlink && (follow || len(todo) > 0) {
			if hops++; hops > maxLinks || len(todo) > maxDepth {
				return "", nil, fmt.Errorf("%.200q: %w", name, errLoop)
			}
			if path.IsAbs(next.link) {
				done, at = done[:0], at[:1]
			}
			todo = append(strings.Split(next.link, "/"), todo...)
			continue
		}
		done, at = append(done, part), append(at, next)
	}
	return "/" + strings.Join(done, "/"), at[len(at)-1], nil
}

// find is lookup for files that may be missing: nil also where the way there is broken.
func (t *tree) find(name string) (real string, n *node) {
	real, n, err := t.lookup(name, true)
	if err != nil {
		return "", nil
	}
	return real, n
}

// walk calls visit for every node but the root, in no order, with its name.
func (t *tree) walk(visit func(name string, n *node)) {
	var below func(dir string, n *node)
	below = func(dir string, n *node) {
		for name, child := range n.children {
			full := dir + "/" + name
			visit(full, child)
			below(full, child)
		}
	}
	below("", t.root)
}
