package e2e

import (
	"errors"
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
	if seen := b.get("-timeout", "700ms", url); seen.Status == 200 {
		return fmt.Errorf("%s was answered: %s", url, seen.Body)
	}
	return nil
}

// narrowBench is a bench with a narrow plan, whose manifest is about to be
// mistreated.
type narrowBench struct {
	*bench
	files *lab.Site
	path  string // of the manifest
	good  string // what it holds
	wider string // what it would hold if it allowed more
}

const (
	openURL = "https://files.example.org/open/x"
	shutURL = "https://files.example.org/shut"
	evilURL = "https://evil.example.org/"
)

func newNarrowBench(t *testing.T) *narrowBench {
	t.Helper()
	n := &narrowBench{bench: newBench(t, nil)}
	n.files = n.serve(&lab.Site{Names: []string{"files.example.org"}})
	evil := n.serve(&lab.Site{Names: []string{"evil.example.org"}})
	t.Cleanup(func() { // whatever the bottle was told
		for _, r := range n.files.Requests() {
			if !strings.HasPrefix(r.URI, "/open/") {
				t.Errorf("the server saw %s %s", r.Method, r.URI)
			}
		}
		if got := evil.Connections(); got > 0 {
			t.Errorf("%d connections reached the host that no plan names", got)
		}
	})
	n.start(narrowRoute)
	n.path = n.Gateway.ManifestPath(bottleName)
	n.good, n.wider = n.manifest(narrowRoute), n.manifest(widerRoutes)
	n.narrow("at first")
	if err := n.allows(openURL); err != nil {
		t.Fatal(err)
	}
	return n
}

// narrow checks that nothing passes that the narrow plan denies.
func (n *narrowBench) narrow(when string) {
	n.t.Helper()
	for _, url := range []string{shutURL, evilURL} {
		if err := n.denies(url); err != nil {
			n.t.Errorf("%s: %v", when, err)
		}
	}
}

// noticed does something to the manifest and waits until gatewayd has said
// something about it.
func (n *narrowBench) noticed(f func() error) {
	n.t.Helper()
	before := len(n.Gateway.Log())
	if err := f(); err != nil {
		n.t.Fatal(err)
	}
	eventually(n.t, func() error {
		if log := n.Gateway.Log(); len(log) > before && strings.Contains(log[before:], bottleName) {
			return nil
		}
		return errors.New("gatewayd has said nothing of the change")
	})
}

// TestBrokenManifestChangesNothing: the plan that was in force stays.
func TestBrokenManifestChangesNothing(t *testing.T) {
	n := newNarrowBench(t)
	for _, c := range []struct{ name, text string }{
		{"not YAML", "bottle: [dev\n"},
		{"an unknown key", n.wider + "allow_all: true\n"},
		{"a wrong type", strings.Replace(n.wider, "files.example.org", "{ any: thing }", 1)},
		{"a wildcard for everything", strings.Replace(n.wider, "evil.example.org", `"*"`, 1)},
		{"two documents", n.wider + "---\n" + n.wider},
		{"binary", "\x00\x01\x02" + n.wider},
	} {
		n.noticed(func() error { return os.WriteFile(n.path, []byte(c.text), 0o600) })
		n.narrow(c.name)
		if err := n.allows(openURL); err != nil {
			t.Errorf("%s: the plan in force was to stay: %v", c.name, err)
		}
	}
	n.nothingElse(n.files.Addr)
}

// TestHalfWrittenManifest stops writing before what narrows the route: alone
// that would be a wider plan.
func TestHalfWrittenManifest(t *testing.T) {
	n := newNarrowBench(t)
	half := strings.Index(n.good, "      methods:")
	f, err := os.Create(n.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n.noticed(func() error { _, err := f.WriteString(n.good[:half]); return err })
	n.narrow("half written")
	if err := n.allows(openURL); err != nil {
		t.Errorf("half written: the plan in force was to stay: %v", err)
	}
	if _, err := f.WriteString(n.good[half:]); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return n.allows(openURL) })
	n.narrow("written to its end")
	n.nothingElse(n.files.Addr)
}

// TestManifestTakenAway: without a manifest the bottle is shut, until there is
// one again.
func TestManifestTakenAway(t *testing.T) {
	n := newNarrowBench(t)
	dir := n.Gateway.BottlesDir
	for _, c := range []struct {
		name     string
		do, undo func() error
	}{
		{"emptied", func() error { return os.Truncate(n.path, 0) }, nil},
		{"deleted", func() error { return os.Remove(n.path) }, nil},
		{"given another bottle's name", func() error {
			return os.WriteFile(n.path, []byte(strings.Replace(n.wider, "bottle: dev", "bottle: other", 1)), 0o600)
		}, nil},
		{"the directory renamed", func() error { return os.Rename(dir, dir+".away") }, func() error { return os.Rename(dir+".away", dir) }},
	} {
		n.noticed(c.do)
		n.narrow(c.name)
		if err := n.denies(openURL); err != nil {
			t.Errorf("%s: the bottle was to be shut: %v", c.name, err)
		}
		if c.undo != nil {
			if err := c.undo(); err != nil {
				t.Fatal(err)
			}
		}
		n.writeManifest(narrowRoute)
		n.signal(syscall.SIGHUP) // a directory that had gone is else looked at by and by
		eventually(t, func() error { return n.allows(openURL) })
		n.narrow(c.name + ", then restored")
	}
	n.nothingElse(n.files.Addr)
}

// TestManifestReloads: a good change comes into force, both ways, without a
// restart.
func TestManifestReloads(t *testing.T) {
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.serve(&lab.Site{Names: []string{"evil.example.org"}})
	b.start(narrowRoute)
	if err := b.denies(evilURL); err != nil {
		t.Fatal(err)
	}
	b.writeManifest(widerRoutes)
	eventually(t, func() error { return b.allows(evilURL) })
	b.writeManifest(narrowRoute)
	eventually(t, func() error { return b.denies(evilURL) })
	if err := b.allows("https://files.example.org/open/y"); err != nil {
		t.Error(err)
	}
}
