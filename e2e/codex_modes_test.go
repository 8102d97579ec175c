package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// codexModeBench is newCodexBench for another manifest and another auth.json
// on the host, which accepts bearer.
func codexModeBench(t *testing.T, forward, bearer string, hostAuth []byte) *codexBench {
	t.Helper()
	c := &codexBench{binary: requireCodex(t), bench: newBench(t, nil)}
	c.api = newAgentAPI(t, c.World)
	c.api.set(func(a *agentAPI) { a.bearer = bearer })
	writeFile(t, c.authFile(), hostAuth)
	c.start("agent_provider: { template: codex, forward_host_credentials: " + forward + " }\n")
	return c
}

// TestCodexLent: the guest holds the short-lived token itself, nothing is
// decrypted, and the refresh token stays at home.
func TestCodexLent(t *testing.T) {
	host := newHostTokens(t, time.Now().Add(time.Hour), "lent")
	c := codexModeBench(t, "lend", host.Access, host.authJSON())
	trustInternet(c.bench)
	r := c.exec()
	if _, _, problems := c.api.counts(); r.Failed != nil || !strings.Contains(r.Out, answerText) || len(problems) > 0 {
		t.Errorf("codex exec: %q: %v", problems, r)
	}
	got := c.guestAuth().Tokens
	if got.Access != host.Access {
		t.Error("the guest does not hold the lent token")
	}
	if strings.Contains(got.Refresh, host.Refresh) || got.ID == host.ID {
		t.Error("more than the access token was lent")
	}
	c.mustHaveLane("chatgpt.com", "fastpath")
}

// TestCodexSignedInByItself: the bottle has tokens of its own, the host's are
// not its business, and nothing is decrypted.
func TestCodexSignedInByItself(t *testing.T) {
	host := newHostTokens(t, time.Now().Add(time.Hour), "host")
	guest := newHostTokens(t, time.Now().Add(time.Hour), "guest")
	c := codexModeBench(t, "false", guest.Access, host.authJSON())
	trustInternet(c.bench)
	writeFile(t, filepath.Join(c.guestEnv("CODEX_HOME"), "auth.json"), guest.authJSON())
	r := c.exec()
	if _, _, problems := c.api.counts(); r.Failed != nil || !strings.Contains(r.Out, answerText) || len(problems) > 0 {
		t.Errorf("codex exec: %q: %v", problems, r)
	}
	c.mustNotHold(r, host)
	c.mustHaveLane("chatgpt.com", "fastpath")
}

// TestCodexAPIKey: a host that signs in with a key.
func TestCodexAPIKey(t *testing.T) {
	const key = "sk-host-0000-the-real-one"
	c := codexModeBench(t, "true", key, []byte(`{"auth_mode":"apikey","OPENAI_API_KEY":"`+key+`"}`))
	r := c.exec()
	if _, _, problems := c.api.counts(); r.Failed != nil || !strings.Contains(r.Out, answerText) || len(problems) > 0 {
		t.Errorf("codex exec: %q: %v", problems, r)
	}
	if n := len(c.api.Platform.Requests()); n == 0 {
		t.Error("the API host saw no request")
	}
	auth, err := os.ReadFile(filepath.Join(c.guestEnv("CODEX_HOME"), "auth.json"))
	if err != nil || strings.Contains(string(auth)+r.Out+r.Err, key) {
		t.Errorf("the bottle holds the host's key (%v)", err)
	}
}
