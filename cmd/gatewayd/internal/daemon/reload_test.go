package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/gateway"
	"gatewayd/gateway/routes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeFleet remembers what it was asked to run.
type fakeFleet struct {
	desired []gateway.Bottle
	err     error
	calls   int
}

func (f *fakeFleet) Apply(_ context.Context, desired []gateway.Bottle) error {
	f.calls++
	if f.err == nil {
		f.desired = desired
	}
	return f.err
}

func (f *fakeFleet) Bottles() []gateway.BottleInfo { return nil }

// allows lists "bottle host" for every host of hosts that what was asked for last would let through.
func (f *fakeFleet) allows(hosts ...string) string {
	var out []string
	for _, b := range f.desired {
		for _, h := range hosts {
			if b.Table.DecideFlow(h, 443, routes.HTTPS).Decision != routes.Deny {
				out = append(out, b.Name+" "+h)
			}
		}
	}
	return strings.Join(out, ", ")
}

// world is a keeper over a directory, with everything real but the fleet.
type world struct {
	t       *testing.T
	daemon  *daemon
	keeper  *keeper
	fleet   *fakeFleet
	log     *bytes.Buffer
	watched []string
	again   bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, fleet: &fakeFleet{}, log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	d := &daemon{Options: Options{Host: provision.Machine{}, Log: log, Config: config.Config{
		Instance: "test", StateDir: filepath.Join(dir, "state"), Pool: netip.MustParsePrefix("198.19.0.0/24"),
	}}}
	w.daemon = d
	w.keeper = &keeper{
		dir: filepath.Join(dir, "bottles"), load: d.load, fleet: w.fleet, log: log,
		metrics: newMetrics(prometheus.NewRegistry(), "test"),
		settle:  func(files []string, unsettled bool) { w.watched, w.again = files, unsettled },
	}
	if err := os.Mkdir(w.keeper.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.keeper.dir, name+".bottle.yaml") }

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) look() error { return w.keeper.look(context.Background()) }

func manifest(bottle string, hosts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "bottle: %s\nlink: {netns: /run/netns/%s}\negress:\n  routes:\n", bottle, bottle)
	for _, h := range hosts {
		fmt.Fprintf(&b, "    - host: %s\n", h)
	}
	return b.String()
}

const (
	before = "before.example.com"
	after  = "after.example.com"
)

// Whatever becomes of a manifest, a bottle is allowed what the last whole manifest said, or nothing.
func TestReloadNeverWidens(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world)
		want   string
	}{
		{"nothing", func(*world) {}, "dev " + before},
		{"a whole new manifest", func(w *world) { w.write("dev", manifest("dev", after)) }, "dev " + after},
		{"not YAML", func(w *world) { w.write("dev", manifest("dev", after)+"  - [") }, "dev " + before},
		{"an unknown key", func(w *world) { w.write("dev", manifest("dev", after)+"egres: {}\n") }, "dev " + before},
		{"cut off in a word", func(w *world) { w.write("dev", "bottle: dev\nlink: {netns: /run/netns/dev}\negr") }, "dev " + before},
		{"cut off after the link", func(w *world) { w.write("dev", "bottle: dev\nlink: {netns: /run/netns/dev}\n") }, ""},
		{"a wildcard for everything", func(w *world) { w.write("dev", manifest("dev", `"*"`)) }, "dev " + before},
		{"emptied", func(w *world) { w.write("dev", "") }, ""},
		{"commented out", func(w *world) { w.write("dev", "# bottle: dev\n") }, ""},
		{"deleted", func(w *world) { os.Remove(w.path("dev")) }, ""},
		{"the directory deleted", func(w *world) { os.RemoveAll(w.keeper.dir) }, ""},
		{"renamed", func(w *world) { os.Rename(w.path("dev"), w.path("other")) }, "dev " + before},
		{"renamed to no manifest", func(w *world) { os.Rename(w.path("dev"), w.path("dev")+".off") }, ""},
		{"a second file for the bottle", func(w *world) { w.write("a", manifest("dev", after)) }, "dev " + before},
		{"replaced by a directory", func(w *world) { os.Remove(w.path("dev")); os.Mkdir(w.path("dev"), 0o700) }, "dev " + before},
		{"a dangling link", func(w *world) { os.Remove(w.path("dev")); os.Symlink("/nonexistent", w.path("dev")) }, ""},
		{"the directory is a file", func(w *world) {
			os.RemoveAll(w.keeper.dir)
			os.WriteFile(w.keeper.dir, nil, 0o600)
		}, "dev " + before},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("dev", manifest("dev", before))
			if err := w.look(); err != nil {
				t.Fatal(err)
			}
			c.change(w)
			_ = w.look() // what it says is judged by what is in force
			if got := w.fleet.allows(before, after); got != c.want {
				t.Errorf("in force: %q, want %q\n%s", got, c.want, w.log)
			}
		})
	}
}

