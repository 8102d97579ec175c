package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"gatewayd/lab"
	"gatewayd/lab/demo"
	"gatewayd/lab/privileged"
)

// TestRecordsAndExplanations: a denial carries one id, which leads to its
// record and to its explanation.
func TestRecordsAndExplanations(t *testing.T) {
	b, api := clientsBench(t)
	b.start(clientsManifest)
	b.get("https://api.example.org/thing")
	seen := b.get("https://evil.example.org/")
	var p problem
	if err := json.Unmarshal([]byte(seen.Body), &p); err != nil || p.ID == "" {
		t.Fatalf("the denial has no id: %s: %v", seen.Body, err)
	}
	find := func(what string, want func(record) bool) {
		t.Helper()
		eventually(t, func() error {
			for _, r := range b.records() {
				if want(r) {
					return nil
				}
			}
			return fmt.Errorf("no record of %s", what)
		})
	}
	find("the injected request", func(r record) bool {
		return r.Type == "request" && r.Host == "api.example.org" && r.Path == "/thing" && r.Status == 200 && r.Injected && r.Decision == "intercept" && r.Bottle == bottleName
	})
	find("the denial", func(r record) bool { return r.ID == p.ID && r.Decision == "deny" && r.Host == "evil.example.org" })
	out, err := b.Gateway.Command(t.Context(), "explain", p.ID)
	var exit *exec.ExitError
	const denied = 5 // the exit code by which scripts tell a denial
	if !errors.As(err, &exit) || exit.ExitCode() != denied || !strings.Contains(string(out), "host: evil.example.org") {
		t.Errorf("explain %s: %s %v", p.ID, out, err)
	}
	for _, args := range [][]string{{"bottles"}, {"bottles", "-o", "json"}, {"flows"}, {"plan", bottleName}, {"check"}, {"log"}} {
		out, err := b.Gateway.Command(t.Context(), args...)
		if strings.Contains(string(out), apiToken) {
			t.Errorf("%q printed the secret", args)
		}
		if err != nil && args[0] != "check" { // a warning is not this test's business
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
	if api.Connections() == 0 {
		t.Error("the host saw nothing")
	}
}

// TestTripAndRelease: a bottle that keeps trying is cut off, `gatewayd explain` says for what, and only the operator lets it go on, a
// restart does not.
func TestTripAndRelease(t *testing.T) {
	b, _ := clientsBench(t)
	b.serve(&lab.Site{Names: []string{"packages.example.org"}})
	b.start(clientsManifest + "pipelock: { trip: 2 }\n")
	token := "gl" + "pat-1x2Y3z4W5v6U7t8S9r0Q"
	ask := func(status int, reason string, args ...string) (id string) {
		t.Helper()
		seen := b.get(append(args, "https://packages.example.org/")...)
		var p problem
		if err := json.Unmarshal([]byte(seen.Body), &p); status != 200 && (err != nil || p.Reason != reason) || seen.Status != status {
			t.Fatalf("want %d %s: %+v", status, reason, seen)
		}
		return p.ID
	}
	command := func(fails bool, args ...string) string {
		t.Helper()
		out, err := b.Gateway.Command(t.Context(), args...)
		if (err != nil) != fails {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		return string(out)
	}
	ask(200, "")
	command(true, "release", bottleName)
	for range 2 {
		id := ask(403, "leak", "-header", "X-Note: "+token)
		if out := command(true, "explain", id); !strings.Contains(out, "gitlab-pat in header X-Note: ") || strings.Contains(out, token) {
			t.Errorf("explain %s: %s", id, out)
		}
	}
	ask(403, "tripped")
	if out := command(false, "bottles"); !strings.Contains(out, "cut off") {
		t.Errorf("bottles: %s", out)
	}
	if err := errors.Join(b.Gateway.Stop(t.Context(), syscall.SIGTERM), b.Gateway.Start()); err != nil {
		t.Fatal(err)
	}
	b.ready()
	ask(403, "tripped")
	command(false, "release", bottleName)
	ask(200, "")
}

// mustNotLeak looks for secrets in all that gatewayd has written, but for the
// files that the operator put them into.
func (b *bench) mustNotLeak(secrets ...string) {
	b.t.Helper()
	err := filepath.WalkDir(b.Gateway.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, b.Gateway.Home()) {
			return err
		}
		data, err := os.ReadFile(path)
		for _, s := range secrets {
			if strings.Contains(string(data), s) {
				b.t.Errorf("gatewayd wrote a secret into %s", path)
			}
		}
		return err
	})
	if err != nil {
		b.t.Error(err)
	}
}

// TestSecretsStayOutOfWhatIsWritten makes every kind of trouble and then looks
// through all files.
func TestSecretsStayOutOfWhatIsWritten(t *testing.T) {
	const metrics = "127.0.0.1:19090" // the loopback of the world: nothing else is there
	b := newBench(t, map[string]any{"metrics": map[string]any{"listen": metrics}})
	b.Gateway.Env = append(b.Gateway.Env, "API_TOKEN="+apiToken)
	api := b.serve(&lab.Site{Names: []string{"api.example.org"}})
	b.start(clientsManifest)
	b.get("https://api.example.org/thing")
	b.get("-header", "X-Odd: "+apiToken, "https://api.example.org/thing?token="+apiToken)
	b.get("https://packages.example.org/" + apiToken)
	api.CloseConnections()
	if err := api.Close(); err != nil {
		t.Fatal(err)
	}
	b.get("https://api.example.org/after")
	var scraped []byte
	err := b.World.Gateway.Do(func() error {
		c, err := net.Dial("tcp4", metrics)
		if err != nil {
			return err
		}
		tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }, DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: tr}).Get("http://" + metrics + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		scraped, err = io.ReadAll(resp.Body)
		return err
	})
	if err != nil || !bytes.Contains(scraped, []byte("gatewayd_")) {
		t.Errorf("metrics: %v: %.200s", err, scraped)
	}
	if bytes.Contains(scraped, []byte(apiToken)) {
		t.Error("the metrics hold the secret")
	}
	b.mustNotLeak(apiToken)
}

