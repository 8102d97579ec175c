package plan

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

// canary stands for every secret on the test host: none may turn up in a plan.
const canary = "canary-3f9d2c71"

// testHost is a machine of maps.
type testHost struct {
	files map[string]string
	env   map[string]string
	home  string
	now   time.Time
}

func (h testHost) ReadFile(path string) ([]byte, error) {
	s, ok := h.files[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return []byte(s), nil
}
func (h testHost) Getenv(name string) string { return h.env[name] }
func (h testHost) Home() string              { return h.home }
func (h testHost) Now() time.Time            { return h.now }

// fullHost holds a secret wherever a plan might look for one.
func fullHost() testHost {
	token := testToken(`{"exp":1800000000,"email":"` + canary + `@example.org","https://api.openai.com/auth":{"chatgpt_account_id":"acc-1","chatgpt_plan_type":"plus","chatgpt_user_id":"` + canary + `"}}`)
	return testHost{
		home: "/home/op",
		now:  time.Unix(1790000000, 0),
		env:  map[string]string{"GITHUB_TOKEN": canary, "ANTHROPIC_API_KEY": canary, "CLAUDE_CODE_OAUTH_TOKEN": canary},
		files: map[string]string{
			"/home/op/.codex/auth.json": `{"OPENAI_API_KEY":null,"tokens":{"id_token":"` + token + `","access_token":"` + token +
				`","refresh_token":"` + canary + `","account_id":"acc-1"},"last_refresh":"2026-11-01T10:00:00.5Z"}`,
			"/home/op/.claude/.credentials.json":   `{"claudeAiOauth":{"accessToken":"` + canary + `","refreshToken":"` + canary + `","expiresAt":1800000000000}}`,
			"/home/op/.config/gatewayd/git-token":  canary,
			"/etc/gatewayd/secrets.json":           `{"example":{"key":"` + canary + `"}}`,
			"/home/op/.codex/api-key.json":         `{"auth_mode":"apikey","OPENAI_API_KEY":"` + canary + `"}`,
			"/home/op/.codex/not-understood.json":  `{"tokens": "` + canary,
			"/home/op/.codex/personal-access.json": `{"personal_access_token":"` + canary + `"}`,
		},
	}
}

func mustParse(t *testing.T, text string) *Manifest {
	t.Helper()
	m, err := ParseManifest("test.bottle.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustProvision(t *testing.T, text string, h Host) *Plan {
	t.Helper()
	p, err := Provision(mustParse(t, text), h)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func text(t *testing.T, p *Plan) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.Text(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestExamples provisions every example and compares both printed forms.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../examples/*.bottle.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".bottle.yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := ParseManifest(filepath.Base(file), data)
			if err != nil {
				t.Fatal(err)
			}
			if m.Bottle != name {
				t.Errorf("bottle is %s, file %s", m.Bottle, file)
			}
			p, err := Provision(m, fullHost())
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "plan-"+name+".txt"), text(t, p))
			out, err := json.MarshalIndent(p, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "plan-"+name+".json"), string(out)+"\n")
		})
	}
}

// TestNoSecretInPlan provisions against a host full of canaries, in every mode
// and with every state of the host's files.
func TestNoSecretInPlan(t *testing.T) {
	var manifests []string
	for _, file := range []string{"auth.json", "api-key.json", "not-understood.json", "personal-access.json", "none.json"} {
		for _, mode := range []string{"true", "false", "lend"} {
			manifests = append(manifests, "bottle: dev\nagent_provider: {template: codex, forward_host_credentials: "+mode+", credentials_file: ~/.codex/"+file+"}\n")
		}
	}
	manifests = append(manifests,
		"bottle: dev\nagent_provider: {template: claude, forward_host_credentials: true}\n",
		"bottle: dev\nagent_provider: {template: claude, forward_host_credentials: true, credentials_file: ~/.claude/.credentials.json}\n",
		"bottle: dev\nagent_provider: {template: claude, forward_host_credentials: true, credentials_file: ~/.codex/not-understood.json}\n",
		"bottle: dev\negress:\n  routes:\n    - {host: a.example.org, auth: {scheme: bearer, secret: {file: ~/.config/gatewayd/git-token}}}\n    - {host: b.example.org, auth: {scheme: bearer, secret: {env: GITHUB_TOKEN}}}\n",
	)
	for _, m := range manifests {
		p := mustProvision(t, m, fullHost())
		out, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{string(out), text(t, p)} {
			if strings.Contains(s, canary) {
				t.Errorf("%s: a secret in the plan:\n%s", m, s)
			}
		}
	}
}

func TestDeterministicAndDigest(t *testing.T) {
	const base = "bottle: dev\nagent_provider: {template: codex, forward_host_credentials: true}\negress:\n  routes:\n" +
		"    - {host: a.example.org, auth: {scheme: bearer, secret: {env: A}}}\n    - {host: b.example.org, auth: {scheme: bearer, secret: {env: B}}}\n"
	first := mustProvision(t, base, fullHost())
	later := fullHost()
	later.now = later.now.Add(1000 * time.Hour)
	for range 20 {
		again := mustProvision(t, "# moved\n\n"+base, later)
		if again.Digest() != first.Digest() {
			t.Fatal("digest depends on layout, time or map order")
		}
	}
	for name, other := range map[string]string{
		"another host":   strings.Replace(base, "b.example.org", "c.example.org", 1),
		"another bottle": strings.Replace(base, "bottle: dev", "bottle: dew", 1),
		"another mode":   strings.Replace(base, ": true}", ": false}", 1),
		"one route less": base[:strings.LastIndex(base, "    - {")],
	} {
		if mustProvision(t, other, fullHost()).Digest() == first.Digest() {
			t.Errorf("%s: same digest", name)
		}
	}
	if !strings.HasPrefix(first.Digest(), "sha256:") || len(first.Digest()) != len("sha256:")+64 {
		t.Errorf("digest %q", first.Digest())
	}
}

// TestDummies: the guest's variable holds what the route accepts, and hosts
// that share a secret share the dummy.
func TestDummies(t *testing.T) {
	p := mustProvision(t, `bottle: dev
egress:
  routes:
    - {host: a.example.org, auth: {scheme: bearer, secret: {env: TOKEN}}}
    - {host: b.example.org, auth: {scheme: header, header: x-token, secret: {env: TOKEN}}}
    - {host: c.example.org, auth: {scheme: bearer, secret: {file: /c}, env: C_TOKEN, dummy: "ghp_0123456789abcdef"}}
    - {host: d.example.org, auth: {scheme: bearer, secret: {file: /d}}}
`, testHost{})
	env := map[string]string{}
	for _, e := range p.Env {
		env[e.Name] = e.Resolve("/at")
	}
	a, b := p.Routes[0].Auth.Dummies.Values, p.Routes[1].Auth.Dummies.Values
	if !slices.Equal(a, b) || env["TOKEN"] != a[0] || !strings.HasPrefix(a[0], provider.DummyMark) {
		t.Errorf("shared secret: %v and %v, TOKEN=%s", a, b, env["TOKEN"])
	}
	if env["C_TOKEN"] != "ghp_0123456789abcdef" || p.Routes[1].Auth.Header != "X-Token" {
		t.Errorf("C_TOKEN=%s, header %s", env["C_TOKEN"], p.Routes[1].Auth.Header)
	}
	if env["SSL_CERT_FILE"] != "/at/ca-bundle.pem" {
		t.Errorf("SSL_CERT_FILE=%s", env["SSL_CERT_FILE"])
	}
	var homes []string
	for _, c := range p.Canaries {
		if c.Value == a[0] {
			homes = c.Homes
		}
	}
	if len(p.Canaries) != 3 || !slices.Equal(homes, []string{"a.example.org", "b.example.org"}) {
		t.Errorf("canaries %+v", p.Canaries)
	}
}

// TestListedCanaries: what the operator lists may go nowhere.
func TestListedCanaries(t *testing.T) {
	p := mustProvision(t, "bottle: dev\npipelock: {canaries: [decoy-0123456789, decoy-9876543210]}\n", testHost{})
	if len(p.Canaries) != 2 || p.Canaries[0].Value == p.Canaries[1].Value || len(p.Canaries[0].Homes)+len(p.Canaries[1].Homes) != 0 {
		t.Errorf("canaries %+v", p.Canaries)
	}
	for _, c := range p.Canaries {
		if c.Name == "" || !strings.HasPrefix(c.Value, "decoy-") {
			t.Errorf("canary %+v", c)
		}
	}
}

// TestProvisionRefusals: what only shows when manifest, provider and host meet.
func TestProvisionRefusals(t *testing.T) {
	cases := []struct{ name, manifest, want string }{
		{"two dummies for one variable", `bottle: dev
egress:
  routes:
    - {host: a.example.org, auth: {scheme: bearer, secret: {env: TOKEN}}}
    - {host: b.example.org, auth: {scheme: bearer, secret: {file: /b}, env: TOKEN}}
`, "test.bottle.yaml:5: egress.routes[1].auth: the guest's variable TOKEN has another value already"},
		{"a variable that the guest needs", `bottle: dev
egress:
  routes:
    - {host: a.example.org, auth: {scheme: bearer, secret: {file: /b}, env: SSL_CERT_FILE}}
`, "the guest's variable SSL_CERT_FILE has another value already"},
		{"paths on a host that the provider passes through", `bottle: dev
agent_provider: {template: codex}
egress:
  routes:
    - {host: chatgpt.com, paths: [/a]}
`, "test.bottle.yaml:5: egress.routes[0].host: the agent provider passes chatgpt.com through undecrypted"},
		{"no home", "bottle: dev\negress:\n  routes:\n    - {host: a.example.org, auth: {scheme: bearer, secret: {file: ~/b}}}\n",
			"test.bottle.yaml:4: egress.routes[0].auth.secret.file: begins with ~/"},
		{"no home for the provider", "bottle: dev\nagent_provider: {template: codex, forward_host_credentials: true}\n",
			"write agent_provider.credentials_file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p, err := Provision(mustParse(t, c.manifest), testHost{})
			if err == nil || p != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestAuthFromBothIsConflict(t *testing.T) {
	const manifest = "bottle: dev\nagent_provider: {template: codex, forward_host_credentials: true}\negress:\n  routes:\n" +
		"    - {host: api.openai.com, auth: {scheme: bearer, secret: {env: KEY}}}\n"
	_, err := Provision(mustParse(t, manifest), fullHost())
	var conflict *routes.ConflictError
	if !errors.As(err, &conflict) || conflict.Manifest.Line != 5 || conflict.Provider.Provider != "codex" {
		t.Fatalf("got %v", err)
	}
}

// TestEmptyRoutes: no routes, null routes and an empty list all deny all.
func TestEmptyRoutes(t *testing.T) {
	for _, m := range []string{"bottle: dev\n", "bottle: dev\negress:\n", "bottle: dev\negress:\n  routes:\n", "bottle: dev\negress: {routes: []}\n"} {
		p := mustProvision(t, m, testHost{})
		if len(p.Routes) != 0 || !strings.Contains(text(t, p), "everything is denied") {
			t.Errorf("%q: %v", m, p.Routes)
		}
	}
}

func TestLinkGateway(t *testing.T) {
	for guest, want := range map[string]string{"198.18.0.2/30": "198.18.0.1", "198.18.0.1/30": "198.18.0.2", "10.1.2.3/24": "10.1.2.1"} {
		p := mustProvision(t, "bottle: dev\nlink: {guest: "+guest+", mac: '02:00:00:00:00:02'}\n", testHost{})
		if got := p.Link.Gateway().String(); got != want {
			t.Errorf("%s: gateway %s, want %s", guest, got, want)
		}
		if out, err := json.Marshal(p.Link); err != nil || !strings.Contains(string(out), `"mac":"02:00:00:00:00:02"`) {
			t.Errorf("link prints as %s, %v", out, err)
		}
	}
	if (LinkSpec{}).Gateway().IsValid() {
		t.Error("a link without an address has a gateway")
	}
}

func TestPlaintextNote(t *testing.T) {
	p := mustProvision(t, "bottle: dev\negress:\n  routes:\n    - {host: a.example.org, protocol: http, auth: {scheme: bearer, secret: {env: A}}}\n", testHost{})
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "a.example.org:80 travels unencrypted") {
		t.Errorf("notes %q", p.Notes)
	}
}

// testToken returns an unsigned JWT with the given claims.
func testToken(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}
