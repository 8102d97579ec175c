package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"gatewayd/lab"
)

func (b *bench) signal(s syscall.Signal) {
	b.t.Helper()
	if err := b.Gateway.Signal(s); err != nil {
		b.t.Fatal(err)
	}
}

const narrowRoute = `
egress:
  routes:
    - host: files.example.org
      methods: [GET]
      paths: ["/open/**"]
`

const widerRoutes = `
egress:
  routes:
    - host: files.example.org
    - host: evil.example.org
`

// allows and denies look at one URL from the bottle.
func (b *bench) allows(url string) error { return wantStatus(b.get("-timeout", "5s", url), 200) }

func (b *bench) denies(url string) error {
	// A bottle that is shut gives no answer at all.
	if seen := b.get("-timeout", "1500ms", url); seen.Status == 200 {
		return fmt.Errorf("%s was answered: %s", url, seen.Body)
	}
	return nil
}

// TestManifestsNeverWiden changes the manifest in every wrong way. The plan
// that was in force stays, or nothing at all is allowed.
func TestManifestsNeverWiden(t *testing.T) {
	b := newBench(t, nil)
	files := b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.serve(&lab.Site{Names: []string{"evil.example.org"}})
	b.start(narrowRoute)
	const open, shut, evil = "https://files.example.org/open/x", "https://files.example.org/shut", "https://evil.example.org/"
	path := b.Gateway.ManifestPath(bottleName)
	good := b.manifest(narrowRoute)
	wider := b.manifest(widerRoutes)
	narrow := func(what string) {
		t.Helper()
		for _, url := range []string{shut, evil} {
			if err := b.denies(url); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	narrow("at first")
	if err := b.allows(open); err != nil {
		t.Fatal(err)
	}
	noticed := func(f func()) {
		t.Helper()
		before := len(b.Gateway.Log())
		f()
		eventually(t, func() error {
			if log := b.Gateway.Log(); len(log) > before && strings.Contains(log[before:], bottleName) {
				return nil
			}
			return fmt.Errorf("gatewayd has said nothing of the change")
		})
	}
	for _, c := range []struct{ name, text string }{
		{"not YAML", "bottle: [dev\n"},
		{"an unknown key", wider + "allow_all: true\n"},
		{"a wrong type", strings.Replace(wider, "files.example.org", "{ any: thing }", 1)},
		{"a wildcard for everything", strings.Replace(wider, "evil.example.org", `"*"`, 1)},
		{"two documents", wider + "---\n" + wider},
		{"binary", "\x00\x01\x02" + wider},
	} {
		t.Run(c.name, func(t *testing.T) {
			noticed(func() {
				if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
			})
			narrow(c.name)
			if err := b.allows(open); err != nil {
				t.Errorf("%s: the plan in force was to stay: %v", c.name, err)
			}
		})
	}
	t.Run("half written", func(t *testing.T) {
		// Cut before what narrows the route: alone it would be a wider plan.
		half := strings.Index(good, "      methods:")
		var f *os.File
		noticed(func() {
			var err error
			if f, err = os.Create(path); err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(good[:half]); err != nil {
				t.Fatal(err)
			}
		})
		narrow("half written")
		if _, err := f.WriteString(good[half:]); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return b.allows(open) })
		narrow("written to its end")
	})
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"emptied", func() error { return os.Truncate(path, 0) }},
		{"deleted", func() error { return os.Remove(path) }},
		{"given another bottle's name", func() error {
			return os.WriteFile(path, []byte(strings.Replace(wider, "bottle: dev", "bottle: other", 1)), 0o600)
		}},
		{"the directory renamed", func() error { return os.Rename(b.Gateway.BottlesDir, b.Gateway.BottlesDir+".away") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			noticed(func() {
				if err := c.do(); err != nil {
					t.Fatal(err)
				}
			})
			narrow(c.name)
			if c.name == "the directory renamed" {
				if err := os.Rename(b.Gateway.BottlesDir+".away", b.Gateway.BottlesDir); err != nil {
					t.Fatal(err)
				}
			}
			b.writeManifest(narrowRoute)
			b.signal(syscall.SIGHUP) // a directory that had gone is else looked at by and by
			eventually(t, func() error { return b.allows(open) })
			narrow(c.name + ", then restored")
		})
	}
	b.nothingElse(files.Addr)
}

// TestManifestReloads: a good change comes into force, both ways, without a
// restart.
func TestManifestReloads(t *testing.T) {
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.serve(&lab.Site{Names: []string{"evil.example.org"}})
	b.start(narrowRoute)
	const evil = "https://evil.example.org/"
	if err := b.denies(evil); err != nil {
		t.Fatal(err)
	}
	b.writeManifest(widerRoutes)
	eventually(t, func() error { return b.allows(evil) })
	b.writeManifest(narrowRoute)
	eventually(t, func() error { return b.denies(evil) })
	if err := b.allows("https://files.example.org/open/y"); err != nil {
		t.Error(err)
	}
}
