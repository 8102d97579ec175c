package gateway

import (
	"bytes"
	"compress/gzip"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"gatewayd/gateway/inject"
	"gatewayd/gateway/routes"
)

// newVault is a stage with api.test as change makes it, whose origin counts whole requests, and home.test, where the secret is
// put in.
func newVault(t *testing.T, change func(*routes.Route)) (s *stage, whole *atomic.Int64) {
	whole = new(atomic.Int64)
	return newStage(t, change, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			whole.Add(1)
		}
	}, authRoute(t, "home.test", 443)), whole
}

// pieces is a body that comes a few bytes at a time, each in a chunk of its own.
type pieces struct {
	rest string
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// TestHostSecretsAreStopped shows the host's own secret on its way out, in every place of a request and in every encoding: to
// another host as to the one that it is put in for, where only the gateway may say it.
func TestHostSecretsAreStopped(t *testing.T) {
	var flushed bytes.Buffer // the secret in two blocks of gzip
	z := gzip.NewWriter(&flushed)
	for _, part := range []string{"x" + canarySecret[:11], canarySecret[11:] + "x"} {
		io.WriteString(z, part)
		z.Flush()
	}
	z.Close()
	escaped := ""
	for _, c := range []byte(canarySecret) {
		escaped += fmt.Sprintf(`\u%04x`, c)
	}
	bodies := map[string]string{
		"as it is": "a " + canarySecret + " b",
		"hex":      hex.EncodeToString([]byte(canarySecret)),
		"HEX":      strings.ToUpper(hex.EncodeToString([]byte(canarySecret))),
		"percent":  percent(canarySecret),
		"JSON":     `{"k":"` + escaped + `"}`,
	}
	for at := range 3 {
		text := strings.Repeat("~", at) + canarySecret
		bodies[fmt.Sprintf("base64 %d bytes on", at)] = base64.StdEncoding.EncodeToString([]byte(text))
		bodies[fmt.Sprintf("base64url %d bytes on", at)] = base64.RawURLEncoding.EncodeToString([]byte(text + "~"))
	}
	type leak struct {
		build func(*http.Request)
		place string
	}
	leaks := map[string]leak{
		"header": {func(r *http.Request) { r.Header.Set("X-Anything", "k="+canarySecret) }, "header X-Anything"},
		"basic": {func(r *http.Request) {
			r.Header["X-Basic"] = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+canarySecret))}
		}, "header X-Basic"},
		"cookie":     {func(r *http.Request) { r.Header.Set("Cookie", "a=b; session="+canarySecret) }, "header Cookie"},
		"method":     {func(r *http.Request) { r.Method = canarySecret }, "method"},
		"query":      {func(r *http.Request) { r.URL.RawQuery = "q=" + percent(canarySecret) }, "url"},
		"path":       {func(r *http.Request) { r.URL.Path = "/" + canarySecret }, "url"},
		"chunks":     {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(&pieces{"xyz" + canarySecret, 5}), -1 }, "body"},
		"large body": {func(r *http.Request) { setBody(r, strings.Repeat("x", 1<<20)+canarySecret) }, "body"},
		"gzip": {func(r *http.Request) {
			setBody(r, flushed.String())
			r.Header.Set("Content-Encoding", "gzip")
		}, "body"},
		"trailer": {func(r *http.Request) {
			setBody(r, "x")
			r.ContentLength, r.Trailer = -1, http.Header{"X-T": {canarySecret}}
		}, "header X-T"},
	}
	for name, content := range bodies {
		leaks["body, "+name] = leak{func(r *http.Request) { setBody(r, content) }, "body"}
	}
	for where, change := range map[string]func(*routes.Route){"other host": nil, "same host": withAuth(t)} {
		s, whole := newVault(t, change)
		for name, l := range leaks {
			t.Run(where+"/"+name, func(t *testing.T) {
				bothVersions(t, func(t *testing.T, h2 bool) {
					r := s.ask(t, "POST", "/", nil)
					l.build(r)
					resp, body := do(t, s.client(t, h2), r)
					_, rec := s.explained(t, resp, body, 403, ReasonLeak)
					if !strings.HasPrefix(rec.Finding, "secret env:GATEWAY_TEST_CANARY in "+l.place) {
						t.Errorf("finding %q", rec.Finding)
					}
					if whole.Load() != 0 {
						t.Error("the origin saw a whole request")
					}
				})
			})
		}
		r := s.ask(t, "POST", "/clean", nil)
		setBody(r, "nothing of it")
		if resp, _ := do(t, s.client(t, false), r); resp.StatusCode != 200 {
			t.Errorf("%s: a clean request got %d: what the gateway puts in is not the guest's", where, resp.StatusCode)
		}
		if where == "same host" {
			r := s.ask(t, "GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+canarySecret)
			resp, body := do(t, s.client(t, false), r)
			s.explained(t, resp, body, 403, ReasonForeignCredential)
		}
		s.neverSaid(t, canarySecret)
	}
}

// percent writes every byte with its percent-encoding.
func percent(s string) string {
	out := ""
	for _, c := range []byte(s) {
		out += fmt.Sprintf("%%%02X", c)
	}
	return out
}

