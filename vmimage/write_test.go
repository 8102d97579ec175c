package vmimage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestWrite: modes hold whatever the umask, a second write replaces, other
// files stay, and nothing temporary is left.
func TestWrite(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "a", "b")
	for _, text := range []string{"first", "second, longer", "3rd"} {
		if err := Write(dir, []File{{Path: "pub", Mode: 0o644, Data: []byte(text)}, {Path: "x/y/secret", Mode: 0o600, Data: []byte(text)}}); err != nil {
			t.Fatal(err)
		}
		if got := content(t, filepath.Join(dir, "x/y/secret")); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
		if err := os.WriteFile(filepath.Join(dir, "x/mine"), []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]fs.FileMode{".": 0o700, "pub": 0o644, "x": 0o700, "x/y": 0o700, "x/y/secret": 0o600, "x/mine": 0o600}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if mode, known := want[path]; !known || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %04o, want %04o (known: %v)", path, info.Mode().Perm(), mode, known)
		}
		delete(want, path)
		return nil
	})
	if err != nil || len(want) != 0 {
		t.Errorf("missing %v, error %v", want, err)
	}
}

// TestWriteStaysInside: neither a path nor a symbolic link leads out.
func TestWriteStaysInside(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../escaped", "/escaped", "link/escaped", ".", "a//b"} {
		if err := Write(dir, []File{{Path: path, Mode: 0o600, Data: []byte("x")}}); err == nil {
			t.Errorf("%q was written", path)
		}
	}
	if found, err := os.ReadDir(outside); err != nil || len(found) != 0 {
		t.Errorf("outside: %v, %v", found, err)
	}
}

// TestWriteReplacesLinks: a link in the place of a file is replaced, not
// followed, and what an interrupted run left is no obstacle.
func TestWriteReplacesLinks(t *testing.T) {
	target, dir := filepath.Join(t.TempDir(), "target"), t.TempDir()
	if err := os.WriteFile(target, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "file.new"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(dir, []File{{Path: "file", Mode: 0o600, Data: []byte("new")}}); err != nil {
		t.Fatal(err)
	}
	if content(t, target) != "untouched" || content(t, filepath.Join(dir, "file")) != "new" {
		t.Error("the link was followed")
	}
	if _, err := os.Lstat(filepath.Join(dir, "file.new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file.new: %v", err)
	}
}
