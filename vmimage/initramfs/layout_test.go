package initramfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gatewayd/plan"
	"gatewayd/vmimage"
)

// system makes the directory of a whole system: a name that ends in / is a directory, a value that begins with -> a link.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch target, link := strings.CutPrefix(content, "->"); {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		case link:
			err = os.Symlink(target, at)
		default:
			err = os.WriteFile(at, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Systems as far as they matter to what is put among them.
var (
	debianSystem = map[string]string{
		"bin": "->usr/bin", "lib": "->usr/lib", "lib64": "->usr/lib64", "usr/bin/sh": "dash", "usr/lib/": "", "usr/lib64/ld.so": "loader",
		"etc/passwd": "root:x:0:0::/root:/bin/bash\n", "etc/group": "root:x:0:\n", "etc/ssl/certs/ca-certificates.crt": "of the system",
		"var/run": "->/run", "run/lock/": "", "dev/null": "no device", "proc/": "", "sys/": "", "tmp/old": "x", "root/.profile": "p",
	}
	alpineSystem = map[string]string{
		"bin/busybox": "busybox", "bin/sh": "->/bin/busybox", "lib/ld-musl.so": "loader", "etc/ssl/cert.pem": "->certs/ca-certificates.crt",
		"etc/ssl/certs/ca-certificates.crt": "of the system", "etc/passwd": "root:x:0:0::/root:/bin/ash\n",
	}
	fedoraSystem = map[string]string{
		"etc/ssl/certs": "->../pki/tls/certs", "etc/pki/tls/certs/ca-bundle.crt": "->/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": "of the system", "etc/passwd": "root:x:0:0::/root:/bin/bash\n",
	}
)

// TestSystems: a whole system may be the payload. The bottle's bundle is where its clients look, the libraries stay where its
// links say, and a file that is named alone has the last word.
func TestSystems(t *testing.T) {
	init := program(t)
	tool := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(tool, []byte("tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		files  map[string]string
		want   map[string]string // by path; "->" for links, "" for absent
		toolAt string
	}{
		{"Debian", debianSystem, map[string]string{
			"bin": "->usr/bin", "lib": "->usr/lib", "etc/passwd": "root:x:0:0::/root:/bin/bash\n", "etc/ssl/certs/ca-certificates.crt": "bundle",
			"dev/null": "", "tmp/old": "", "run/lock": "", "root/.profile": "p", "var/run": "->/run"}, "usr/bin/tool"},
		{"Alpine", alpineSystem, map[string]string{
			"bin/sh": "->/bin/busybox", "etc/ssl/certs/ca-certificates.crt": "bundle", "etc/ssl/cert.pem": "bundle", "etc/group": "root:x:0:\n"}, "bin/tool"},
		{"Fedora", fedoraSystem, map[string]string{
			"etc/ssl/certs": "->../pki/tls/certs", "etc/pki/tls/certs/ca-bundle.crt": "bundle", "etc/pki/tls/certs/ca-certificates.crt": "bundle"}, "bin/tool"},
	} {
		s := Spec{Init: init, Modules: []Module{{Name: "m", Data: []byte("m")}},
			Files:   []vmimage.File{{Path: plan.BundleFile, Mode: 0o644, Data: []byte("bundle")}},
			Payload: []Payload{{Host: tool, At: "/bin/tool"}, {Host: system(t, c.files), At: "/"}}}
		entries, err := s.Entries()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		c.want[c.toolAt], c.want["gatewayd-modules/000-m.ko"], c.want["etc/gatewayd/"+plan.BundleFile] = "tool", "m", "bundle"
		got := map[string]string{}
		for _, e := range entries {
			got[e.Path] = contentOf(t, e)
		}
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s: %s is %q, want %q", c.name, name, got[name], want)
			}
		}
		again, err := s.Entries()
		var first, second bytes.Buffer
		if err := errors.Join(err, Write(&first, entries), Write(&second, again)); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%s: made twice, it differs: %v", c.name, err)
		}
	}
}

func contentOf(t *testing.T, e Entry) string {
	t.Helper()
	switch {
	case e.Mode.Type() != 0:
		if e.Mode.IsDir() {
			return "/"
		}
		return "->" + string(e.Data)
	case e.Open == nil:
		return string(e.Data)
	}
	in, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(in); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMemory: a guest holds the archive and what is unpacked from it.
func TestMemory(t *testing.T) {
	for archive, want := range map[int64]int{0: guestMiB, 1: guestMiB + 1, 64 << 20: guestMiB + 128, MaxArchive: guestMiB + 4096} {
		if got := MemoryMiB(archive); got != want {
			t.Errorf("%d bytes: %d MiB, want %d", archive, got, want)
		}
	}
}

// TestSystemsThatFail: what cannot be put together is an error, not a VM that does not boot.
func TestSystemsThatFail(t *testing.T) {
	init := program(t)
	pipe := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(pipe, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, dir := range map[string]string{
		"too many symbolic links":          system(t, map[string]string{"etc": "->etc"}),
		"both a directory and something":   system(t, map[string]string{"etc/gatewayd/ca-bundle.pem/": ""}),
		"where the init is":                system(t, map[string]string{"gatewayd": "another"}),
		"neither file, directory nor symb": pipe,
	} {
		s := Spec{Init: init, Files: []vmimage.File{{Path: plan.BundleFile, Data: []byte("b")}}, Payload: []Payload{{Host: dir, At: "/"}}}
		if _, err := s.Entries(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
	}
}
