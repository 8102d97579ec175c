package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// archive is what holds an image's files: a directory, or a tar file that is never unpacked.
type archive interface {
	// open returns a regular file and its size in bytes. It may be called while other files are open.
	open(name string) (io.ReadCloser, int64, error)
	Close() error
}

// openArchive opens a directory or a tar file.
func openArchive(name string) (archive, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return dirArchive{root}, nil
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is neither a file nor a directory", name), f.Close())
	}
	t, err := indexTar(f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.close = f.Close
	return t, nil
}

// dirArchive is a directory. No name and no symbolic link leads out of it.
type dirArchive struct{ root *os.Root }

func (d dirArchive) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would block
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (d dirArchive) Close() error { return d.root.Close() }

// tarArchive knows where in a tar file each of its files lies.
type tarArchive struct {
	in    io.ReaderAt
	files map[string]span
	links map[string]string // of older `docker save`: one layer for several names
	close func() error
}

type span struct{ at, size int64 }

// indexTar reads the headers of a tar file of size bytes.
func indexTar(in io.ReaderAt, size int64) (*tarArchive, error) {
	t := &tarArchive{in: in, files: map[string]span{}, links: map[string]string{}, close: func() error { return nil }}
	pos := io.NewSectionReader(in, 0, size)
	if err := refuseCompressed(in); err != nil {
		return nil, err
	}
	r := tar.NewReader(pos)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read tar file: %w", err)
		}
		if n >= maxArchiveEntries {
			return nil, &BoundError{What: "files of the archive", Most: maxArchiveEntries}
		}
		if err := t.add(h, pos, size); err != nil {
			return nil, err
		}
	}
}

// add notes one file, whose content begins where pos is: the reader of tar files takes whole blocks and nothing ahead.
func (t *tarArchive) add(h *tar.Header, pos io.Seeker, size int64) error {
	name := path.Clean(h.Name)
	switch h.Typeflag {
	case tar.TypeReg:
		at, err := pos.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if isSparse(h) || h.Size > size-at {
			return fmt.Errorf("read tar file: %q is sparse or cut off", name)
		}
		t.files[name] = span{at, h.Size}
	case tar.TypeSymlink:
		t.links[name] = path.Join(path.Dir(name), h.Linkname)
	case tar.TypeLink:
		t.links[name] = path.Clean(h.Linkname)
	}
	return nil
}

// isSparse tells whether the content in the tar file is not the file's own.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

func (t *tarArchive) open(name string) (io.ReadCloser, int64, error) {
	name = path.Clean(name)
	for range maxLinks {
		if s, ok := t.files[name]; ok {
			return io.NopCloser(io.NewSectionReader(t.in, s.at, s.size)), s.size, nil
		}
		to, ok := t.links[name]
		if !ok {
			return nil, 0, fmt.Errorf("open %q in the archive: %w", name, fs.ErrNotExist)
		}
		name = to
	}
	return nil, 0, fmt.Errorf("open %q in the archive: too many links", name)
}

func (t *tarArchive) Close() error { return t.close() }

// refuseCompressed says so when the whole archive is compressed, since files in it could not be found then.
func refuseCompressed(in io.ReaderAt) error {
	var magic [4]byte
	if _, err := in.ReadAt(magic[:], 0); err != nil {
		return nil //nolint:nilerr // too short: what it is, is said by the reader of tar files
	}
	if compressionOf(magic[:]) != plain || bytes.HasPrefix(magic[:], []byte("BZh")) || bytes.HasPrefix(magic[:], []byte{0xfd, '7', 'z', 'X'}) {
		return errors.New("the archive is compressed as a whole: unpack it to a tar file first, with gunzip for instance")
	}
	return nil
}

// readSmall reads a whole file of the archive.
func readSmall(a archive, name string) ([]byte, error) {
	in, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if size > maxJSON {
		return nil, &BoundError{What: "bytes of " + name, Most: maxJSON}
	}
	return io.ReadAll(io.LimitReader(in, maxJSON))
}

// blobPath is where a layout keeps a blob (image-layout.md of the OCI image specification).
func blobPath(h v1.Hash) (string, error) {
	if h.Algorithm != "sha256" || len(h.Hex) != 2*sha256.Size || strings.Trim(h.Hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("digest %q is no SHA-256", h.String())
	}
	return "blobs/sha256/" + h.Hex, nil
}

// readBlob reads a small blob and checks that it is the one that was asked for.
func readBlob(a archive, h v1.Hash) ([]byte, error) {
	name, err := blobPath(h)
	if err != nil {
		return nil, err
	}
	data, err := readSmall(a, name)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != h.Hex {
		return nil, fmt.Errorf("%s holds something else", name)
	}
	return data, nil
}
