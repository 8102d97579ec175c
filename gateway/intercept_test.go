package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/lab/privileged"
)

// The real credential and the guest's stand-in for it in these tests.
const (
	canarySecret = "real-credential-9fK2xQ7vLm4RtZ8w"
	canaryDummy  = "dummy-credential-for-the-bottle-dev"
)

// authRoute is a route to host:port with the canary as its bearer.
func authRoute(t testing.TB, host string, port uint16) routes.Route {
	t.Setenv("GATEWAY_TEST_CANARY", canarySecret)
	return routes.Route{Host: host, Port: port, Auth: &routes.Auth{
		Scheme: routes.Bearer, Header: "Authorization", Secret: routes.SecretRef{Env: "GATEWAY_TEST_CANARY"},
		Dummies: routes.Dummies{Values: []string{canaryDummy}},
	}}
}

// guestClient is an HTTP client in the bottle b, whose connections all go to dst.
func (w *world) guestClient(t testing.TB, b Bottle, port uint16, h2 bool) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	tr := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: bottlePool(t, b)}, DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return w.sockets.tryCall(t, b.Link, anywhere(port))
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: testWait}
}

// fetch sends one request and returns the status and the body.
func fetch(t testing.TB, c *http.Client, u string, h http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range h {
		req.Header[k] = v
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("get %s: %v", u, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("get %s: %v", u, err)
	}
	return resp.StatusCode, string(body)
}

// TestSecretIsNowhereButUpstream runs flows of every kind with a known credential, whose upstream says it back, and then
// looks for it in everything that the gateway shows or writes.
func TestSecretIsNowhereButUpstream(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	auth := make(chan string, 1)
	o := newOrigin(t, &cert, func(rw http.ResponseWriter, r *http.Request) {
		auth <- r.Header.Get("Authorization")
		rw.Header().Set("X-Echo", r.Header.Get("Authorization"))
		fmt.Fprintf(rw, "%s %s", r.Header.Get("Authorization"), base64.StdEncoding.EncodeToString([]byte(canarySecret)))
	})
	bad := newOrigin(t, func() *tls.Certificate { c := w.roots.leaf(t, time.Now(), "other.test"); return &c }(), func(http.ResponseWriter, *http.Request) {})
	w.names.set("bad.test", "127.0.0.1")
	b := testBottle(t, authRoute(t, "api.test", o.port), authRoute(t, "bad.test", bad.port))
	w.apply(t, b)
	var shown strings.Builder
	for _, h2 := range []bool{false, true} {
		c := w.guestClient(t, b, o.port, h2)
		api := fmt.Sprintf("https://api.test:%d/x?y=z", o.port)
		for name, h := range map[string]http.Header{"dummy": {"Authorization": {"Bearer " + canaryDummy}}, "nothing": {}} {
			status, body := fetch(t, c, api, h)
			if status != http.StatusOK {
				t.Fatalf("h2=%v, guest sends %s: status %d: %s", h2, name, status, body)
			}
			if got := <-auth; got != "Bearer "+canarySecret {
				t.Errorf("h2=%v, guest sends %s: upstream saw %q; want the real credential", h2, name, got)
			}
			shown.WriteString(body)
		}
		status, body := fetch(t, c, api, http.Header{"Authorization": {"Bearer somebody-elses-key-0123456789"}})
		if status != http.StatusForbidden || !strings.Contains(body, "foreign_credential") {
			t.Errorf("h2=%v: a foreign credential got %d %s", h2, status, body)
		}
		shown.WriteString(body)
		status, body = fetch(t, w.guestClient(t, b, bad.port, h2), fmt.Sprintf("https://bad.test:%d/", bad.port), nil)
		if status != http.StatusBadGateway || bad.seen.Load() != 0 {
			t.Errorf("h2=%v: an upstream that is another got %d requests and the guest %d", h2, bad.seen.Load(), status)
		}
		shown.WriteString(body)
	}
	r := w.records.wait(t, func(r Record) bool { return r.Type == RecordRequest && r.Injected })
	if r.Decision != routes.Intercept || r.Flow == "" || r.Status != http.StatusOK {
		t.Errorf("record %+v; want an intercepted request with its flow", r)
	}
	w.apply(t) // ends the flows, so that their records are there
	for where, text := range map[string]string{
		"what the guest got": shown.String(), "records": asJSON(t, w.records.list()), "flows": asJSON(t, w.g.Flows()), "bottles": asJSON(t, w.g.Bottles()),
		"log": w.log.String(), "metrics": gathered(t, w), "plan": fmt.Sprintf("%+v", b.Table.Routes()),
	} {
		for _, form := range []string{canarySecret, base64.StdEncoding.EncodeToString([]byte(canarySecret)), url.QueryEscape(canarySecret)} {
			if strings.Contains(text, form) {
				t.Errorf("%s: holds the credential as %q", where, form)
			}
		}
	}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// gathered returns all metrics as text.
func gathered(t testing.TB, w *world) string {
	t.Helper()
	families, err := w.g.metrics.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		out.WriteString(f.String() + "\n")
	}
	return out.String()
}

// TestDeniedFlowIsExplained asks for what the plan does not name, by TLS and in plain text.
func TestDeniedFlowIsExplained(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "other.test"})
	w.apply(t, b)
	for name, c := range map[string]struct {
		port uint16
		url  string
		h2   bool
	}{
		"HTTP/1.1":                           {443, "https://denied.test/some/path", false},
		"HTTP/2":                             {443, "https://denied.test/some/path", true},
		"plain":                              {80, "http://denied.test/some/path", false},
		"plain, on a port that nobody named": {8080, "http://denied.test:8080/some/path", false},
		"plain, on the port of TLS":          {443, "http://denied.test:443/some/path", false},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := fetch(t, w.guestClient(t, b, c.port, c.h2), c.url, nil)
			var p struct {
				Reason    string
				RequestID string `json:"request_id"`
				Remedy    string
			}
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				t.Fatalf("body %q: %v", body, err)
			}
			if status != http.StatusForbidden || p.Reason != string(routes.NoRoute) || !strings.Contains(p.Remedy, "host: denied.test") {
				t.Errorf("got %d %s; want 403 with the reason and the line that would allow it", status, body)
			}
			w.records.wait(t, func(r Record) bool { return r.ID == p.RequestID && r.Decision == routes.Deny })
			if r, ok := w.g.Find(p.RequestID); !ok || r.Reason != routes.NoRoute || r.Host != "denied.test" {
				t.Errorf("find %s: %+v, %v", p.RequestID, r, ok)
			}
		})
	}
}

