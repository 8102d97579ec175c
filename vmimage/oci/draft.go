package oci

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"
)

// draft is the layer to be.
type draft struct {
	base     *Base
	name     string // of files that hold the authority
	ca, der  []byte // the authority, as PEM and as it is
	bundle   []byte // the guest's own, for an image that has none
	contents map[location][]byte
	changes  map[string]change // by name without links
	notes    []string
}

// change is a file, symbolic link or directory of the layer.
type change struct {
	dir   bool
	link  string
	mode  int64
	owner owner
	data  []byte
}

type owner struct{ uid, gid int }

// set puts a change where its name leads in the image.
func (d *draft) set(name string, c change) error {
	real, n, err := d.base.tree.lookup(name, c.link == "")
	switch {
	case err != nil:
		return fmt.Errorf("put %s into the image: %w", name, err)
	case n != nil && c.dir != (n.kind == directory), n != nil && n.kind == special:
		return fmt.Errorf("put %s into the image: something of another kind is at %s", name, real)
	}
	if there, twice := d.changes[real]; twice && there.dir != c.dir {
		return fmt.Errorf("put %s into the image: %s would be two things", name, real)
	}
	d.changes[real] = c
	return nil
}

// replace changes the content of a file that is there, and nothing else of it.
func (d *draft) replace(real string, n *node, data []byte) {
	d.changes[real] = change{mode: n.mode, owner: owner{n.uid, n.gid}, data: data}
}

// note adds a sentence for the operator.
func (d *draft) note(format string, args ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, args...))
}

// write makes the layer's tar file: sorted, dated 1970, and with the directories that lead to each file as the image has
// them, since a layer that leaves them out lets whoever unpacks it guess their modes.
func (d *draft) write() ([]byte, error) {
	dirs := map[string]*tar.Header{}
	for name, c := range d.changes {
		for dir := path.Dir(name); dir != "/" && dirs[dir] == nil; dir = path.Dir(dir) {
			if there, ok := d.changes[dir]; ok && !there.dir {
				return nil, fmt.Errorf("%s would lie below %s, which is a file", name, dir)
			}
			dirs[dir] = d.dirHeader(dir)
		}
		if c.dir {
			dirs[name] = d.dirHeader(name)
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, dir := range slices.Sorted(maps.Keys(dirs)) { // a directory sorts before what it holds
		if err := w.WriteHeader(dirs[dir]); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.changes)) {
		c := d.changes[name]
		if c.dir {
			continue
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name[1:], Mode: c.mode, Uid: c.owner.uid, Gid: c.owner.gid,
			Size: int64(len(c.data)), ModTime: time.Unix(0, 0)}
		if c.link != "" {
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, c.link, 0o777
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := w.Write(c.data); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// dirHeader describes a directory: as drafted, else as the image has it, else as any.
func (d *draft) dirHeader(name string) *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeDir, Name: name[1:] + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}
	if c, ok := d.changes[name]; ok {
		h.Mode, h.Uid, h.Gid = c.mode, c.owner.uid, c.owner.gid
	} else if _, n, err := d.base.tree.lookup(name, false); err == nil && n != nil {
		h.Mode, h.Uid, h.Gid, h.ModTime = n.mode, n.uid, n.gid, n.mtime.Truncate(time.Second)
		if n.mtime.IsZero() {
			h.ModTime = time.Unix(0, 0)
		}
	}
	return h
}
