package codex

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

const (
	canary   = "canary-77aa01"
	hostFile = "/home/op/.codex/auth.json"
)

var (
	now     = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	expires = now.Add(9 * 24 * time.Hour)
)

// testHost is a host with one file.
type testHost struct {
	content string // "" = no file
	err     error
	now     time.Time
}

func (h testHost) ReadFile(path string) ([]byte, error) {
	switch {
	case h.err != nil:
		return nil, h.err
	case h.content == "" || path != hostFile:
		return nil, fs.ErrNotExist
	}
	return []byte(h.content), nil
}
func (testHost) Getenv(string) string { return canary }
func (testHost) Home() string         { return "/home/op" }
func (h testHost) Now() time.Time {
	if h.now.IsZero() {
		return now
	}
	return h.now
}

// hostToken is a JWT as the sign-in host would issue it, full of what must not
// reach the guest.
func hostToken(t *testing.T, exp time.Time) string {
	t.Helper()
	claims := map[string]any{
		"exp": exp.Unix(), "email": canary + "@example.org", "sub": canary, "scp": []string{canary},
		"https://api.openai.com/auth": map[string]any{
			"chatgpt_account_id": "acc-42", "chatgpt_plan_type": "business", "chatgpt_user_id": canary,
			"organizations": []string{canary},
		},
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","kid":"`+canary+`","typ":"JWT"}`)) + "." + encode(body) + "." + encode([]byte(canary))
}

// signedIn is a host file in ChatGPT mode.
func signedIn(t *testing.T, exp time.Time) string {
	t.Helper()
	token := hostToken(t, exp)
	data, err := json.Marshal(map[string]any{
		"OPENAI_API_KEY": nil,
		"tokens":         map[string]any{"id_token": token, "access_token": token, "refresh_token": canary, "account_id": "acc-42"},
		"last_refresh":   "2026-11-20T08:09:10.123456789Z",
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func provision(t *testing.T, mode provider.Mode, h provider.Host, manifest ...routes.Route) provider.Contribution {
	t.Helper()
	c, err := Provider{}.Provision(provider.Request{Bottle: "dev", Mode: mode, Manifest: manifest, Host: h})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := json.Marshal(c); err != nil || strings.Contains(string(out), canary) {
		t.Fatalf("a secret in the contribution, or %v:\n%s", err, out)
	}
	return c
}

// guest returns the guest's auth.json, or nil.
func guest(t *testing.T, c provider.Contribution) *guestAuth {
	t.Helper()
	for _, f := range c.Files {
		if f.Path == authPath {
			if f.Mode != 0o600 {
				t.Errorf("auth.json has mode %04o", f.Mode)
			}
			var g guestAuth
			if err := json.Unmarshal([]byte(f.Content), &g); err != nil {
				t.Fatal(err)
			}
			return &g
		}
	}
	return nil
}

// claimsOf verifies a dummy with the bottle's key, as the gateway does, and
// returns its claims.
func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return provider.DummyKey("dev"), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithoutClaimsValidation())
	if err != nil {
		t.Fatalf("dummy does not verify: %v", err)
	}
	return claims
}

func hosts(rs []routes.Route) []string {
	var list []string
	for _, r := range rs {
		list = append(list, r.Host)
	}
	return list
}

func TestInject(t *testing.T) {
	c := provision(t, provider.Inject, testHost{content: signedIn(t, expires)})
	if got := hosts(c.Routes); !slices.Equal(got, []string{"chatgpt.com", "api.openai.com", "auth.openai.com"}) {
		t.Fatalf("hosts %v", got)
	}
	table, err := routes.NewTable(c.Routes)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		host, method, path string
		inject             bool
	}{
		{"chatgpt.com", "POST", "/backend-api/codex/responses", true},
		{"chatgpt.com", "GET", "/backend-api/codex/models", true},
		{"chatgpt.com", "GET", "/backend-api/wham/accounts/check", true},
		{"chatgpt.com", "GET", "/backend-api/wham/config/bundle", true},
		{"chatgpt.com", "POST", "/backend-api/ps/mcp", true},
		{"chatgpt.com", "GET", "/backend-api/conversations", false},
		{"chatgpt.com", "GET", "/backend-api/wham/tasks/list", false},
		{"chatgpt.com", "GET", "/codex/install.sh", false},
		{"chatgpt.com", "DELETE", "/backend-api/codex/models", false},
		{"api.openai.com", "POST", "/v1/responses", true},
		{"api.openai.com", "GET", "/v1/files", false},
		{"ab.chatgpt.com", "POST", "/otlp/v1/metrics", false},
		{"codex-cloud-backend.chatgpt.com", "GET", "/", false},
	} {
		v := table.Decide(routes.Request{Host: q.host, Port: 443, Protocol: routes.HTTPS, Method: q.method, Path: q.path})
		if v.Inject != q.inject || (v.Decision == routes.Intercept) != q.inject || v.Scan {
			t.Errorf("%s %s%s: %+v, want inject %v, never scanned", q.method, q.host, q.path, v, q.inject)
		}
	}
	v := table.Decide(routes.Request{Host: "auth.openai.com", Port: 443, Protocol: routes.HTTPS, Method: "POST", Path: "/oauth/token"})
	if v.Route == nil || v.Route.Answer != AnswerName || v.Inject || c.Answers[AnswerName] != "codex" {
		t.Errorf("token refresh: %+v, answers %v", v, c.Answers)
	}
	auth := c.Routes[0].Auth
	if got := auth.Secret.String(); got != "json:"+hostFile+"#/tokens/access_token" || auth.Secret.Remedy == "" {
		t.Errorf("secret %s, remedy %q", got, auth.Secret.Remedy)
	}
	if !slices.Equal(c.Watch, []string{hostFile}) || len(c.Notes) != 0 {
		t.Errorf("watch %v, notes %v", c.Watch, c.Notes)
	}
}

// TestInjectGuest: the guest's auth.json has the shape and the expiry of the
// host's, and nothing personal.
func TestInjectGuest(t *testing.T) {
	c := provision(t, provider.Inject, testHost{content: signedIn(t, expires)})
	g := guest(t, c)
	if g == nil || g.AuthMode != "chatgpt" || g.APIKey != nil || g.LastRefresh != "2026-11-20T08:09:10Z" {
		t.Fatalf("auth.json %+v", g)
	}
	if g.Tokens.AccountID != "acc-42" || !strings.HasPrefix(g.Tokens.RefreshToken, "rt_gatewayd-dummy-") {
		t.Errorf("tokens %+v", g.Tokens)
	}
	for name, token := range map[string]string{"access": g.Tokens.AccessToken, "id": g.Tokens.IDToken} {
		claims := claimsOf(t, token)
		if claims["exp"] != float64(expires.Unix()) {
			t.Errorf("%s: exp %v, host's is %d", name, claims["exp"], expires.Unix())
		}
		account, _ := claims["https://api.openai.com/auth"].(map[string]any)
		if account["chatgpt_account_id"] != "acc-42" || account["chatgpt_plan_type"] != "business" || account["chatgpt_user_id"] != dummyUser {
			t.Errorf("%s: account %v", name, account)
		}
	}
	if claimsOf(t, g.Tokens.IDToken)["email"] != dummyEmail {
		t.Error("the id token names nobody")
	}
	for _, token := range []string{g.Tokens.AccessToken, g.Tokens.IDToken, g.Tokens.RefreshToken, dummyAPIKey("dev")} {
		found := false
		for _, canary := range c.Canaries {
			found = found || strings.Contains(token, canary.Value)
		}
		if !found {
			t.Errorf("%.20s… holds no canary", token)
		}
	}
}

// TestHostStates: whatever the host's file holds, the routes stay as narrow,
// and a note says what is wrong.
func TestHostStates(t *testing.T) {
	narrow := provision(t, provider.Inject, testHost{content: signedIn(t, expires)}).Routes
	cases := []struct {
		name string
		host testHost
		note string
	}{
		{"missing", testHost{}, "there is no " + hostFile},
		{"unreadable", testHost{err: fs.ErrPermission}, "cannot be read"},
		{"empty", testHost{content: " "}, "not the JSON that was expected"},
		{"cut", testHost{content: `{"tokens":{"access_token":"` + canary}, "not the JSON that was expected"},
		{"wrong type", testHost{content: `{"tokens":"` + canary + `"}`}, "not the JSON that was expected"},
		{"too large", testHost{content: `{"a":"` + strings.Repeat("x", maxAuthBytes) + `"}`}, "more than 1048576 bytes"},
		{"no token", testHost{content: `{"tokens":{"refresh_token":"` + canary + `"}}`}, "no access token"},
		{"expired", testHost{content: signedIn(t, now.Add(-time.Hour))}, "expired at 2026-11-23T11:00:00Z"},
		{"personal access token", testHost{content: `{"personal_access_token":"` + canary + `"}`}, "a sign-in other than"},
		{"agent identity", testHost{content: `{"auth_mode":"agentIdentity","agent_identity":"` + canary + `"}`}, "a sign-in other than"},
		{"api key mode without one", testHost{content: `{"auth_mode":"apikey"}`}, "holds no OPENAI_API_KEY"},
		{"opaque token", testHost{content: `{"tokens":{"access_token":"` + canary + `","id_token":"a.b.c"}}`}, "names no account"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := provision(t, provider.Inject, c.host)
			if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], c.note) {
				t.Errorf("notes %q, want one with %q", got.Notes, c.note)
			}
			want, _ := json.Marshal(narrow)
			if have, _ := json.Marshal(got.Routes); string(have) != string(want) {
				t.Errorf("routes differ:\n%s\n%s", have, want)
			}
			g := guest(t, got)
			if g == nil || g.Tokens == nil || g.LastRefresh == "" {
				t.Fatalf("auth.json %+v", g)
			}
			claimsOf(t, g.Tokens.AccessToken)
		})
	}
}

