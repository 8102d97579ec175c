package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/klauspost/compress/zstd"

	"gatewayd/lab"
)

const (
	accountID  = "0f5d9c1e-7b1a-4f6e-9a55-2f4f0e2f6a11"
	clientID   = "app_EMoamEEZ73f0CkXaXp7hrann"
	answerText = "hello from the stand-in"
)

// agentAPI stands in for the hosts that the Codex CLI talks to. It accepts
// one bearer at a time, as the real ones do.
type agentAPI struct {
	// Chat, Platform and Auth are the three hosts, Telemetry the fourth.
	Chat, Platform, Auth, Telemetry *lab.Site

	mu        sync.Mutex
	bearer    string // the access token that is valid now
	noSocket  bool   // answer 426 to the WebSocket
	unauthed  bool   // answer 401 to every model request
	echo      bool   // repeat the bearer in every answer, as a hostile server would
	sockets   int    // model requests over the WebSocket
	posts     int    // model requests over HTTPS
	problems  []string
	refreshes int
}

func newAgentAPI(t *testing.T, w *lab.World) *agentAPI {
	t.Helper()
	a := &agentAPI{}
	a.Chat = &lab.Site{Names: []string{"chatgpt.com"}, Handler: http.HandlerFunc(a.chat)}
	a.Platform = &lab.Site{Names: []string{"api.openai.com"}, Handler: http.HandlerFunc(a.chat)}
	a.Auth = &lab.Site{Names: []string{"auth.openai.com"}, Handler: http.HandlerFunc(a.auth)}
	a.Telemetry = &lab.Site{Names: []string{"ab.chatgpt.com"}, Handler: http.NotFoundHandler()}
	for _, s := range []*lab.Site{a.Chat, a.Platform, a.Auth, a.Telemetry} {
		if err := w.Internet.Serve(s); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// set changes the stand-in's behaviour under its lock.
func (a *agentAPI) set(f func(a *agentAPI)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

// counts returns the model requests by transport, and what was wrong with any
// request.
func (a *agentAPI) counts() (sockets, posts int, problems []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sockets, a.posts, append([]string{}, a.problems...)
}

func (a *agentAPI) problem(format string, args ...any) {
	a.set(func(a *agentAPI) { a.problems = append(a.problems, fmt.Sprintf(format, args...)) })
}

func (a *agentAPI) chat(w http.ResponseWriter, r *http.Request) {
	var want string
	var unauthed, echo bool
	a.set(func(a *agentAPI) { want, unauthed, echo = "Bearer "+a.bearer, a.unauthed, a.echo })
	got := r.Header.Values("Authorization")
	if echo {
		w.Header().Set("X-Echo", strings.Join(got, ", "))
	}
	if len(got) != 1 || got[0] != want || unauthed {
		if !unauthed {
			a.problem("%s %s: Authorization %q", r.Method, r.URL.Path, got)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"message":"unauthorized stand-in","code":"unauthorized"},"echo":%q}`, got)
		return
	}
	switch r.URL.Path {
	case "/backend-api/wham/accounts/check":
		writeJSON(w, map[string]any{"accounts": []any{map[string]any{
			"id": accountID, "workspace_backend_origin": "NO_CONSTRAINT", "account_routing_override": "NO_CONSTRAINT",
		}}})
	case "/backend-api/codex/models":
		writeJSON(w, map[string]any{"models": []any{}})
	case "/backend-api/wham/settings/user":
		writeJSON(w, map[string]any{})
	case "/backend-api/codex/responses", "/v1/responses":
		a.responses(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (a *agentAPI) responses(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		a.post(w, r)
		return
	}
	var no bool
	a.set(func(a *agentAPI) { no = a.noSocket })
	if no {
		w.WriteHeader(http.StatusUpgradeRequired)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		a.problem("accept WebSocket: %v", err)
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(16 << 20)
	for {
		_, msg, err := c.Read(r.Context())
		if err != nil {
			return // the client has gone
		}
		var create struct {
			Type     string `json:"type"`
			Generate *bool  `json:"generate"`
		}
		if err := json.Unmarshal(msg, &create); err != nil || create.Type != "response.create" {
			a.problem("WebSocket message %.100q: %v", msg, err)
		}
		generate := create.Generate == nil || *create.Generate
		if generate {
			a.set(func(a *agentAPI) { a.sockets++ })
		}
		for _, e := range a.events(r, generate) {
			if err := c.Write(r.Context(), websocket.MessageText, e); err != nil {
				return // the client has gone
			}
		}
	}
}

func (a *agentAPI) post(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err != nil || !json.Valid(body) {
		a.problem("POST %s: body of %d bytes: %v", r.URL.Path, len(body), err)
	}
	a.set(func(a *agentAPI) { a.posts++ })
	w.Header().Set("Content-Type", "text/event-stream")
	for _, e := range a.events(r, true) {
		var typed struct {
			Type string `json:"type"`
		}
		_ = json.Unmarshal(e, &typed) // made here
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", typed.Type, e)
		w.(http.Flusher).Flush()
	}
}

// readBody undoes the content coding that the CLI uses.
func readBody(r *http.Request) ([]byte, error) {
	var from io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "zstd" {
		d, err := zstd.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		from = d
	}
	return io.ReadAll(from)
}

// events is the least that makes a complete answer.
func (a *agentAPI) events(r *http.Request, generate bool) [][]byte {
	id := fmt.Sprintf("resp_%d", time.Now().UnixNano())
	text := answerText
	a.set(func(a *agentAPI) {
		if a.echo {
			text += " (you sent " + r.Header.Get("Authorization") + ")"
		}
	})
	item := map[string]any{
		"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
		"content": []any{map[string]any{"type": "output_text", "text": text, "annotations": []any{}}},
	}
	usage := map[string]any{
		"input_tokens": 1, "input_tokens_details": nil, "output_tokens": 1, "output_tokens_details": nil, "total_tokens": 2,
	}
	events := []any{map[string]any{"type": "response.created", "response": map[string]any{"id": id}}}
	if generate {
		events = append(events, map[string]any{"type": "response.output_item.done", "output_index": 0, "item": item})
	}
	events = append(events, map[string]any{"type": "response.completed", "response": map[string]any{"id": id, "usage": usage, "output": []any{}}})
	var out [][]byte
	for _, e := range events {
		b, _ := json.Marshal(e) // plain maps
		out = append(out, b)
	}
	return out
}

func (a *agentAPI) auth(w http.ResponseWriter, r *http.Request) {
	a.set(func(a *agentAPI) { a.refreshes++ })
	w.WriteHeader(http.StatusBadRequest) // nothing of this host may ever be asked
	_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone
}

// hostTokens are what the host's CLI would hold after a sign-in.
type hostTokens struct{ Access, ID, Refresh string }

// newHostTokens signs tokens of the real shape; the access token expires at exp.
func newHostTokens(t *testing.T, exp time.Time, serial string) hostTokens {
	t.Helper()
	key := []byte("the stand-in's own signing key " + serial)
	sign := func(claims jwt.MapClaims) string {
		tok := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
		tok.Header["kid"] = "19344e65-bbc9-44d1-a9d0-f957b079bd0e"
		s, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	who := map[string]any{
		"chatgpt_account_id": accountID, "chatgpt_plan_type": "pro", "chatgpt_user_id": "user-" + serial, "user_id": "user-" + serial,
	}
	common := jwt.MapClaims{
		"iss": "https://auth.openai.com", "iat": exp.Add(-240 * time.Hour).Unix(), "exp": exp.Unix(),
		"jti": "jti-" + serial, "https://api.openai.com/auth": who,
	}
	access, id := jwt.MapClaims{}, jwt.MapClaims{}
	for k, v := range common {
		access[k], id[k] = v, v
	}
	access["aud"], access["client_id"], access["scp"] = []string{"https://api.openai.com/v1"}, clientID, []string{"openid", "offline_access"}
	id["aud"], id["email"], id["email_verified"] = []string{clientID}, "host-user@example.org", true
	return hostTokens{Access: sign(access), ID: sign(id), Refresh: "rt_host_" + serial + "_Zm9vYmFyYmF6"}
}

// authJSON is the host's auth.json with these tokens.
func (h hostTokens) authJSON() []byte {
	b, _ := json.MarshalIndent(map[string]any{ // plain maps
		"auth_mode": "chatgpt", "OPENAI_API_KEY": nil,
		"tokens": map[string]any{
			"id_token": h.ID, "access_token": h.Access, "refresh_token": h.Refresh, "account_id": accountID,
		},
		"last_refresh": time.Now().UTC().Format(time.RFC3339Nano),
	}, "", "  ")
	return b
}

// holds says whether text contains any of the host's tokens, or the part of a
// JWT that cannot be in a dummy: its signature.
func (h hostTokens) holds(text []byte) bool {
	for _, s := range []string{h.Access, h.ID} {
		if bytes.Contains(text, []byte(s)) || bytes.Contains(text, []byte(s[strings.LastIndexByte(s, '.')+1:])) {
			return true
		}
	}
	return bytes.Contains(text, []byte(h.Refresh))
}

// TestStandInsServeTheRealClient runs the CLI against the stand-ins with no
// gateway between, so that a failure elsewhere is not theirs.
func TestStandInsServeTheRealClient(t *testing.T) {
	codex := requireCodex(t)
	w := newWorld(t)
	for _, socket := range []bool{true, false} {
		api := newAgentAPI(t, w)
		tokens := newHostTokens(t, time.Now().Add(time.Hour), "direct")
		api.set(func(a *agentAPI) { a.bearer, a.noSocket = tokens.Access, !socket })
		home := t.TempDir()
		writeFile(t, home+"/codex/auth.json", tokens.authJSON())
		writeFile(t, home+"/ca.pem", w.Internet.CA.PEM())
		g := lab.Guest{Netns: w.Gateway.Path, Resolver: lab.Resolver.Addr().String(), Dir: home, Env: []string{
			"HOME=" + home, "CODEX_HOME=" + home + "/codex", "CODEX_CA_CERTIFICATE=" + home + "/ca.pem", "PATH=/usr/bin:/bin",
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var out bytes.Buffer
		p, err := g.Start(ctx, nil, &out, &out, codex, "exec", "--skip-git-repo-check", "say hi")
		if err != nil {
			t.Fatal(err)
		}
		err = p.Wait()
		sockets, posts, problems := api.counts()
		if err != nil || !strings.Contains(out.String(), answerText) || len(problems) > 0 || (sockets > 0) != socket || (posts > 0) == socket {
			t.Errorf("socket %v: %v: %d sockets, %d posts, problems %q\n%s", socket, err, sockets, posts, problems, out.String())
		}
	}
}