// A writer that has not closed the file yet is waited for, even if what it has written so far would parse.
func TestHalfWrittenManifestWaits(t *testing.T) {
	w := newWorld(t)
	w.write("dev", manifest("dev", before))
	if err := w.look(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(w.path("dev"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, part := range []string{"", manifest("dev", after), "    # and more\n"} {
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
		if err := w.look(); err != nil {
			t.Fatal(err)
		}
		if got := w.fleet.allows(before, after); got != "dev "+before || !w.again {
			t.Errorf("part %d: in force: %q, looked at again soon: %v", i, got, w.again)
		}
	}
	f.Close()
	if err := w.look(); err != nil || w.fleet.allows(before, after) != "dev "+after || w.again {
		t.Errorf("closed: %v, in force: %q", err, w.fleet.allows(before, after))
	}
}

func TestBrokenAtStartIsShutAndOthersRun(t *testing.T) {
	w := newWorld(t)
	w.write("a", manifest("a", before))
	w.write("b", "bottle: b\nnonsense: true\n")
	if err := w.look(); err != nil {
		t.Fatal(err)
	}
	if got := w.fleet.allows(before); got != "a "+before || len(w.fleet.desired) != 1 {
		t.Errorf("in force: %q of %d bottles", got, len(w.fleet.desired))
	}
	if !strings.Contains(w.log.String(), "b.bottle.yaml") || !w.again {
		t.Errorf("log: %s", w.log)
	}
	if got := testutil.ToFloat64(w.keeper.metrics.manifests.WithLabelValues("shut")); got != 1 {
		t.Errorf("%v manifests counted as shut", got)
	}
	if got := testutil.CollectAndCount(w.keeper.metrics.refusals); got != 1 {
		t.Errorf("%d bottles with refusals", got)
	}
}

func TestDirectoryThatComesLater(t *testing.T) {
	w := newWorld(t)
	if err := os.Remove(w.keeper.dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.look(); err != nil || !w.again {
			t.Errorf("look: %v, again soon: %v", err, w.again)
		}
	}
	if n := strings.Count(w.log.String(), "is not there"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if err := os.Mkdir(w.keeper.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("dev", manifest("dev", before))
	if err := w.look(); err != nil || w.again || w.fleet.allows(before) == "" {
		t.Errorf("look: %v, again soon: %v", err, w.again)
	}
}

// What stays wrong is said and counted once, not at every look.
func TestRefusalIsSaidOnce(t *testing.T) {
	w := newWorld(t)
	w.write("dev", manifest("dev", before))
	for i := range 3 {
		if i == 1 {
			w.write("dev", "bottle: dev\nnonsense: true\n")
		}
		if err := w.look(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(w.log.String(), "manifest refused; the plan of before stays in force"); n != 1 {
		t.Errorf("said %d times:\n%s", n, w.log)
	}
	if n := testutil.ToFloat64(w.keeper.metrics.refusals); n != 1 {
		t.Errorf("counted %v times", n)
	}
}

func TestApplyThatFailsIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.write("dev", manifest("dev", before))
	w.fleet.err = errors.New("no such device")
	for range 2 {
		if err := w.look(); err == nil || !w.again {
			t.Errorf("look: %v, again: %v", err, w.again)
		}
	}
	if n := strings.Count(w.log.String(), "no such device"); n != 1 {
		t.Errorf("said %d times", n)
	}
	w.fleet.err = nil
	if err := w.look(); err != nil || w.again || w.fleet.allows(before) == "" {
		t.Errorf("look: %v, again: %v", err, w.again)
	}
}

func TestBottlesHaveTheirOwnAddressesAndAuthorities(t *testing.T) {
	w := newWorld(t)
	w.write("a", manifest("a"))
	w.write("b", manifest("b"))
	if err := w.look(); err != nil || len(w.fleet.desired) != 2 {
		t.Fatalf("%v, %d bottles", err, len(w.fleet.desired))
	}
	a, b := w.fleet.desired[0], w.fleet.desired[1]
	if a.Link.Guest == b.Link.Guest || a.Link.Name == b.Link.Name || slices.Equal(a.Link.MAC, b.Link.MAC) || bytes.Equal(a.CA.CertPEM(), b.CA.CertPEM()) {
		t.Errorf("shared:\n%+v\n%+v", a.Link, b.Link)
	}
	if err := w.look(); err != nil || w.fleet.desired[0].Link.Guest != a.Link.Guest || !bytes.Equal(w.fleet.desired[0].CA.CertPEM(), a.CA.CertPEM()) {
		t.Error("a second look gave other addresses or authorities")
	}
}
