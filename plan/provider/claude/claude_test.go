package claude

import (
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

const canary = "canary-51c0de"

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

type testHost struct {
	env   map[string]string
	files map[string]string
	home  string
}

func (h testHost) ReadFile(path string) ([]byte, error) {
	if s, ok := h.files[path]; ok {
		return []byte(s), nil
	}
	return nil, fs.ErrNotExist
}
func (h testHost) Getenv(name string) string { return h.env[name] }
func (h testHost) Home() string              { return h.home }
func (h testHost) Now() time.Time            { return now }

const defaultFile = "/home/op/.claude/.credentials.json"

func credentialsJSON(expires time.Time) string {
	data, err := json.Marshal(map[string]any{"claudeAiOauth": map[string]any{
		"accessToken": canary, "refreshToken": canary, "expiresAt": expires.UnixMilli(), "scopes": []string{"user:inference"},
	}})
	if err != nil {
		panic(err)
	}
	return string(data)
}

func provision(t *testing.T, q provider.Request) provider.Contribution {
	t.Helper()
	q.Bottle = "dev"
	c, err := Provider{}.Provision(q)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := json.Marshal(c); err != nil || strings.Contains(string(out), canary) {
		t.Fatalf("a secret in the contribution, or %v:\n%s", err, out)
	}
	return c
}

func env(c provider.Contribution, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// TestInject: the first source that the host has decides the header and the
// guest's variable; what is wrong with it becomes a note.
func TestInject(t *testing.T) {
	files := map[string]string{defaultFile: credentialsJSON(now.Add(time.Hour)), "/other.json": credentialsJSON(now.Add(time.Hour))}
	both := map[string]string{keyEnv: canary, oauthEnv: canary}
	cases := []struct {
		name     string
		host     testHost
		file     string
		secret   string
		header   string
		variable string
		note     string
	}{
		{"api key before all", testHost{env: both, files: files, home: "/home/op"}, "", "env:" + keyEnv, "X-Api-Key", keyEnv, ""},
		{"token before file", testHost{env: map[string]string{oauthEnv: canary}, files: files, home: "/home/op"}, "", "env:" + oauthEnv, "Authorization", oauthEnv, ""},
		{"file", testHost{files: files, home: "/home/op"}, "", "json:" + defaultFile + "#" + tokenPath, "Authorization", oauthEnv, ""},
		{"named file before all", testHost{env: both, files: files, home: "/home/op"}, "/other.json", "json:/other.json#" + tokenPath, "Authorization", oauthEnv, ""},
		{"no file", testHost{home: "/home/op"}, "", "json:" + defaultFile + "#" + tokenPath, "Authorization", oauthEnv, "cannot be read"},
		{"no home", testHost{}, "", "env:" + keyEnv, "X-Api-Key", keyEnv, "the host has no credential"},
		{"malformed", testHost{files: map[string]string{"/other.json": `{"claudeAiOauth":"` + canary}}, "/other.json", "json:/other.json#" + tokenPath, "Authorization", oauthEnv, "holds no access token"},
		{"expired", testHost{files: map[string]string{"/other.json": credentialsJSON(now)}}, "/other.json", "json:/other.json#" + tokenPath, "Authorization", oauthEnv, "has expired"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := provision(t, provider.Request{Mode: provider.Inject, CredentialsFile: c.file, Host: c.host})
			if len(got.Routes) != 1 || got.Routes[0].Host != apiHost || got.Routes[0].Auth == nil || len(got.Routes[0].Paths) == 0 {
				t.Fatalf("routes %+v", got.Routes)
			}
			auth := got.Routes[0].Auth
			if auth.Secret.String() != c.secret || auth.Header != c.header || auth.Secret.Remedy == "" {
				t.Errorf("secret %s in %s, remedy %q", auth.Secret, auth.Header, auth.Secret.Remedy)
			}
			dummy := env(got, c.variable)
			if !slices.Equal(auth.Dummies.Values, []string{dummy}) || !strings.Contains(dummy, provider.DummyMark) {
				t.Errorf("%s=%q, dummies %v", c.variable, dummy, auth.Dummies.Values)
			}
			if len(got.Canaries) != 1 || got.Canaries[0].Value != dummy {
				t.Errorf("canaries %+v", got.Canaries)
			}
			if c.note == "" && len(got.Notes) != 0 || c.note != "" && (len(got.Notes) != 1 || !strings.Contains(got.Notes[0], c.note)) {
				t.Errorf("notes %q, want %q", got.Notes, c.note)
			}
			if watch := len(got.Watch) == 1; watch != strings.HasPrefix(c.secret, "json:") {
				t.Errorf("watch %v", got.Watch)
			}
			if _, err := routes.NewTable(got.Routes); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInjectPaths: what the client asks for is open, the rest of the host is not.
func TestInjectPaths(t *testing.T) {
	c := provision(t, provider.Request{Mode: provider.Inject, Host: testHost{env: map[string]string{keyEnv: canary}}})
	table, err := routes.NewTable(c.Routes)
	if err != nil {
		t.Fatal(err)
	}
	for path, open := range map[string]bool{
		"/": true, "/v1/messages": true, "/v1/messages/count_tokens": true, "/api/claude_code/policy_limits": true,
		"/api/claude_code/settings": true, "/mcp-registry/v0/servers": true, "/api/event_logging/v2/batch": true,
		"/v1/files": false, "/v1/organizations/users": false, "/api/organizations": false, "/v1/messages/../files": false,
	} {
		v := table.Decide(routes.Request{Host: apiHost, Port: 443, Protocol: routes.HTTPS, Method: "GET", Path: path})
		if v.Inject != open || (v.Decision == routes.Intercept) != open {
			t.Errorf("%s: %+v, want open %v", path, v, open)
		}
	}
}

func TestSignIn(t *testing.T) {
	c := provision(t, provider.Request{Mode: provider.SignIn, Host: testHost{env: map[string]string{keyEnv: canary}}})
	for _, r := range c.Routes {
		if r.Decision() != routes.Passthrough {
			t.Errorf("%s: %s", r.Host, r.Decision())
		}
	}
	if len(c.Routes) != 4 || env(c, keyEnv) != "" || len(c.Canaries) != 0 {
		t.Errorf("contribution %+v", c)
	}
}

func TestLendIsRefused(t *testing.T) {
	_, err := Provider{}.Provision(provider.Request{Bottle: "dev", Mode: provider.Lend, Host: testHost{}})
	var mode *provider.ModeError
	if !errors.As(err, &mode) || !strings.Contains(err.Error(), "write true or false") {
		t.Errorf("got %v", err)
	}
}

// TestOwnCredential: a manifest that brings the credential gets no second one.
func TestOwnCredential(t *testing.T) {
	own := routes.Route{Host: apiHost, Auth: &routes.Auth{Scheme: routes.HeaderScheme, Header: "X-Api-Key", Role: routes.RoleProvider, Secret: routes.SecretRef{Env: "K"}, Dummies: routes.Dummies{Values: []string{"d"}}}}
	for _, mode := range []provider.Mode{provider.SignIn, provider.Inject} {
		c := provision(t, provider.Request{Mode: mode, Host: testHost{env: map[string]string{keyEnv: canary}}, Manifest: []routes.Route{own}})
		merged, err := routes.Merge([]routes.Route{own}, c.Routes)
		if err != nil || len(merged) != 1 || merged[0].Auth.Secret.Env != "K" || len(merged[0].Paths) == 0 {
			t.Errorf("%s: merged %+v, %v", mode, merged, err)
		}
		if env(c, keyEnv) != "" {
			t.Errorf("%s: the provider sets %s", mode, keyEnv)
		}
	}
}

// TestRefreshTokenIsLookedFor: the token that the host alone uses has no home, and is named where there is one.
func TestRefreshTokenIsLookedFor(t *testing.T) {
	for content, want := range map[string]string{
		credentialsJSON(now.Add(time.Hour)):              "json:" + defaultFile + "#/claudeAiOauth/refreshToken",
		`{"claudeAiOauth":{"accessToken":"some-token"}}`: "",
	} {
		c := provision(t, provider.Request{Bottle: "dev", Mode: provider.Inject, Host: testHost{files: map[string]string{defaultFile: content}, home: "/home/op"}})
		got := ""
		for _, s := range c.Secrets {
			if got += s.Secret.String(); len(s.Homes) != 0 {
				t.Errorf("%s may go to %v", s.Secret, s.Homes)
			}
		}
		if got != want {
			t.Errorf("looked for %q, want %q", got, want)
		}
	}
}
