package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/routes"
)

// origin is a server of the made-up internet.
type origin struct {
	port  uint16
	conns atomic.Int64
	seen  atomic.Int64
}

// newOrigin serves handler over TLS (h2 and http/1.1) with cert, or in plain text without one.
func newOrigin(t testing.TB, cert *tls.Certificate, handler http.HandlerFunc) *origin {
	t.Helper()
	return newOriginOf(t, cert, nil, handler)
}

// newOriginOf is newOrigin for a server that speaks these protocols alone, as change would have it.
func newOriginOf(t testing.TB, cert *tls.Certificate, protocols []string, handler http.HandlerFunc, change ...func(*http.Server)) *origin {
	t.Helper()
	o := &origin{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		o.seen.Add(1)
		handler(rw, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			o.conns.Add(1)
		}
	}
	for _, c := range change {
		c(s.Config)
	}
	if cert == nil {
		s.Start()
	} else {
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: protocols}
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	o.port = addrPortOf(s.Listener.Addr()).Port()
	return o
}

// bare returns an upstream that trusts the made-up internet's authority, as bottle "dev" would have it.
func (w *world) bare(waits Deadlines) *upstream {
	waits = waits.withDefaults()
	d := &dialer{names: w.names, check: w.g.checkAddr, waits: waits}
	return newUpstream(d, w.g.roots, waits, defaultBounds)
}

// nobody wants to know what happens before a response is there.
type nobody struct{}

func (nobody) connected(netip.AddrPort) {}
func (nobody) Interim(int, http.Header) {}
func (nobody) memory() (*http1.Request, *http1.Answer) {
	return new(http1.Request), new(http1.Answer)
}

func get(path string, major int) *http.Request {
	return &http.Request{
		Method: http.MethodGet, URL: &url.URL{Opaque: path}, Header: http.Header{}, ProtoMajor: major, RequestURI: "left over",
	}
}

func TestUpstreamMirrorsTheGuestsProtocol(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	type facts struct{ proto, host, path, agent, encoding string }
	saw := make(chan facts, 1)
	o := newOrigin(t, &cert, func(rw http.ResponseWriter, r *http.Request) {
		saw <- facts{r.Proto, r.Host, r.RequestURI, fmt.Sprint(r.Header["User-Agent"]), r.Header.Get("Accept-Encoding")}
		rw.Header().Set("Location", "https://elsewhere.test/")
		rw.Header().Set("Content-Encoding", "gzip")
		rw.WriteHeader(http.StatusFound)
		_, _ = io.WriteString(rw, "not gzip")
	})
	route := &routes.Route{Host: "api.test", Port: o.port, Protocol: routes.HTTPS}
	u := w.bare(Deadlines{})
	defer u.close()
	for _, c := range []struct {
		major int
		proto string
	}{{1, "HTTP/1.1"}, {2, "HTTP/2.0"}} {
		resp, err := u.RoundTrip(route, "api.test", get("/a%2Fb?x=%20", c.major), nobody{})
		if err != nil {
			t.Fatalf("guest speaks HTTP/%d: %v", c.major, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusFound || string(body) != "not gzip" {
			t.Errorf("got %d %q, %v; want the redirect and its body as they are", resp.StatusCode, body, err)
		}
		want := facts{c.proto, fmt.Sprintf("api.test:%d", o.port), "/a%2Fb?x=%20", "[]", ""}
		if got := <-saw; got != want {
			t.Errorf("upstream saw %+v, want %+v", got, want)
		}
	}
}

// TestUpstreamMustProveItsName shows that no request reaches a server that cannot.
func TestUpstreamMustProveItsName(t *testing.T) {
	w := newWorld(t, nil)
	stranger := newTestRoots(t)
	for name, cert := range map[string]tls.Certificate{
		"another name":      w.roots.leaf(t, time.Now().Add(time.Hour), "other.test"),
		"expired":           w.roots.leaf(t, time.Now().Add(-time.Hour), "api.test"),
		"unknown authority": stranger.leaf(t, time.Now().Add(time.Hour), "api.test"),
	} {
		t.Run(name, func(t *testing.T) {
			w.names.set("api.test", "127.0.0.1")
			o := newOrigin(t, &cert, func(http.ResponseWriter, *http.Request) {})
			u := w.bare(Deadlines{})
			defer u.close()
			_, err := u.RoundTrip(&routes.Route{Host: "api.test", Port: o.port, Protocol: routes.HTTPS}, "api.test", get("/", 1), nobody{})
			var ue *UpstreamError
			if !errors.As(err, &ue) || ue.Stage != ReasonUpstreamTLS {
				t.Errorf("got %v; want stage %s", err, ReasonUpstreamTLS)
			}
			if o.seen.Load() != 0 {
				t.Error("the server got a request")
			}
		})
	}
}

func TestUpstreamPoolsAreApart(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	o := newOrigin(t, &cert, func(http.ResponseWriter, *http.Request) {})
	route := func(env string) *routes.Route {
		r := &routes.Route{Host: "api.test", Port: o.port, Protocol: routes.HTTPS}
		if env != "" {
			r.Auth = &routes.Auth{Scheme: routes.Bearer, Header: "Authorization", Secret: routes.SecretRef{Env: env}}
		}
		return r
	}
	dev, other := w.bare(Deadlines{}), w.bare(Deadlines{})
	defer dev.close()
	defer other.close()
	for _, c := range []struct {
		what  string
		u     *upstream
		r     *routes.Route
		conns int64
	}{
		{"the first request", dev, route("A"), 1},
		{"the same again", dev, route("A"), 1},
		{"an equal route of a new plan", dev, route("A"), 1},
		{"another credential", dev, route("B"), 2},
		{"no credential", dev, route(""), 3},
		{"another bottle", other, route("A"), 4},
	} {
		resp, err := c.u.RoundTrip(c.r, "api.test", get("/", 1), nobody{})
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if got := o.conns.Load(); got != c.conns {
			t.Errorf("%s: %d connections so far, want %d", c.what, got, c.conns)
		}
	}
	// A plan that no longer has the route takes its connections away.
	s, err := newSnapshot(testBottle(t), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	dev.keep(s)
	if len(dev.pools) != 0 {
		t.Errorf("%d pools left that no route uses", len(dev.pools))
	}
}

// TestBottlesShareNoConnection has two bottles with the same plan, credential included, ask the same server: each has a connection of
// its own there, on which the other's TLS session is not resumed.
func TestBottlesShareNoConnection(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		var resumed atomic.Int64
		s := newStage(t, withAuth(t), func(_ http.ResponseWriter, r *http.Request) {
			if r.TLS.DidResume {
				resumed.Add(1)
			}
		})
		other := namedBottle(t, "other", 2, s.b.Table.Routes()...)
		s.apply(t, s.b, other)
		for range 2 {
			for _, b := range []Bottle{s.b, other} {
				if resp, text := do(t, s.guestClient(t, b, s.port, h2), s.ask(t, "GET", "/", nil)); resp.StatusCode != http.StatusOK {
					t.Fatalf("%s: %d %s", b.Name, resp.StatusCode, text)
				}
			}
		}
		if s.conns.Load() != 2 || resumed.Load() != 0 {
			t.Errorf("HTTP/2 %t: %d connections, and %d requests on a session that was resumed; want one connection for each bottle", h2, s.conns.Load(), resumed.Load())
		}
	}
}

func TestUpstreamGuardAndPlainText(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	w := newWorld(t, nil)
	w.names.set("meta.test", "169.254.169.254")
	w.names.set("plain.test", "127.0.0.1")
	o := newOrigin(t, nil, func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, r.Host) })
	u := w.bare(Deadlines{})
	defer u.close()
	resp, err := u.RoundTrip(&routes.Route{Host: "plain.test", Port: o.port, Protocol: routes.HTTP}, "plain.test", get("/", 2), nobody{})
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := fmt.Sprintf("plain.test:%d", o.port); string(body) != want || resp.ProtoMajor != 1 {
		t.Errorf("got %q by %s; want %q by HTTP/1.1", body, resp.Proto, want)
	}
	for host, stage := range map[string]routes.Reason{"meta.test": ReasonUpstreamGuard, "gone.test": ReasonUpstreamResolve} {
		_, err = u.RoundTrip(&routes.Route{Host: host, Port: 443, Protocol: routes.HTTPS, AllowPrivate: true}, host, get("/", 1), nobody{})
		var ue *UpstreamError
		if !errors.As(err, &ue) || ue.Stage != stage {
			t.Errorf("%s: %v; want stage %s", host, err, stage)
		}
	}
	if _, err := u.RoundTrip(nil, "plain.test", get("/", 1), nobody{}); err == nil {
		t.Error("a request without a route was sent")
	}
}

