//go:build testvm

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatewayd/vmimage/initramfs"
)

// TestVMCodex runs the real CLI inside a VM through injection. The guest holds its binary of some 300 MB in memory, for a
// moment twice.
func TestVMCodex(t *testing.T) {
	binary := requireCodex(t)
	b := newVMBench(t)
	api := newAgentAPI(t, b.World)
	host := newHostTokens(t, time.Now().Add(24*time.Hour), "vm")
	if err := os.MkdirAll(filepath.Join(b.Gateway.Home(), ".codex"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(b.Gateway.Home(), ".codex/auth.json"), host.authJSON())
	api.set(func(a *agentAPI) { a.bearer = host.Access })
	b.boot("bottle: vm\nlink: { tap: "+vmTap+" }\n"+codexManifest, 1536, initramfs.Payload{Host: binary, At: "/bin/codex"})
	out, errOut, err := b.VM.Output(b.ctx, nil, "/bin/codex", "exec", "--skip-git-repo-check", "say hi")
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
