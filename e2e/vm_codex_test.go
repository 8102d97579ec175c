//go:build testvm

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatewayd/vmimage/initramfs"
)

// codexMemory holds the CLI's binary of some 300 MB, for a moment twice.
const codexMemory = 1536

// newVMCodex boots a VM that has the CLI, beside stand-ins which accept bearer. The host is signed in as host.
func newVMCodex(t *testing.T, forward, bearer string, host hostTokens, payload ...initramfs.Payload) (*vmBench, *agentAPI) {
	t.Helper()
	binary := requireCodex(t)
	b := newVMBench(t)
	api := newAgentAPI(t, b.World)
	if err := os.MkdirAll(filepath.Join(b.Gateway.Home(), ".codex"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(b.Gateway.Home(), ".codex/auth.json"), host.authJSON())
	api.set(func(a *agentAPI) { a.bearer = bearer })
	b.boot("bottle: vm\nlink: { tap: "+vmTap+" }\nagent_provider: { template: codex, forward_host_credentials: "+forward+" }\n",
		codexMemory, append(payload, initramfs.Payload{Host: binary, At: "/bin/codex"})...)
	return b, api
}

// exec has the CLI answer a question, and checks that it got the stand-in's answer and that nothing of the host came along.
func (b *vmBench) exec(t *testing.T, api *agentAPI, host hostTokens, env ...string) {
	t.Helper()
	out, errOut, err := b.VM.Output(b.ctx, env, "/bin/codex", "exec", "--skip-git-repo-check", "say hi")
	if err != nil || !strings.Contains(string(out), answerText) {
		t.Errorf("codex exec: %v\n%s\n%s", err, out, errOut)
	}
	sockets, posts, problems := api.counts()
	if sockets+posts == 0 || len(problems) > 0 {
		t.Errorf("%d model requests over WebSocket and %d over HTTPS; wrong: %q", sockets, posts, problems)
	}
	if host.holds(out) || host.holds(errOut) || host.holds([]byte(b.VM.Console())) {
		t.Error("the VM wrote a token of the host")
	}
	t.Logf("%d model requests over WebSocket, %d over HTTPS", sockets, posts)
}

// TestVMCodex runs the real CLI inside a VM through injection: it holds dummies, and the stand-ins see the host's token.
func TestVMCodex(t *testing.T) {
	host := newHostTokens(t, time.Now().Add(24*time.Hour), "vm")
	b, api := newVMCodex(t, "true", host.Access, host)
	b.exec(t, api, host)
	mustHaveLane(t, b.Gateway, "chatgpt.com", "intercept")
}

// TestVMCodexClock runs the real CLI through injection in a VM whose clock is a year back and then a day ahead, where its
// token has expired: it answers, and asks for a new token a few times at most, of which the real host hears nothing. A clock
// for which the bottle's certificates have expired is named in the record.
func TestVMCodexClock(t *testing.T) {
	const day = 24 * time.Hour
	host := newHostTokens(t, time.Now().Add(day), "vm")
	b, api := newVMCodex(t, "true", host.Access, host, initramfs.Payload{Host: staticClient(t), At: guestClient})
	refreshed := 0
	for _, c := range []struct {
		name  string
		shift time.Duration
	}{{"a year and a day back", -366 * day}, {"a day ahead", 367 * day}} {
		b.client("shift", c.shift.String())
		b.exec(t, api, host)
		before := refreshed
		refreshed = b.refreshes(t)
		t.Logf("%s: %d refreshes", c.name, refreshed-before)
		if refreshed-before > 4 {
			t.Errorf("%s: %d refreshes for one question", c.name, refreshed-before)
		}
	}
	if n := api.Auth.Connections(); n != 0 {
		t.Errorf("%d connections reached the sign-in host", n)
	}
	b.client("shift", (60 * day).String())
	ctx, stop := context.WithCancel(b.ctx)
	answered := make(chan error, 1)
	go func() { // it tries again and again
		_, _, err := b.VM.Output(ctx, nil, "/bin/codex", "exec", "--skip-git-repo-check", "say hi")
		answered <- err
	}()
	defer func() {
		stop()
		if <-answered == nil {
			t.Error("it was answered with the clock two months ahead")
		}
	}()
	eventually(t, func() error {
		for _, r := range readRecords(t, b.Gateway) {
			if r.Reason == "guest_clock" && strings.Contains(r.Remedy, "clock") {
				return nil
			}
		}
		return errors.New("no record says guest_clock")
	})
}

// refreshes counts how often the guest asked for a fresh token.
func (b *vmBench) refreshes(t *testing.T) (n int) {
	t.Helper()
	for _, r := range readRecords(t, b.Gateway) {
		if r.Type == "request" && r.Host == "auth.openai.com" && r.Path == "/oauth/token" {
			n++
		}
	}
	return n
}

// TestVMCodexFastPath runs the real CLI inside a VM that is signed in by itself: nothing is decrypted, and the kernel carries
// every connection. The stand-ins' authority is the world's own, as that of the real hosts is the public's.
func TestVMCodexFastPath(t *testing.T) {
	host, guest := newHostTokens(t, time.Now().Add(24*time.Hour), "host"), newHostTokens(t, time.Now().Add(24*time.Hour), "guest")
	auth := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(auth, guest.authJSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	b, api := newVMCodex(t, "false", guest.Access, host, initramfs.Payload{Host: auth, At: "/etc/gatewayd/codex/auth.json"})
	b.exec(t, api, host, "CODEX_CA_CERTIFICATE=/internet-ca.pem")
	mustHaveLane(t, b.Gateway, "chatgpt.com", "fastpath")
	for _, r := range readRecords(t, b.Gateway) {
		if r.Type == "request" || r.Lane != "fastpath" && r.Lane != "none" && r.Type == "flow" {
			t.Errorf("more than the fast path: %+v", r)
		}
	}
}
