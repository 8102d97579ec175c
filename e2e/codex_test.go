package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatewayd/lab"
)

const codexManifest = `
agent_provider:
  template: codex
  forward_host_credentials: true
`

// codexBench is a bench whose bottle holds the real Codex CLI and dummies, and
// whose host is signed in.
type codexBench struct {
	*bench
	api    *agentAPI
	binary string
	host   hostTokens
}

// newCodexBench signs the host in with a token that expires at exp.
func newCodexBench(t *testing.T, exp time.Time) *codexBench {
	t.Helper()
	c := &codexBench{binary: requireCodex(t), bench: newBench(t, nil)}
	c.api = newAgentAPI(t, c.World)
	c.signIn(newHostTokens(t, exp, "first"))
	c.start(codexManifest)
	return c
}

// authFile is where the host's CLI keeps its tokens.
func (c *codexBench) authFile() string { return filepath.Join(c.Gateway.Home(), ".codex/auth.json") }

// signIn gives the host new tokens, by a rename as the CLI's own writer or any
// editor would, and makes the stand-in accept them alone.
func (c *codexBench) signIn(h hostTokens) {
	c.t.Helper()
	writeFile(c.t, c.authFile()+".new", h.authJSON())
	if err := os.Rename(c.authFile()+".new", c.authFile()); err != nil {
		c.t.Fatal(err)
	}
	c.host = h
	c.api.set(func(a *agentAPI) { a.bearer = h.Access })
}

// exec runs `codex exec` in the bottle with nothing but the guest's files.
func (c *codexBench) exec() result {
	c.t.Helper()
	return c.run(c.binary, "exec", "--skip-git-repo-check", "say hi")
}

// mustAnswer runs the CLI and checks that it got the stand-in's answer with
// the host's credential, over the transport that is expected.
func (c *codexBench) mustAnswer(overSocket bool) result {
	c.t.Helper()
	sockets, posts, _ := c.api.counts()
	r := c.exec()
	if r.Failed != nil || !strings.Contains(r.Out, answerText) {
		c.t.Errorf("codex exec: %v", r)
	}
	nowSockets, nowPosts, problems := c.api.counts()
	if len(problems) > 0 {
		c.t.Errorf("the stand-ins saw something wrong: %q", problems)
	}
	if (nowSockets > sockets) != overSocket || (nowPosts > posts) == overSocket {
		c.t.Errorf("%d model requests over WebSocket and %d over HTTPS, want WebSocket: %v", nowSockets-sockets, nowPosts-posts, overSocket)
	}
	c.mustNotHold(r, c.host)
	return r
}

// mustNotHold looks for the host's tokens in all that the bottle has: files,
// home, environment, and what its programs wrote.
func (c *codexBench) mustNotHold(r result, h hostTokens) {
	c.t.Helper()
	for _, root := range []string{c.Bottle.Files, c.Bottle.Home} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if h.holds(data) {
				c.t.Errorf("the bottle's file %s holds a token of the host", path)
			}
			return err
		})
		if err != nil {
			c.t.Error(err)
		}
	}
	if h.holds([]byte(strings.Join(c.Bottle.Env, "\n"))) {
		c.t.Error("the bottle's environment holds a token of the host")
	}
	if h.holds([]byte(r.Out + r.Err)) {
		c.t.Error("the CLI's output holds a token of the host")
	}
}

// guestAuth is what the bottle's auth.json says.
type guestAuth struct {
	Tokens struct {
		Access  string `json:"access_token"`
		ID      string `json:"id_token"`
		Refresh string `json:"refresh_token"`
		Account string `json:"account_id"`
	} `json:"tokens"`
	LastRefresh string `json:"last_refresh"`
}

