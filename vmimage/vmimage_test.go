package vmimage

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/plan"
	"gatewayd/plan/provider"
)

var update = flag.Bool("update", false, "write the golden files anew")

const hostAuth = `{"tokens":{"id_token":"e30.eyJlbWFpbCI6ImEifQ.eA","access_token":"canary-lent \"token\"","refresh_token":"canary-refresh","account_id":"acc-1"},"last_refresh":"2026-11-01T10:00:00Z"}`

// testHost has one file.
type testHost struct{}

func (testHost) ReadFile(path string) ([]byte, error) {
	if path != "/home/op/.codex/auth.json" {
		return nil, fs.ErrNotExist
	}
	return []byte(hostAuth), nil
}
func (testHost) Getenv(string) string { return "" }
func (testHost) Home() string         { return "/home/op" }
func (testHost) Now() time.Time       { return time.Unix(1790000000, 0) }

func testPlan(t *testing.T, mode string) *plan.Plan {
	t.Helper()
	m, err := plan.ParseManifest("dev.bottle.yaml", []byte("bottle: dev\nagent_provider: {template: codex, forward_host_credentials: "+mode+"}\n"+
		"egress:\n  routes:\n    - {host: api.example.org, auth: {scheme: bearer, secret: {env: TOKEN}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Provision(m, testHost{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func certificate(content string) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(content)})
}

func testInputs() Inputs {
	return Inputs{
		CAPEM: certificate("ca"), SystemRootsPEM: bytes.TrimSpace(certificate("root")),
		Network: Network{
			Guest: netip.MustParsePrefix("198.18.0.2/30"), Gateway: netip.MustParseAddr("198.18.0.1"),
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, MTU: 1400,
		},
	}
}

func guestFiles(t *testing.T, p *plan.Plan, in Inputs) map[string]File {
	t.Helper()
	files, err := GuestFiles(p, in)
	if err != nil {
		t.Fatal(err)
	}
	byPath := map[string]File{}
	for _, f := range files {
		byPath[f.Path] = f
	}
	return byPath
}

// TestGolden compares every file of the guest directory.
func TestGolden(t *testing.T) {
	files := guestFiles(t, testPlan(t, "true"), testInputs())
	modes := map[string]fs.FileMode{
		"Smolfile": 0o644, "ca-bundle.jks": 0o644, "ca-bundle.pem": 0o644, "ca.pem": 0o644, "codex/auth.json": 0o600,
		"codex/config.toml": 0o600, "env": 0o600, "network.json": 0o644,
	}
	if len(files) != len(modes) {
		t.Errorf("%d files, want %d", len(files), len(modes))
	}
	for path, mode := range modes {
		f := files[path]
		if f.Mode != mode {
			t.Errorf("%s: mode %04o, want %04o", path, f.Mode, mode)
		}
		golden := filepath.Join("testdata", "guest", filepath.FromSlash(path))
		if *update {
			if err := Write("testdata/guest", []File{{Path: path, Mode: 0o644, Data: f.Data}}); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Data, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", path, f.Data, want)
		}
		if bytes.Contains(f.Data, []byte("canary")) {
			t.Errorf("%s holds a secret", path)
		}
	}
}

func TestBundle(t *testing.T) {
	files := guestFiles(t, testPlan(t, "true"), testInputs())
	var got []string
	for rest := files["ca-bundle.pem"].Data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		got = append(got, string(b.Bytes))
	}
	if strings.Join(got, " ") != "root ca" {
		t.Errorf("the bundle holds %q", got)
	}
}

func TestAt(t *testing.T) {
	in := testInputs()
	in.At = "/opt/guest"
	for path, f := range guestFiles(t, testPlan(t, "true"), in) {
		if bytes.Contains(f.Data, []byte(DefaultAt)) {
			t.Errorf("%s still says %s", path, DefaultAt)
		}
	}
	env := string(guestFiles(t, testPlan(t, "true"), in)["env"].Data)
	if !strings.Contains(env, "CODEX_HOME=/opt/guest/codex\n") || !strings.Contains(env, "SSL_CERT_FILE=/opt/guest/ca-bundle.pem\n") {
		t.Errorf("env\n%s", env)
	}
}

// TestLend: the token goes into auth.json, escaped, and nowhere else.
func TestLend(t *testing.T) {
	in := testInputs()
	var asked []string
	in.Secret = func(ref routes.SecretRef) (string, error) {
		asked = append(asked, ref.String())
		return `canary-lent "token"`, nil
	}
	files := guestFiles(t, testPlan(t, "lend"), in)
	for path, f := range files {
		if path != "codex/auth.json" && bytes.Contains(f.Data, []byte("canary")) {
			t.Errorf("%s holds the token", path)
		}
		if bytes.Contains(f.Data, []byte("canary-refresh")) {
			t.Errorf("%s holds the refresh token", path)
		}
	}
	var auth struct {
		Tokens struct {
			AccessToken string `json:"access_token"`
		} `json:"tokens"`
	}
	if err := json.Unmarshal(files["codex/auth.json"].Data, &auth); err != nil || auth.Tokens.AccessToken != `canary-lent "token"` {
		t.Errorf("auth.json %+v, %v", auth, err)
	}
	if len(asked) != 1 || asked[0] != "json:/home/op/.codex/auth.json#/tokens/access_token" {
		t.Errorf("asked for %v", asked)
	}
}

func TestLendErrors(t *testing.T) {
	gone := errors.New("gone")
	for name, secret := range map[string]func(routes.SecretRef) (string, error){
		"no secrets at hand": nil,
		"gone":               func(routes.SecretRef) (string, error) { return "", gone },
		"it is empty":        func(routes.SecretRef) (string, error) { return "", nil },
	} {
		in := testInputs()
		in.Secret = secret
		files, err := GuestFiles(testPlan(t, "lend"), in)
		var lent *LentError
		if files != nil || !errors.As(err, &lent) || lent.File != "codex/auth.json" || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "codex login") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusedInputs(t *testing.T) {
	cases := map[string]func(*Inputs){
		"write a clean absolute path":          func(in *Inputs) { in.At = "guest" },
		`"/a b"`:                               func(in *Inputs) { in.At = "/a b" },
		`"/a/../b"`:                            func(in *Inputs) { in.At = "/a/../b" },
		"no CA certificate":                    func(in *Inputs) { in.CAPEM = nil },
		"holds a private key":                  func(in *Inputs) { in.CAPEM = append(in.CAPEM, "-----BEGIN EC PRIVATE KEY-----"...) },
		"install the distribution's":           func(in *Inputs) { in.SystemRootsPEM = nil },
		"the guest has no IPv4 address":        func(in *Inputs) { in.Network.Guest = netip.Prefix{} },
		"is not a neighbour of the guest":      func(in *Inputs) { in.Network.Gateway = netip.MustParseAddr("10.0.0.1") },
		"gateway 198.18.0.2 is not a neighbou": func(in *Inputs) { in.Network.Gateway = netip.MustParseAddr("198.18.0.2") },
	}
	for want, change := range cases {
		in := testInputs()
		change(&in)
		if files, err := GuestFiles(testPlan(t, "true"), in); files != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for _, path := range []string{"../out", "/etc/passwd", "ca.pem", ""} {
		p := testPlan(t, "true")
		p.Files = append(p.Files, provider.GuestFile{Path: path})
		if files, err := GuestFiles(p, testInputs()); files != nil || err == nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}