func TestUpstreamUpgrade(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("ws.test", "127.0.0.1")
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil || r.Header.Get("Upgrade") != "websocket" {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, br)
	})
	u := w.bare(Deadlines{})
	defer u.close()
	req := get("/", 1)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	resp, err := u.RoundTrip(&routes.Route{Host: "ws.test", Port: port, Protocol: routes.HTTP}, "ws.test", req, nobody{})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	rw, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %d with %T; want 101 with a stream both ways", resp.StatusCode, resp.Body)
	}
	if _, err := io.WriteString(rw, "ping"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(rw, b); err != nil || string(b) != "ping" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestUpstreamThatNeverAnswers(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("slow.test", "127.0.0.1")
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	u := w.bare(Deadlines{UpstreamHeader: 50 * time.Millisecond, UpstreamHandshake: 50 * time.Millisecond})
	defer u.close()
	for protocol, stage := range map[routes.Protocol]routes.Reason{routes.HTTP: ReasonUpstreamExchange, routes.HTTPS: ReasonUpstreamTLS} {
		_, err := u.RoundTrip(&routes.Route{Host: "slow.test", Port: port, Protocol: protocol}, "slow.test", get("/", 1), nobody{})
		var ue *UpstreamError
		if !errors.As(err, &ue) || ue.Stage != stage || !strings.Contains(err.Error(), "slow.test") {
			t.Errorf("%s: %v; want stage %s", protocol, err, stage)
		}
	}
}

func TestAuthority(t *testing.T) {
	for _, c := range []struct {
		r    routes.Route
		want string
	}{
		{routes.Route{Port: 443, Protocol: routes.HTTPS}, "a.test"},
		{routes.Route{Port: 8443, Protocol: routes.HTTPS}, "a.test:8443"},
		{routes.Route{Port: 80, Protocol: routes.HTTP}, "a.test"},
		{routes.Route{Port: 443, Protocol: routes.HTTP}, "a.test:443"},
	} {
		if got := authority("a.test", &c.r); got != c.want {
			t.Errorf("%+v: %s, want %s", c.r, got, c.want)
		}
	}
	if got := remoteOf(nil); got != (netip.AddrPort{}) {
		t.Errorf("no connection has the address %v", got)
	}
}