func (c *codexBench) guestAuth() guestAuth {
	c.t.Helper()
	home := c.guestEnv("CODEX_HOME")
	data, err := os.ReadFile(filepath.Join(home, "auth.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	var a guestAuth
	if err := json.Unmarshal(data, &a); err != nil {
		c.t.Fatal(err)
	}
	return a
}

func expiry(t *testing.T, token string) time.Time {
	t.Helper()
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil || claims.ExpiresAt == nil {
		t.Fatalf("read expiry of a token: %v", err)
	}
	return claims.ExpiresAt.Time
}

func TestCodexAnswersOverWebSocket(t *testing.T) {
	c := newCodexBench(t, time.Now().Add(24*time.Hour))
	capture, err := lab.NewCapture(c.World.Gateway, c.hostLink().Attrs().Name)
	if err != nil {
		t.Fatal(err)
	}
	c.mustAnswer(true)
	frames, err := capture.Stop()
	if err != nil || len(frames) < 50_000 || c.host.holds(frames) {
		t.Errorf("on the bottle's link: %d bytes, with a token of the host in them: %v, %v", len(frames), c.host.holds(frames), err)
	}
	if n := c.api.Auth.Connections(); n != 0 {
		t.Errorf("%d connections reached the sign-in host", n)
	}
	if got := c.guestAuth().Tokens.Account; got != accountID {
		t.Errorf("the guest's account id is %q, want the host's own, which is no secret", got)
	}
}

func TestCodexAnswersOverHTTPS(t *testing.T) {
	c := newCodexBench(t, time.Now().Add(24*time.Hour))
	c.api.set(func(a *agentAPI) { a.noSocket = true })
	c.mustAnswer(false)
	for _, r := range c.api.Chat.Requests() {
		if r.Method == "POST" && strings.HasSuffix(r.URI, "/codex/responses") {
			if r.Header.Get("Content-Encoding") != "zstd" || r.Header.Get("ChatGPT-Account-ID") != accountID {
				t.Errorf("the model request changed on its way: %v", r.Header)
			}
			if r.Proto != "HTTP/2.0" {
				t.Errorf("the model request came as %s; the CLI spoke HTTP/2", r.Proto)
			}
		}
	}
}

// TestCodexTokenIsMasked lets the server repeat the token in headers, SSE
// events and WebSocket messages.
func TestCodexTokenIsMasked(t *testing.T) {
	c := newCodexBench(t, time.Now().Add(24*time.Hour))
	for _, overSocket := range []bool{true, false} {
		c.api.set(func(a *agentAPI) { a.echo, a.noSocket = true, !overSocket })
		r := c.mustAnswer(overSocket)
		if !strings.Contains(r.Out, "you sent Bearer ****") {
			t.Errorf("WebSocket %v: want the repeated token masked: %v", overSocket, r)
		}
	}
	seen := c.get("-header", "Authorization: Bearer "+c.guestAuth().Tokens.Access, "https://chatgpt.com/backend-api/codex/models")
	if echo := seen.Header.Get("X-Echo"); seen.Status != 200 || !strings.HasPrefix(echo, "Bearer ****") || strings.Contains(echo, c.host.Access) {
		t.Errorf("want the repeated token masked in the header: %+v", seen)
	}
}

func TestCodexRefreshIsAnsweredByTheGateway(t *testing.T) {
	exp := time.Now().Add(4 * time.Minute) // the CLI refreshes from 5 minutes on
	c := newCodexBench(t, exp)
	file := filepath.Join(c.guestEnv("CODEX_HOME"), "auth.json")
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := c.guestAuth()
	if got := expiry(t, before.Tokens.Access); got.Unix() != exp.Unix() {
		t.Errorf("the dummy expires at %v, the host's token at %v", got, exp)
	}
	c.mustAnswer(true)
	after := c.guestAuth()
	if after.LastRefresh == before.LastRefresh {
		t.Error("the CLI has not refreshed, so nothing was shown")
	}
	// With the same expiry the CLI would refresh before every request.
	if got := expiry(t, after.Tokens.Access); got.Before(time.Now().Add(5 * time.Minute)) {
		t.Errorf("the fresh dummy expires at %v, which makes the CLI refresh again at once", got)
	}
	// The host signs in again; the next refresh brings the new expiry.
	writeFile(t, file, first)
	later := time.Now().Add(48 * time.Hour)
	old := c.host
	c.signIn(newHostTokens(t, later, "second"))
	r := c.mustAnswer(true)
	c.mustNotHold(r, old)
	if got := expiry(t, c.guestAuth().Tokens.Access); got.Unix() != later.Unix() {
		t.Errorf("after the refresh the dummy expires at %v, the host's token at %v", got, later)
	}
	if n := c.api.Auth.Connections(); n != 0 {
		t.Errorf("%d connections reached the sign-in host", n)
	}
}

func TestCodexHostTokenRotates(t *testing.T) {
	c := newCodexBench(t, time.Now().Add(24*time.Hour))
	c.mustAnswer(true)
	old, dummy := c.host, c.guestAuth().Tokens.Access
	c.signIn(newHostTokens(t, time.Now().Add(72*time.Hour), "second"))
	seen := c.get("-header", "Authorization: Bearer "+dummy, "https://chatgpt.com/backend-api/codex/models")
	if seen.Status != 200 {
		t.Errorf("the next request after the rotation: %+v", seen)
	}
	r := c.mustAnswer(true)
	c.mustNotHold(r, old)
	if got := c.guestAuth().Tokens.Access; got != dummy {
		t.Error("the bottle's dummy has changed; the old one was to stay valid")
	}
}

func TestCodexUnauthorizedUpstream(t *testing.T) {
	c := newCodexBench(t, time.Now().Add(24*time.Hour))
	c.api.set(func(a *agentAPI) { a.unauthed = true })
	r := c.exec()
	if r.Failed == nil || !strings.Contains(r.Out+r.Err, "401") {
		t.Errorf("codex exec, want a failure that names the 401: %v", r)
	}
	c.mustNotHold(r, c.host)
	if n := c.api.Auth.Connections(); n != 0 {
		t.Errorf("%d connections reached the sign-in host", n)
	}
	if strings.Contains(r.Out+r.Err, "sign in again") {
		t.Errorf("the CLI asks the guest to sign in: %v", r)
	}
	c.api.set(func(a *agentAPI) { a.unauthed = false })
	c.mustAnswer(true)
}

func TestCodexHostCredentialGone(t *testing.T) {
	c := newCodexBench(t, time.Now().Add(24*time.Hour))
	dummy := "Authorization: Bearer " + c.guestAuth().Tokens.Access
	const url = "https://chatgpt.com/backend-api/codex/models"
	refused := func(what string) {
		t.Helper()
		eventually(t, func() error { return wantStatus(c.get("-header", dummy, url), 503) })
		seen := c.get("-header", dummy, url)
		if !strings.Contains(seen.Body, "codex login") {
			t.Errorf("%s: the answer does not name the remedy: %s", what, seen.Body)
		}
		if !strings.Contains(c.Gateway.Log(), "codex login") {
			t.Errorf("%s: the log does not say what to run on the host", what)
		}
	}
	if err := os.Remove(c.authFile()); err != nil {
		t.Fatal(err)
	}
	refused("missing")
	c.signIn(newHostTokens(t, time.Now().Add(-time.Minute), "lapsed"))
	refused("expired")
	before := len(c.api.Chat.Requests())
	if c.get("-header", dummy, url); len(c.api.Chat.Requests()) != before {
		t.Error("a request without a valid credential reached the server")
	}
	c.signIn(newHostTokens(t, time.Now().Add(time.Hour), "back"))
	eventually(t, func() error { return wantStatus(c.get("-header", dummy, url), 200) })
	c.mustAnswer(true)
}

// TestCodexRefusals: what the credential must not be used for.
func TestCodexRefusals(t *testing.T) {
	c := newCodexBench(t, time.Now().Add(24*time.Hour))
	dummy := "Authorization: Bearer " + c.guestAuth().Tokens.Access
	for _, q := range []struct {
		name, reason string
		args         []string
	}{
		{"somebody else's key", "foreign_credential", []string{"-header", "Authorization: Bearer sk-someone-elses", "https://chatgpt.com/backend-api/codex/models"}},
		{"the user's conversations", "path", []string{"-header", dummy, "https://chatgpt.com/backend-api/conversations"}},
		{"a path that hides where it goes", "path_not_canonical", []string{"-header", dummy, "https://chatgpt.com/backend-api/codex/..%2fconversations"}},
	} {
		before := len(c.api.Chat.Requests())
		seen := c.get(q.args...)
		if seen.Status != 403 || !strings.Contains(seen.Body, q.reason) {
			t.Errorf("%s: %d %s, want 403 %s", q.name, seen.Status, seen.Body, q.reason)
		}
		if len(c.api.Chat.Requests()) != before {
			t.Errorf("%s: reached the server", q.name)
		}
	}
	// The token of the bottle towards a host that is not the credential's own.
	seen := c.get("-header", dummy, "https://ab.chatgpt.com/otlp/v1/metrics")
	if seen.Status == 200 || c.api.Telemetry.Connections() != 0 {
		t.Errorf("the dummy went to another host: %+v", seen)
	}
}
