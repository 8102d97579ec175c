package manifests

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestScan(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "b.bottle.yaml"), "b v1")
	write(t, filepath.Join(dir, "a.bottle.yaml"), "a v1")
	write(t, filepath.Join(dir, "a.bottle.yaml~"), "x")
	write(t, filepath.Join(dir, ".a.bottle.yaml"), "x")
	write(t, filepath.Join(dir, "README"), "x")
	if err := os.Mkdir(filepath.Join(dir, "d.bottle.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "f.bottle.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "z.bottle.yaml"), strings.Repeat("#", maxManifest+1))
	files, err := Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		s := filepath.Base(f.Path) + "=" + string(f.Text)
		if f.Err != nil {
			s = filepath.Base(f.Path) + "!"
		}
		got = append(got, s)
	}
	want := "a.bottle.yaml=a v1 b.bottle.yaml=b v1 d.bottle.yaml! f.bottle.yaml! z.bottle.yaml!"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestScanOfNoDirectoryIsEmpty(t *testing.T) {
	files, err := Scan(filepath.Join(t.TempDir(), "none"))
	if err != nil || files != nil {
		t.Errorf("got %v, %v", files, err)
	}
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "")
	if _, err := Scan(path); err == nil {
		t.Error("a directory that cannot be listed says that all manifests are gone")
	}
}

// A file that a slow writer still has open is not believed, however well it parses: a route without its last line, which
// held its methods, allows more than the route.
func TestHalfWrittenIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.bottle.yaml")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("a v1\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := Read(path); !errors.Is(err, ErrBusy) {
		t.Errorf("open for writing: %q, %v", text, err)
	}
	f.Close()
	if text, err := Read(path); err != nil || string(text) != "a v1\n" {
		t.Errorf("closed: %q, %v", text, err)
	}
}