func TestAPIKeyHost(t *testing.T) {
	c := provision(t, provider.Inject, testHost{content: `{"OPENAI_API_KEY":"` + canary + `"}`})
	g := guest(t, c)
	if g == nil || g.AuthMode != "apikey" || g.APIKey == nil || *g.APIKey != dummyAPIKey("dev") || g.Tokens != nil {
		t.Fatalf("auth.json %+v", g)
	}
	for _, r := range c.Routes {
		if r.Answer == "" && r.Auth.Secret.JSON.Pointer != "/OPENAI_API_KEY" {
			t.Errorf("%s: secret %s", r.Host, r.Auth.Secret)
		}
		if r.Host == modelHost && !slices.Equal(r.Paths, []string{"/backend-api/codex/models"}) {
			t.Errorf("an API key is sent to %v", r.Paths)
		}
		// The dummies of both modes hold, whichever the host is in.
		if r.Answer == "" && (!slices.Contains(r.Auth.Dummies.Values, *g.APIKey) || len(r.Auth.Dummies.JWTKey) != 32) {
			t.Errorf("%s: dummies %+v", r.Host, r.Auth.Dummies)
		}
	}
}

func TestSignIn(t *testing.T) {
	c := provision(t, provider.SignIn, testHost{err: errors.New("must not be read")})
	if got := hosts(c.Routes); !slices.Equal(got, []string{"chatgpt.com", "api.openai.com", "auth.openai.com", "ab.chatgpt.com"}) {
		t.Errorf("hosts %v", got)
	}
	for _, r := range c.Routes {
		if r.Decision() != routes.Passthrough {
			t.Errorf("%s: %s", r.Host, r.Decision())
		}
	}
	if guest(t, c) != nil || len(c.Watch) != 0 || len(c.Canaries) != 0 {
		t.Errorf("contribution %+v", c)
	}
}

