package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gatewayd": main, "qemu-system-x86_64": fakeQEMU})
}

// The scripts in testdata/script specify the program as its users meet it: what it prints, with which code it ends, and
// that it leaves nothing behind.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			return os.MkdirAll(filepath.Join(e.WorkDir, "home"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":     await,
			"baseimage": baseImage,
			"exits":     exits,
			"leaves":    leaves,
			"mode":      mode,
			"static":    static,
		},
		RequireExplicitExec: true,
	})
}

// exits CODE PROGRAM [ARG ...] runs a program and compares its exit code. With "! stderr" lines to follow as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG ...]")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// leaves DIR [PATH ...] tells that DIR holds these files and no others, directories not counted.
func leaves(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: leaves DIR [PATH ...]")
	}
	var got []string
	dir := ts.MkAbs(args[0])
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		got = append(got, rel)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		ts.Fatalf("%v", err)
	}
	want := slices.Sorted(slices.Values(args[1:]))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		ts.Fatalf("%s holds %q, want %q", args[0], got, want)
	}
}

// mode OCTAL PATH compares the permissions of a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL PATH")
	}
	fi, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", fi.Mode().Perm()); got != strings.TrimPrefix(args[0], "0") {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// baseImage FILE writes a container image that has a bundle of authorities, as docker save does.
func baseImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: baseimage FILE")
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	root := "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
	ts.Check(w.WriteHeader(&tar.Header{Name: "etc/ssl/certs/ca-certificates.crt", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(root))}))
	_, err := io.WriteString(w, root)
	ts.Check(errors.Join(err, w.Close()))
	config := fmt.Sprintf(`{"os":"linux","architecture":%q,"config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`,
		runtime.GOARCH, sha256.Sum256(layer.Bytes()))
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	w = tar.NewWriter(f)
	for _, e := range [][2]string{{"config.json", config}, {"layer.tar", layer.String()},
		{"manifest.json", `[{"Config":"config.json","RepoTags":["base:latest"],"Layers":["layer.tar"]}]`}} {
		ts.Check(w.WriteHeader(&tar.Header{Name: e[0], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e[1]))}))
		_, err := io.WriteString(w, e[1])
		ts.Check(err)
	}
	ts.Check(errors.Join(w.Close(), f.Close()))
}
