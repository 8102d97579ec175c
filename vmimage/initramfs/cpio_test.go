package initramfs

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatewayd/lab/privileged"
	"gatewayd/plan"
	"gatewayd/vmimage"
)

var update = flag.Bool("update", false, "write the golden files anew")

func open(data string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }
}

// TestGolden: the archive's bytes are these, whatever the order of the entries. Busybox's
// cpio lists the file, and the end-to-end tests boot from such archives.
func TestGolden(t *testing.T) {
	entries := []Entry{
		{Path: "etc/gatewayd/ca.pem", Mode: 0o644, Data: []byte("certificate\n")},
		{Path: "bin/sh", Mode: fs.ModeSymlink, Data: []byte("busybox")},
		{Path: "dev", Mode: fs.ModeDir | 0o755},
		{Path: "gatewayd", Mode: 0o755, Open: open("binary!"), Size: 7},
		{Path: "empty", Mode: 0o600},
	}
	var first, second bytes.Buffer
	if err := Write(&first, entries); err != nil {
		t.Fatal(err)
	}
	for i, j := 0, len(entries)-1; i < j; i, j = i+1, j-1 {
		entries[i], entries[j] = entries[j], entries[i]
	}
	if err := Write(&second, entries); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "small.cpio")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, first.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), want) || !bytes.Equal(second.Bytes(), want) {
		t.Error("the archive differs from testdata/small.cpio; if it should, run with -update and look at it with cpio -tv")
	}
}

func TestWhatIsNoArchive(t *testing.T) {
	long := strings.Repeat("x", maxPath+1)
	for _, c := range []struct {
		name    string
		entries []Entry
		want    string
	}{
		{"twice", []Entry{{Path: "a"}, {Path: "a"}}, "a is there twice"},
		{"leaves", []Entry{{Path: "../a"}}, "no path below the root"},
		{"absolute", []Entry{{Path: "/a"}}, "no path below the root"},
		{"root", []Entry{{Path: "."}}, "no path below the root"},
		{"NUL", []Entry{{Path: "a\x00b"}}, "no path below the root"},
		{"long", []Entry{{Path: long}}, "bytes of a path: more than 4095"},
		{"below a file", []Entry{{Path: "a"}, {Path: "a/b"}}, "a/b lies below a, which is no directory"},
		{"below a link", []Entry{{Path: "a", Mode: fs.ModeSymlink, Data: []byte("/")}, {Path: "a/b"}}, "which is no directory"},
		{"device", []Entry{{Path: "a", Mode: fs.ModeDevice}}, "neither file"},
		{"link to nowhere", []Entry{{Path: "a", Mode: fs.ModeSymlink}}, "leads nowhere"},
		{"large", []Entry{{Path: "a", Open: open(""), Size: MaxFile + 1}}, "bytes of a: more than"},
		{"negative", []Entry{{Path: "a", Open: open(""), Size: -1}}, "bytes of a: more than"},
		{"larger together", []Entry{{Path: "a", Open: open(""), Size: MaxFile}, {Path: "b", Open: open(""), Size: MaxFile}, {Path: "c", Data: []byte("x")}}, "bytes of the archive"},
		{"grew", []Entry{{Path: "a", Open: open("xyz"), Size: 2}}, "size changed"},
		{"shrank", []Entry{{Path: "a", Open: open("x"), Size: 2}}, "size changed"},
	} {
		if err := Write(io.Discard, c.entries); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	var bound *BoundError
	if err := Write(io.Discard, []Entry{{Path: long}}); !errors.As(err, &bound) {
		t.Errorf("got %T", err)
	}
}

func TestFindKernel(t *testing.T) {
	root := t.TempDir()
	for _, k := range []struct {
		release, lib string
	}{
		{"6.1.0-9-cloud-amd64", "lib/modules"}, {"6.1.0-56-cloud-amd64", "lib/modules"}, {"6.12.1-amd64", "usr/lib/modules"}, {"6.12.2-cloud-amd64", ""},
	} {
		for _, dir := range []string{"boot", filepath.Join(k.lib, k.release, "kernel")} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "boot/vmlinuz-"+k.release), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if k, err := FindKernel(t.TempDir(), root); err != nil || k.Release != "6.1.0-56-cloud-amd64" {
		t.Errorf("got %+v, %v: want the newest that is for VMs and has modules", k, err)
	}
	var none *NoKernelError
	if _, err := FindKernel(t.TempDir()); !errors.As(err, &none) || !strings.Contains(err.Error(), "linux-image-cloud-amd64") {
		t.Errorf("got %v", err)
	}
}

// program builds a static program.
func program(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, out := filepath.Join(dir, "main.go"), filepath.Join(dir, "init")
	if err := os.WriteFile(source, []byte("package main\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", out, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

func TestEntriesOfAnImage(t *testing.T) {
	payload := t.TempDir()
	if err := os.WriteFile(filepath.Join(payload, "tool"), []byte("tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tool", filepath.Join(payload, "alias")); err != nil {
		t.Fatal(err)
	}
	s := Spec{
		Init:    program(t),
		Modules: []Module{{Name: "virtio", Data: []byte("v")}, {Name: "net", Data: []byte("n")}},
		Files:   []vmimage.File{{Path: plan.BundleFile, Mode: 0o644, Data: []byte("bundle")}, {Path: "env", Mode: 0o600, Data: []byte("A=b\n")}},
		Payload: []Payload{{Host: payload, At: "/opt"}},
	}
	entries, err := s.Entries()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Entry{}
	for _, e := range entries {
		got[e.Path] = e
	}
	for path, want := range map[string]string{
		"gatewayd-modules/000-virtio.ko": "v", "gatewayd-modules/001-net.ko": "n", "etc/gatewayd/env": "A=b\n",
		"etc/ssl/certs/ca-certificates.crt": "bundle", "opt/alias": "tool",
	} {
		if e, ok := got[path]; !ok || string(e.Data) != want {
			t.Errorf("%s: %q", path, e.Data)
		}
	}
	if e := got["opt/tool"]; e.Mode != 0o755 || e.Size != 4 || got["etc/gatewayd/env"].Mode != 0o600 {
		t.Errorf("modes: %v, %v", e.Mode, got["etc/gatewayd/env"].Mode)
	}
	s.Payload = []Payload{{Host: filepath.Join(payload, "tool"), At: "/" + InitPath}}
	if _, err := s.Entries(); err == nil || !strings.Contains(err.Error(), "where the init is") {
		t.Errorf("a payload in the init's place: %v", err)
	}
	s.Payload = []Payload{{Host: payload, At: "opt"}}
	if _, err := s.Entries(); err == nil || !strings.Contains(err.Error(), "absolute path") {
		t.Errorf("a relative place: %v", err)
	}
}

// TestModulesOfAKernel reads a real kernel, where one is at hand.
func TestModulesOfAKernel(t *testing.T) {
	dirs := filepath.SplitList(os.Getenv("GATEWAYD_TEST_KERNELS"))
	var k Kernel
	privileged.Require(t, func() (err error) {
		k, err = FindKernel(dirs...)
		return err
	})
	modules, err := LoadModules(context.Background(), k, "virtio-net", "virtio_pci")
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, m := range modules {
		at[m.Name] = i + 1
	}
	if at["virtio_net"] == 0 || at["net_failover"] == 0 || at["net_failover"] > at["virtio_net"] {
		t.Errorf("order: %v", at)
	}
	var missing *MissingModuleError
	if _, err := LoadModules(context.Background(), k, "no_such_module"); !errors.As(err, &missing) {
		t.Errorf("got %v", err)
	}
}