// TestUninstall removes what a stopped gatewayd has left in force.
func TestUninstall(t *testing.T) {
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.start(oneRoute)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.Gateway.Stop(ctx, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if n, err := b.tables(); err != nil || n == 0 {
		t.Errorf("%d nft tables after a stop (%v): a stop removes nothing", n, err)
	}
	b.links()
	if out, err := b.Gateway.Command(t.Context(), "uninstall"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n, err := b.tables(); err != nil || n != 0 {
		t.Errorf("%d nft tables after uninstall (%v)", n, err)
	}
	if entries, err := os.ReadDir(b.BPFDir()); err == nil && len(entries) > 0 {
		t.Errorf("pinned after uninstall: %v", entries)
	}
	err := b.World.Gateway.Do(func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_V4)
		for _, r := range rules {
			if r.Priority == 2051 {
				t.Errorf("rule after uninstall: %v", r)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestTwoInstances: two gatewayds on one machine know nothing of each other.
func TestTwoInstances(t *testing.T) {
	var both [2]*bench
	for i := range both {
		b := newBench(t, nil)
		b.serve(&lab.Site{Names: []string{"files.example.org"}})
		b.start(oneRoute)
		both[i] = b
	}
	both[0].kill()
	if err := both[1].allows("https://files.example.org/"); err != nil {
		t.Errorf("with the other one killed: %v", err)
	}
}

// TestDemo runs the demo as `make demo` does.
func TestDemo(t *testing.T) {
	binary := gatewaydBinary(t)
	var out strings.Builder
	if err := demo.Run(t.Context(), demo.Options{Gatewayd: binary, Out: &out}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	if err := demo.Run(t.Context(), demo.Options{Gatewayd: binary, Out: &out, JSON: true}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	var report struct {
		OK       bool
		Outcomes []demo.Outcome
	}
	if err := json.Unmarshal([]byte(out.String()), &report); err != nil || !report.OK || len(report.Outcomes) != 6 {
		t.Errorf("the report: %v: %s", err, out.String())
	}
}

// TestClaudeTemplate: the other provider's routes, with each of the host's
// credentials that it knows, and an ordinary client in the agent's place.
func TestClaudeTemplate(t *testing.T) {
	for _, c := range []struct{ variable, header, prefix string }{
		{"ANTHROPIC_API_KEY", "X-Api-Key", ""},
		{"CLAUDE_CODE_OAUTH_TOKEN", "Authorization", "Bearer "},
	} {
		b := newBench(t, nil)
		b.Gateway.Env = append(b.Gateway.Env, c.variable+"="+apiToken)
		api := b.serve(&lab.Site{Names: []string{"api.anthropic.com"}})
		b.start("agent_provider: { template: claude, forward_host_credentials: true }\n")
		dummy := b.guestEnv(c.variable)
		if dummy == "" || strings.Contains(strings.Join(b.Bottle.Env, " "), apiToken) {
			t.Fatalf("%s: the guest's environment is %q", c.variable, b.Bottle.Env)
		}
		seen := b.get("-header", c.header+": "+c.prefix+dummy, "https://api.anthropic.com/v1/models")
		if seen.Status != 200 || strings.Contains(seen.Body, apiToken) {
			t.Errorf("%s: %+v", c.variable, seen)
		}
		if got := api.Requests(); len(got) != 1 || got[0].Header.Get(c.header) != c.prefix+apiToken {
			t.Errorf("%s: the server saw %+v", c.variable, got)
		}
		if seen := b.get("-header", c.header+": "+c.prefix+"sk-ant-someone-elses", "https://api.anthropic.com/v1/models"); seen.Status != 403 {
			t.Errorf("%s: somebody else's key: %+v", c.variable, seen)
		}
	}
}

// TestDemoThatCannotWork: the reason is told, and nothing is left behind.
func TestDemoThatCannotWork(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("sh"))
	broken := filepath.Join(t.TempDir(), "gatewayd")
	writeFile(t, broken, []byte("#!/bin/sh\necho the reason >&2\nexit 3\n"))
	if err := os.Chmod(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	worlds := func() []string {
		t.Helper()
		mine := fmt.Sprintf("gwl%dx", os.Getpid())
		found, err := filepath.Glob("/run/netns/" + mine + "*")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	before := worlds()
	var out strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := demo.Run(ctx, demo.Options{Gatewayd: broken, Out: &out})
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("%v, want the reason", err)
	}
	if after := worlds(); len(after) != len(before) {
		t.Errorf("left behind: %q", after)
	}
}