// neverSaid makes sure that no record and no line of the log has the value.
func (s *stage) neverSaid(t *testing.T, value string) {
	t.Helper()
	forms := []string{value, percent(value), hex.EncodeToString([]byte(value)), base64.StdEncoding.EncodeToString([]byte(value))}
	s.records.mu.Lock()
	said := fmt.Sprintf("%+v", s.records.all)
	s.records.mu.Unlock()
	said += s.log.String()
	for _, form := range forms {
		if strings.Contains(said, form) {
			t.Errorf("a record or the log says %s", form)
		}
	}
}

// TestRecordsDoNotSayIt: what a denied request has in its path, method or name goes into its record without the secret.
func TestRecordsDoNotSayIt(t *testing.T) {
	s, _ := newVault(t, func(r *routes.Route) { r.Paths = []string{"/open/"} })
	for _, path := range []string{"/shut/" + canarySecret, "/shut/" + base64.RawURLEncoding.EncodeToString([]byte(canarySecret))} {
		resp, body := do(t, s.client(t, false), s.ask(t, "GET", path, nil))
		if resp.StatusCode != 403 || !strings.Contains(body, string(routes.PathDenied)) {
			t.Errorf("got %d %s", resp.StatusCode, body)
		}
	}
	do(t, s.client(t, false), s.ask(t, canarySecret, "/shut/", nil))
	rec := s.request(t, func(r Record) bool { return r.Reason == routes.PathDenied })
	if !strings.HasPrefix(rec.Path, "/shut/[REDACTED]") {
		t.Errorf("path %q", rec.Path)
	}
	s.request(t, func(r Record) bool { return r.Method == "[REDACTED]" })
	s.neverSaid(t, canarySecret)
}

// TestRotatedSecretsAreStopped: the new value from when the file has it, and the old one all the same; on a connection that is
// open already, too.
func TestRotatedSecretsAreStopped(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(value string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const first, second = "first-credential-5fQ8wLz2", "second-credential-7hR4tKm9"
	write(first)
	home := routes.Route{Host: "home.test", Port: 443, Auth: &routes.Auth{
		Scheme: routes.Bearer, Header: "Authorization", Secret: routes.SecretRef{File: file},
		Dummies: routes.Dummies{Values: []string{canaryDummy}},
	}}
	s := newEcho(t, nil, home)
	ws, _, err := s.dialWS(t, "/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	read(t, ws)
	status := func(value string) int {
		r := s.ask(t, "POST", "/", nil)
		setBody(r, value)
		resp, _ := do(t, s.client(t, false), r)
		return resp.StatusCode
	}
	if got := status(first); got != 403 {
		t.Errorf("the first value got %d before anything was put in", got)
	}
	if got := status(second); got == 403 {
		t.Error("a value that nobody has yet is stopped")
	}
	write(second)
	for ctx := soon(t); status(second) != 403; {
		if ctx.Err() != nil {
			t.Fatal("the new value passes")
		}
	}
	if got := status(first); got != 403 {
		t.Errorf("the value before got %d", got)
	}
	if err := ws.Write(soon(t), websocket.MessageText, []byte(second)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(soon(t)); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("the new value on a connection from before: %v", err)
	}
	s.neverSaid(t, first)
	s.neverSaid(t, second)
}

// TestLentSecrets: a secret that the guest was lent may go where it opens a door, and nowhere else.
func TestLentSecrets(t *testing.T) {
	for _, home := range []string{"api.test", "other.test"} {
		s, _ := newVault(t, nil)
		t.Setenv("GATEWAY_TEST_LENT", "lent-credential-3dG6jNp1")
		s.b.Secrets = []inject.Held{{Ref: routes.SecretRef{Env: "GATEWAY_TEST_LENT"}, Homes: []string{home}}}
		s.apply(t, s.b)
		r := s.ask(t, "GET", "/", nil)
		r.Header.Set("Authorization", "Bearer lent-credential-3dG6jNp1")
		resp, body := do(t, s.client(t, false), r)
		if home == "api.test" {
			if resp.StatusCode != 200 {
				t.Errorf("at home it got %d %s", resp.StatusCode, body)
			}
			continue
		}
		s.explained(t, resp, body, 403, ReasonLeak)
	}
}

// TestSecretInAName: a name under a wildcard can carry it, in base32 as well.
func TestSecretInAName(t *testing.T) {
	b := testBottle(t, routes.Route{Host: "*.wild.test", TLSPassthrough: true}, authRoute(t, "home.test", 443))
	w := newWorld(t, nil)
	w.apply(t, b)
	s := w.g.bottles["dev"].current()
	for _, name := range []string{canarySecret + ".wild.test", inLabels(strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(canarySecret))), "wild.test")} {
		if got := s.nameLeak(strings.ToLower(name)); !strings.HasPrefix(got, "secret env:GATEWAY_TEST_CANARY in name") {
			t.Errorf("%s: found %q", name, got)
		}
		r := Record{Host: strings.ToLower(name)}
		if s.known.redact(&r); r.Host != "" {
			t.Errorf("a record says %q", r.Host)
		}
	}
}
