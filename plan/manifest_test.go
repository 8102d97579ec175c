package plan

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with the file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// manifestErrors returns the refusals that err is made of.
func manifestErrors(t *testing.T, err error) []*ManifestError {
	t.Helper()
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var all []*ManifestError
		for _, e := range joined.Unwrap() {
			all = append(all, manifestErrors(t, e)...)
		}
		return all
	}
	var e *ManifestError
	if !errors.As(err, &e) {
		t.Fatalf("error is %T, not *ManifestError: %v", err, err)
	}
	return []*ManifestError{e}
}

// TestInvalid reads each testdata/invalid-*.yaml and compares the refusals
// with the file of the same name in .txt.
func TestInvalid(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d invalid manifests found, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := ParseManifest(filepath.Base(file), data)
			if err == nil || m != nil {
				t.Fatalf("not refused: %+v", m)
			}
			for _, e := range manifestErrors(t, err) {
				if e.Problem == "" || e.Remedy == "" || e.File == "" {
					t.Errorf("refusal without problem, remedy or file: %#v", e)
				}
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

// TestBounds: files that would cost much are refused before they are parsed.
func TestBounds(t *testing.T) {
	cases := map[string]string{
		"bytes":  strings.Repeat("# a comment\n", MaxManifestBytes/12+1),
		"tokens": "bottle: dev\negress: {routes: [\n" + strings.Repeat("a,\n", maxTokens/2) + "]}\n",
		"routes": "bottle: dev\negress:\n  routes:\n" + strings.Repeat("    - host: a.example.org\n", maxRoutes+1),
	}
	wants := map[string]string{
		"bytes":  "more than 1048576: split it into several bottles",
		"tokens": "YAML tokens, more than 50000: split it into several bottles",
		"routes": "egress.routes: 1001 routes, more than 1000: use wildcards, or split the bottle",
	}
	for name, text := range cases {
		_, err := ParseManifest("big.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), wants[name]) {
			t.Errorf("%s: got %v, want %s", name, err, wants[name])
		}
	}
}

// TestLoadManifest: the file's name is in the message, and a missing file is
// os' own error.
func TestLoadManifest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dev.bottle.yaml")
	if _, err := LoadManifest(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(file, []byte("bottle: dev\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := LoadManifest(file); err != nil || m.File() != file || m.Link.Tap != "gw-dev" {
		t.Errorf("got %+v, %v", m, err)
	}
	if err := os.WriteFile(file, []byte("bottle: DEV\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadManifest(file); err == nil || !strings.HasPrefix(err.Error(), file+":1: bottle: ") {
		t.Errorf("got %v", err)
	}
}

// TestCutOff cuts every example at every byte: what is still taken ends at the
// end of a line, and names no host that the whole does not.
func TestCutOff(t *testing.T) {
	files, err := filepath.Glob("../examples/*.bottle.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := ParseManifest(file, data)
		if err != nil {
			t.Fatal(err)
		}
		hosts := map[string]bool{}
		for _, r := range whole.Egress.Routes {
			hosts[r.Host] = true
		}
		for n := range data {
			m, err := ParseManifest(file, data[:n])
			if err != nil {
				continue
			}
			if data[n-1] != '\n' {
				t.Errorf("%s: taken when cut at byte %d, inside a line", file, n)
			}
			for _, r := range m.Egress.Routes {
				if !hosts[r.Host] {
					t.Errorf("%s: cut at byte %d: host %s", file, n, r.Host)
				}
			}
		}
	}
}

// TestLineEnds: a file from a system with other line ends means the same.
func TestLineEnds(t *testing.T) {
	m, err := LoadManifest("testdata/valid-crlf.yaml")
	if err != nil || m.Bottle != "crlf" || len(m.Egress.Routes) != 1 || m.Egress.Routes[0].Host != "a.example.org" {
		t.Errorf("got %+v, %v", m, err)
	}
}
