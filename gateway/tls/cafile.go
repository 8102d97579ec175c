package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxCAFile bounds what is read of a key or certificate file; real ones have under 1 KB.
const maxCAFile = 64 << 10

// lockDir makes dir when it is missing and takes an exclusive lock (flock(2)) on it, waiting for who has it. The lock ends
// with the process, however that ends.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	info, err := d.Stat()
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("check directory %s: others may write to it (mode %04o); run: chmod go-w %s", dir, info.Mode().Perm(), dir)
	}
	for err == nil {
		if err = unix.Flock(int(d.Fd()), unix.LOCK_EX); err == nil {
			return func() { _ = d.Close() }, nil
		}
		if errors.Is(err, unix.EINTR) {
			err = nil
		}
	}
	_ = d.Close()
	return nil, fmt.Errorf("lock directory %s: %w", dir, err)
}

// loadKey reads the authority's key; os.ErrNotExist is in the error when there is none.
func loadKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, keyFile)
	b, err := readFile(path, 0o077)
	if err != nil {
		return nil, err
	}
	der, err := onePEM(path, "PRIVATE KEY", b)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		// The parser's error says nothing of the key's bytes, but a key file deserves no trust in that.
		return nil, fmt.Errorf("read %s: not a PKCS #8 private key", path)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read %s: not an ECDSA key on P-256", path)
	}
	return key, nil
}

// loadCert reads the authority's certificate; os.ErrNotExist is in the error when there is none.
func loadCert(dir string) (*x509.Certificate, error) {
	path := filepath.Join(dir, certFile)
	b, err := readFile(path, 0o022)
	if err != nil {
		return nil, err
	}
	der, err := onePEM(path, "CERTIFICATE", b)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return cert, nil
}

// readFile reads a regular file that belongs to this user or root and has none of the mode bits in forbidden. A symbolic link
// is refused: what the checks saw must be what is read.
func readFile(path string, forbidden os.FileMode) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("open %s: it is a symbolic link; put the file itself there", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	perm := os.FileMode(st.Mode).Perm()
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("open %s: not a regular file", path)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("check %s: it belongs to user %d; run: chown %d %s", path, st.Uid, os.Geteuid(), path)
	case perm&forbidden != 0:
		return nil, fmt.Errorf("check %s: mode %04o lets others in; if nobody used that, run: chmod %04o %s",
			path, perm, perm&^forbidden, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxCAFile {
		return nil, fmt.Errorf("read %s: longer than %d bytes", path, maxCAFile)
	}
	return b, nil
}

// onePEM takes the single PEM block of the given type out of a file's content.
func onePEM(path, typ string, b []byte) ([]byte, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != typ {
		return nil, fmt.Errorf("read %s: no PEM block of type %s", path, typ)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fmt.Errorf("read %s: more than one PEM block", path)
	}
	return block.Bytes, nil
}

// writeFile puts a file into dir so that it is there whole, with its mode and on the disk, or not at all.
func writeFile(dir, name string, mode os.FileMode, content []byte) (err error) {
	f, err := os.CreateTemp(dir, "."+name+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(dir, name), err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", filepath.Join(dir, name), err)
		}
	}()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
