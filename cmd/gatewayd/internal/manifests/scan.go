// Package manifests keeps what is in force for each manifest of a directory while the files change under it: a broken or
// half-written one changes nothing, a deleted or emptied one is shut, and nothing is ever widened by an accident.
package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Suffix ends the name of every manifest.
const Suffix = ".bottle.yaml"

// maxManifest bounds one manifest: a person wrote it.
const maxManifest = 1 << 20

// ErrBusy says that a manifest is open for writing: what it holds now may be half of what it is going to hold, and half
// of a route can allow more than the whole.
var ErrBusy = errors.New("is open for writing by another process; it is read when that process closes it")

// File is one manifest as found.
type File struct {
	// Path is the directory's path and the file's name.
	Path string
	// Text is the whole file.
	Text []byte
	// Err says why it could not be read; Text is then nil.
	Err error
}

// Blank tells whether the file was read and holds nothing but white space, comments and document marks.
func (f File) Blank() bool {
	if f.Err != nil {
		return false
	}
	for line := range bytes.Lines(f.Text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) && !bytes.Equal(line, []byte("...")) {
			return false
		}
	}
	return true
}

// Scan reads every manifest of dir, sorted by name. A directory that does not exist holds none, as after its deletion; any
// other failure to list it is an error, and says nothing about the manifests.
func Scan(dir string) ([]File, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []File
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), Suffix) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		text, err := Read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since the listing
		}
		out = append(out, File{Path: path, Text: text, Err: err})
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Read returns the text of one manifest: a regular file of at most 1 MiB that nobody has open for writing (ErrBusy).
func Read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // O_NONBLOCK: a FIFO must not hold the daemon up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: is no regular file", path)
	}
	if openForWriting(f) {
		return nil, fmt.Errorf("read %s: %w", path, ErrBusy)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxManifest {
		return nil, fmt.Errorf("read %s: is longer than 1 MiB", path)
	}
	if openForWriting(f) {
		return nil, fmt.Errorf("read %s: %w", path, ErrBusy)
	}
	return text, nil
}

// openForWriting asks for a read lease, which the kernel refuses with EAGAIN while anybody has the inode open for writing
// (fcntl(2), F_SETLEASE; fs/locks.c check_conflicting_open), and gives it back at once. Where leases are not to be had (a
// file of another user without CAP_LEASE, some network file systems) it answers false: the debouncing of Watcher is then
// the only guard.
func openForWriting(f *os.File) bool {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return err != nil
}