func TestLend(t *testing.T) {
	c := provision(t, provider.Lend, testHost{content: signedIn(t, expires)})
	for _, r := range c.Routes {
		if r.Decision() != routes.Passthrough || r.Host == signInHost {
			t.Errorf("%s: %s", r.Host, r.Decision())
		}
	}
	g := guest(t, c)
	if g == nil || g.AuthMode != "chatgptAuthTokens" || g.Tokens.AccessToken != lentMark || g.Tokens.RefreshToken != "" {
		t.Fatalf("auth.json %+v", g)
	}
	fill := c.Files[len(c.Files)-1].Fill
	if len(fill) != 1 || fill[0].Mark != lentMark || fill[0].Secret.JSON.Pointer != tokenPointer {
		t.Errorf("fill %+v", fill)
	}
	if s := c.Secrets; len(s) != 2 || s[0].Secret.JSON.Pointer != "/tokens/refresh_token" || len(s[0].Homes) != 0 ||
		s[1].Secret.JSON.Pointer != "/tokens/access_token" || !slices.Equal(s[1].Homes, []string{modelHost, apiHost}) {
		t.Errorf("secrets %+v: the refresh token has no home, and the lent token the hosts that it opens", s)
	}
	if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "can read and use it") {
		t.Errorf("notes %q do not say what is traded", c.Notes)
	}
	key := provision(t, provider.Lend, testHost{content: `{"OPENAI_API_KEY":"` + canary + `"}`})
	if guest(t, key) != nil || len(key.Notes) != 1 || !strings.Contains(key.Notes[0], "does not expire") {
		t.Errorf("an API key is lent: %+v", key)
	}
}

