package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// stage is a gateway with one bottle and one origin, api.test, whose handler each test writes.
type stage struct {
	*world
	b     Bottle
	port  uint16 // of the origin, and so of its routes
	seen  *atomic.Int64
	conns *atomic.Int64

	streams bool // WebSockets are opened on streams of HTTP/2
}

// newStage serves handler as api.test and gives a bottle the route that change makes of a plain one, and others.
func newStage(t testing.TB, change func(*routes.Route), handler http.HandlerFunc, others ...routes.Route) *stage {
	t.Helper()
	return newStageOf(t, nil, change, handler, others...)
}

// newStageOf is newStage with an origin that speaks these protocols alone.
func newStageOf(t testing.TB, protocols []string, change func(*routes.Route), handler http.HandlerFunc, others ...routes.Route) *stage {
	t.Helper()
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	o := newOriginOf(t, &cert, protocols, handler)
	r := routes.Route{Host: "api.test", Port: o.port}
	if change != nil {
		change(&r)
	}
	s := &stage{world: w, port: o.port, seen: &o.seen, conns: &o.conns}
	s.b = testBottle(t, append([]routes.Route{r}, others...)...)
	w.apply(t, s.b)
	return s
}

// withAuth makes a route inject the canary.
func withAuth(t testing.TB) func(*routes.Route) {
	return func(r *routes.Route) { r.Auth = authRoute(t, r.Host, r.Port).Auth }
}

// url is the URL of a path of api.test.
func (s *stage) url(path string) string { return fmt.Sprintf("https://api.test:%d%s", s.port, path) }

// client is a client in the bottle that speaks one version of HTTP.
func (s *stage) client(t testing.TB, h2 bool) *http.Client {
	c := s.guestClient(t, s.b, s.port, h2)
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.Transport.(*http.Transport).ExpectContinueTimeout = testWait
	return c
}

// raw is a TLS connection of the bottle to host, on which a test speaks HTTP/1.1 for itself.
func (s *stage) raw(t testing.TB, host string, port uint16) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := tls.Client(s.sockets.call(t, s.b.Link, anywhere(port)), &tls.Config{RootCAs: bottlePool(t, s.b), ServerName: host})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// say sends raw bytes on a new connection to api.test and returns the response with its body.
func (s *stage) say(t testing.TB, raw string) (*http.Response, string) {
	t.Helper()
	conn, in := s.raw(t, "api.test", s.port)
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	return readResponse(t, in)
}

// readResponse reads one response and its body.
func readResponse(t testing.TB, in *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// do sends a request and returns the response with its body.
func do(t testing.TB, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// ask makes a request.
func (s *stage) ask(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url(path), body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// request waits for the record of a request that match accepts.
func (s *stage) request(t testing.TB, match func(Record) bool) Record {
	t.Helper()
	return s.records.wait(t, func(r Record) bool { return r.Type == RecordRequest && match(r) })
}

// explained parses an explanation and holds it against the record with its id.
func (s *stage) explained(t testing.TB, resp *http.Response, body string, status int, reason routes.Reason) (problem, Record) {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("the explanation is no JSON: %v: %q", err, body)
	}
	if resp.StatusCode != status || p.Status != status || p.Reason != reason || resp.Header.Get("Content-Type") != problemType {
		t.Errorf("got %d %s %s, want %d %s: %s", resp.StatusCode, p.Reason, resp.Header.Get("Content-Type"), status, reason, body)
	}
	if !strings.Contains(p.Error.Message, p.RequestID) || p.Error.Code != string(reason) || p.Bottle != "dev" {
		t.Errorf("the explanation lacks its id, code or bottle: %s", body)
	}
	rec := s.request(t, func(r Record) bool { return r.ID == p.RequestID })
	decision, lane := routes.Deny, LaneNone
	if status >= 500 && !strings.HasPrefix(string(reason), "http_") && reason != ReasonUpstreamGuard {
		decision, lane = routes.Intercept, LaneIntercept // it failed, but nobody denied it
	}
	if rec.Decision != decision || rec.Reason != reason || rec.Status != status || rec.Lane != lane || rec.Flow == "" || rec.Remedy != p.Remedy {
		t.Errorf("record %+v does not say the same as %s", rec, body)
	}
	return p, rec
}

// bothVersions runs a test over HTTP/1.1 and HTTP/2.
func bothVersions(t *testing.T, test func(t *testing.T, h2 bool)) {
	t.Helper()
	t.Run("h1", func(t *testing.T) { test(t, false) })
	t.Run("h2", func(t *testing.T) { test(t, true) })
}

// soon is a context that ends when an event that ought to come at once has not.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	t.Cleanup(cancel)
	return ctx
}