// TestDeniedCurl shows curl the same, as a client that people know.
func TestDeniedCurl(t *testing.T) {
	privileged.Require(t, privileged.Program("curl"))
	w := newWorld(t, nil)
	b := testBottle(t)
	w.apply(t, b)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, b.CA.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	w.sockets.mu.Lock()
	w.sockets.always = anywhere(443)
	to := w.sockets.tcp[listenerOf(b)].Addr().String()
	w.sockets.mu.Unlock()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "curl", "--silent", "--show-error", "--max-time", "10", "--cacert", ca,
		"--connect-to", "denied.test:443:"+to, "--write-out", " %{http_code}", "https://denied.test/")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("curl: %v: %s", err, errs.String())
	}
	if got := out.String(); !strings.HasSuffix(got, " 403") || !strings.Contains(got, "no_route") {
		t.Errorf("curl shows %q", got)
	}
}

// TestNewPlanEndsInterceptedConnections takes a route away while a response is under way.
func TestNewPlanEndsInterceptedConnections(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	stopped := make(chan struct{})
	o := newOrigin(t, &cert, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "begun")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
		close(stopped)
	})
	b := testBottle(t, routes.Route{Host: "api.test", Port: o.port})
	w.apply(t, b)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://api.test:%d/", o.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.guestClient(t, b, o.port, false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, len("begun"))); err != nil {
		t.Fatal(err)
	}
	b.Table, b.PlanDigest = mustTable(t), "digest-2"
	w.apply(t, b)
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the response went on to its end")
	}
	select {
	case <-stopped:
	case <-time.After(testWait):
		t.Error("the upstream's request goes on")
	}
	if r := w.records.wait(t, func(r Record) bool { return r.Type == RecordFlow }); r.Reason != ReasonRevoked || r.Lane != LaneIntercept {
		t.Errorf("record %+v; want an intercepted flow that was revoked", r)
	}
}