// TestOwnCredential: a manifest with auth.role: provider gets no second
// credential, in any mode.
func TestOwnCredential(t *testing.T) {
	own := func(host string) routes.Route {
		return routes.Route{Host: host, Auth: &routes.Auth{
			Scheme: routes.Bearer, Header: "Authorization", Role: routes.RoleProvider,
			Secret:  routes.SecretRef{Env: "KEY"},
			Dummies: routes.Dummies{Values: []string{"gatewayd-dummy-of-the-route"}},
		}}
	}
	for _, mode := range []provider.Mode{provider.SignIn, provider.Inject, provider.Lend} {
		for _, host := range []string{apiHost, modelHost, "llm.corp.example"} {
			manifest := own(host)
			c := provision(t, mode, testHost{content: signedIn(t, expires)}, manifest)
			for _, r := range c.Routes {
				if r.Auth != nil || r.Answer == "" && r.Host != host {
					t.Errorf("%s, %s: the provider adds %+v", mode, host, r)
				}
			}
			merged, err := routes.Merge([]routes.Route{manifest}, c.Routes)
			if err != nil || merged[0].Auth.Secret.Env != "KEY" {
				t.Errorf("%s, %s: merged %+v, %v", mode, host, merged, err)
			}
			g := guest(t, c)
			switch host {
			case apiHost:
				if g == nil || g.APIKey == nil || *g.APIKey != "gatewayd-dummy-of-the-route" {
					t.Errorf("%s: auth.json %+v", mode, g)
				}
			case modelHost:
				if g == nil || g.Tokens.AccessToken != "gatewayd-dummy-of-the-route" || g.AuthMode != "chatgptAuthTokens" {
					t.Errorf("%s: auth.json %+v", mode, g)
				}
			default:
				if g != nil {
					t.Errorf("%s: auth.json %+v", mode, g)
				}
			}
		}
	}
}

func TestUnknownMode(t *testing.T) {
	_, err := Provider{}.Provision(provider.Request{Bottle: "dev", Mode: 9, Host: testHost{}})
	var mode *provider.ModeError
	if !errors.As(err, &mode) {
		t.Errorf("got %v", err)
	}
}
