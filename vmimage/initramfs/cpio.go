package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Bounds of an archive. The format keeps sizes in 32 bits (Documentation/driver-api/early-userspace/buffer-format.rst
// in the kernel), and a guest has to hold the archive twice while it unpacks.
const (
	// MaxFile is the most bytes one file may have.
	MaxFile = 1 << 30
	// MaxArchive is the most bytes an archive may have.
	MaxArchive = 2 << 30
	// MaxEntries is how many entries an archive may have.
	MaxEntries = 100_000
	maxPath    = 4096 - 1 // PATH_MAX, without the final NUL
)

// Entry is one file, directory or symbolic link of the archive.
type Entry struct {
	// Path is relative to the guest's root, slash-separated and clean.
	Path string
	// Mode holds the permission bits, and fs.ModeDir or fs.ModeSymlink; a regular file has neither.
	Mode fs.FileMode
	// Data is a file's content, or where a link leads. It is not used when Open is set.
	Data []byte
	// Open opens a file's content of exactly Size bytes.
	Open func() (io.ReadCloser, error)
	Size int64
}

// BoundError reports an archive that would be larger than its bounds allow.
type BoundError struct {
	What string // what is too large
	Most int64  // how much there may be
}

// Error names what is too large.
func (e *BoundError) Error() string { return fmt.Sprintf("%s: more than %d", e.What, e.Most) }

// Write writes entries as a cpio archive in the "newc" format, which the kernel unpacks. Equal entries in whatever order
// give equal bytes: entries are sorted, owned by root and dated 1970. Parent directories that are missing are added with
// mode 0755. Entries that meet at one path, or paths that leave the root, are errors; sizes out of bounds give a
// *BoundError before anything is written.
func Write(w io.Writer, entries []Entry) error {
	all, err := complete(entries)
	if err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	out := bufio.NewWriterSize(w, 1<<20)
	for i, e := range all {
		if err := writeEntry(out, uint32(i+1), e); err != nil {
			return fmt.Errorf("write initramfs: %s: %w", e.Path, err)
		}
	}
	if err := writeHeader(out, 0, "TRAILER!!!", 0, 0); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

// complete checks the entries, adds the directories that lead to them, and sorts.
func complete(entries []Entry) ([]Entry, error) {
	byPath := map[string]Entry{}
	var total int64
	for _, e := range entries {
		if err := e.check(); err != nil {
			return nil, err
		}
		if _, twice := byPath[e.Path]; twice {
			return nil, fmt.Errorf("%s is there twice", e.Path)
		}
		byPath[e.Path] = e
		if total += e.size(); total > MaxArchive {
			return nil, &BoundError{What: "bytes of the archive", Most: MaxArchive}
		}
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			have, there := byPath[dir]
			if there && !have.Mode.IsDir() {
				return nil, fmt.Errorf("%s lies below %s, which is no directory", e.Path, dir)
			}
			if !there {
				byPath[dir] = Entry{Path: dir, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	if len(byPath) > MaxEntries {
		return nil, &BoundError{What: "entries of the archive", Most: MaxEntries}
	}
	all := make([]Entry, 0, len(byPath))
	for _, e := range byPath {
		all = append(all, e)
	}
	// A directory sorts before what it holds, since its path is a prefix.
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

func (e Entry) check() error {
	switch {
	case !fs.ValidPath(e.Path) || e.Path == "." || strings.ContainsRune(e.Path, 0):
		return fmt.Errorf("%q is no path below the root", e.Path)
	case len(e.Path) > maxPath:
		return &BoundError{What: "bytes of a path", Most: maxPath}
	case e.Mode.Type() != 0 && e.Mode.Type() != fs.ModeDir && e.Mode.Type() != fs.ModeSymlink:
		return fmt.Errorf("%s is neither file, directory nor symbolic link", e.Path)
	case e.size() < 0 || e.size() > MaxFile:
		return &BoundError{What: "bytes of " + e.Path, Most: MaxFile}
	case e.Mode.Type() == fs.ModeSymlink && (len(e.Data) == 0 || len(e.Data) > maxPath):
		return fmt.Errorf("%s leads nowhere", e.Path)
	case e.Mode.Type() != 0 && e.Open != nil, e.Mode.IsDir() && len(e.Data) > 0:
		return fmt.Errorf("%s has content, but is no file", e.Path)
	}
	return nil
}

func (e Entry) size() int64 {
	if e.Open != nil {
		return e.Size
	}
	return int64(len(e.Data))
}

// File types of a mode (inode(7)).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

func (e Entry) mode() uint32 {
	perm := uint32(e.Mode.Perm())
	switch e.Mode.Type() {
	case fs.ModeDir:
		return typeDir | perm
	case fs.ModeSymlink:
		return typeLink | 0o777
	}
	return typeFile | perm
}

func writeEntry(w io.Writer, inode uint32, e Entry) error {
	if err := writeHeader(w, inode, e.Path, e.mode(), uint32(e.size())); err != nil {
		return err
	}
	if e.Open == nil {
		if _, err := w.Write(e.Data); err != nil {
			return err
		}
		return pad(w, len(e.Data))
	}
	in, err := e.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	n, err := io.Copy(w, io.LimitReader(in, e.Size))
	if err != nil {
		return err
	}
	var more [1]byte
	if extra, _ := io.ReadFull(in, more[:]); n != e.Size || extra > 0 {
		return errors.New("its size changed while it was read")
	}
	return pad(w, int(e.Size))
}

// writeHeader writes the fixed part and the name. The fields, eight hexadecimal digits each: inode, mode, uid, gid, links,
// mtime, size, device (2), device of a node (2), length of the name with its NUL, checksum.
func writeHeader(w io.Writer, inode uint32, name string, mode, size uint32) error {
	n, err := fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if err != nil {
		return err
	}
	return pad(w, n)
}

// pad fills up to a multiple of four bytes.
func pad(w io.Writer, written int) error {
	_, err := w.Write(make([]byte, (4-written%4)%4))
	return err
}
