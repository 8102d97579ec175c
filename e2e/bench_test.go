package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatewayd/lab"
	"gatewayd/lab/demo"
	"gatewayd/lab/privileged"
)

// bottleName is the bottle of most tests.
const bottleName = "dev"

// patience bounds every wait for something that should happen at once.
const patience = time.Minute

func newWorld(t testing.TB) *lab.World {
	t.Helper()
	privileged.Require(t, privileged.Root)
	w, err := lab.New(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if left := lab.Leftovers(w.ID, os.TempDir()); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	return w
}

// bench is a world with a gatewayd and one bottle.
type bench struct {
	*lab.World
	t       testing.TB
	Gateway *lab.Gatewayd
	Bottle  *lab.Bottle
	limit   time.Duration // of what runs in the bottle
}

// newBench makes a world and a gatewayd for it; set is called before anything
// is started, to add sites, secrets and configuration.
func newBench(t testing.TB, config map[string]any) *bench {
	t.Helper()
	binary := gatewaydBinary(t)
	b := &bench{World: newWorld(t), t: t, limit: clientLimit}
	g, err := b.NewGatewayd(binary, config)
	if err != nil {
		t.Fatal(err)
	}
	b.Gateway = g
	t.Cleanup(func() {
		// Whatever a test is about, gatewayd must not have come to grief in it.
		for _, trouble := range []string{"DATA RACE", "panic", "fatal error"} {
			if strings.Contains(g.Log(), trouble) {
				t.Errorf("the log of gatewayd holds %q", trouble)
			}
		}
		if t.Failed() {
			t.Logf("gatewayd wrote:\n%s", tail(g.Log(), 60))
			audit, _ := os.ReadFile(g.AuditFile) // may not be there
			t.Logf("records:\n%s", tail(string(audit), 12))
		}
	})
	return b
}

// start writes the manifest, in which NETNS stands for the path of the
// bottle's namespace, starts gatewayd, and takes the guest's files.
func (b *bench) start(manifest string) {
	b.t.Helper()
	b.writeManifest(manifest)
	if err := b.Gateway.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.ready()
	b.takeGuestFiles()
}

func (b *bench) writeManifest(manifest string) {
	b.t.Helper()
	if err := b.Gateway.WriteManifest(bottleName, b.manifest(manifest)); err != nil {
		b.t.Fatal(err)
	}
}

// manifest completes the text of a manifest: "egress:" and what follows.
func (b *bench) manifest(rest string) string {
	return "bottle: " + bottleName + "\nlink: { netns: " + b.BottleNetns(bottleName) + " }\n" + rest
}

func (b *bench) ready() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := b.Gateway.WaitBottle(ctx, bottleName); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) takeGuestFiles() {
	b.t.Helper()
	files := b.GuestFiles(bottleName)
	if _, err := b.Gateway.Command(b.t.Context(), "guest", bottleName, "-o", files, "--at", files); err != nil {
		b.t.Fatal(err)
	}
	bottle, err := b.NewBottle(bottleName)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Bottle = bottle
}

// serve starts a site.
func (b *bench) serve(s *lab.Site) *lab.Site {
	b.t.Helper()
	if err := b.Internet.Serve(s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// result is what a program in the bottle left.
type result struct {
	Out, Err string
	Failed   error
}

func (r result) String() string { return fmt.Sprintf("%v\nout: %s\nerr: %s", r.Failed, r.Out, r.Err) }

// run runs a program in the bottle to its end.
func (b *bench) run(argv ...string) result {
	b.t.Helper()
	return b.runWith(nil, argv...)
}

// runWith is run with more environment.
func (b *bench) runWith(env []string, argv ...string) result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), b.limit)
	defer cancel()
	g := b.Bottle.Guest
	g.Env = append(append([]string{limitVariable + "=" + b.limit.String()}, g.Env...), env...)
	var out, errOut bytes.Buffer
	p, err := g.Start(ctx, nil, &out, &errOut, argv...)
	if err != nil {
		b.t.Fatal(err)
	}
	err = p.Wait()
	return result{out.String(), errOut.String(), err}
}

// client runs one of this binary's clients in the bottle.
func (b *bench) client(name string, args ...string) result {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return b.runWith([]string{clientVariable + "=" + name}, append([]string{self}, args...)...)
}

// get makes one request from the bottle with this binary's own client.
func (b *bench) get(args ...string) demo.Seen {
	b.t.Helper()
	r := b.client("get", args...)
	var seen demo.Seen
	if err := json.Unmarshal([]byte(r.Out), &seen); r.Failed != nil || err != nil {
		b.t.Fatalf("get %q: %v: %v", args, err, r)
	}
	return seen
}

// guestEnv is the value of a variable of the bottle.
func (b *bench) guestEnv(key string) string {
	for _, kv := range b.Bottle.Env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

// kill ends gatewayd as a crash would.
func (b *bench) kill() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := b.Gateway.Stop(ctx, syscall.SIGKILL); err != nil {
		b.t.Fatal(err)
	}
}

// eventually polls until f returns nil.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := lab.Poll(ctx, f); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// tail is the end of a text in lines.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func wantStatus(seen demo.Seen, status int) error {
	if seen.Status != status {
		return fmt.Errorf("status %d (%s), want %d: %s", seen.Status, seen.Error, status, seen.Body)
	}
	return nil
}

func readAndAppend(path string, more []byte) ([]byte, error) {
	text, err := os.ReadFile(path)
	return append(append(text, '\n'), more...), err
}
