package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/dns"
	"gatewayd/gateway/http1"
	"gatewayd/gateway/routes"
)

// counts are what an upstream has of connections, and who waits for one.
func (u *upstream) counts() (open, openH2, waiting int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.open, u.openH2, u.waiting
}

// waitCounts waits until an upstream has so many connections, and so many requests that wait for one.
func waitCounts(t *testing.T, u *upstream, open, openH2, waiting int) {
	t.Helper()
	for end := time.Now().Add(testWait); ; time.Sleep(time.Millisecond) { // connections end in their own time, and tell nobody
		o, h, w := u.counts()
		if o == open && h == openH2 && w == waiting {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections, %d over HTTP/2, %d waiting; want %d, %d, %d", o, h, w, open, openH2, waiting)
		}
	}
}

// heldNames resolves a name when the test lets it.
type heldNames struct {
	lookup
	held string
	gate chan struct{}
}

func (n *heldNames) Lookup(ctx context.Context, name string) (dns.Answer, error) {
	if name == n.held {
		<-n.gate
	}
	return n.lookup.Lookup(ctx, name)
}

// TestPoolDroppedWhileItConnects has a pool dropped for being one of too many while its first connection is being made, to a server
// that is offered HTTP/2 and takes either: nothing of it stays counted.
func TestPoolDroppedWhileItConnects(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			w := newWorld(t, nil)
			w.names.set("a.wild.test", "127.0.0.1")
			cert := w.roots.leaf(t, time.Now().Add(time.Hour), "a.wild.test")
			o := newOriginOf(t, &cert, []string{protocol}, func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, r.Proto) })
			u := w.bare(Deadlines{})
			names := &heldNames{w.names, "a.wild.test", make(chan struct{})}
			u.dial.names = names
			route := &routes.Route{Host: "*.wild.test", Port: o.port, Protocol: routes.HTTPS}
			done := make(chan error, 1)
			go func() {
				resp, err := u.RoundTrip(route, "a.wild.test", get("/", 2), nobody{})
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				done <- err
			}()
			for began := false; !began; {
				u.mu.Lock()
				began = len(u.pools) == 1
				u.mu.Unlock()
			}
			for i := range maxPools {
				if _, err := u.pool(route, fmt.Sprintf("n%d.wild.test", i)); err != nil {
					t.Fatal(err)
				}
			}
			close(names.gate)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			u.close()
			waitCounts(t, u, 0, 0, 0)
		})
	}
}

// TestUpstreamCounts goes through the bounds of one bottle's connections, made small: what they let pass, what they keep, and what
// a request meets that comes on top.
func TestUpstreamCounts(t *testing.T) {
	wide := upstreamBounds{idlePerHost: 9, perHost: 9, perBottle: 9, h2: 9, waiting: 9, pools: 9, sessions: 9}
	type env struct {
		t    *testing.T
		u    *upstream
		hold func(host string, major int) *http.Response // a request whose response is begun
		fail func(host string, major int) error          // one that is not answered
	}
	end := func(rs ...*http.Response) {
		for _, r := range rs {
			_, _ = io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
	}
	for _, tt := range []struct {
		name   string
		narrow func(b *upstreamBounds)
		test   func(e env)
	}{
		{"connections to one host", func(b *upstreamBounds) { b.perHost = 2 }, func(e env) {
			rs := []*http.Response{e.hold("a.test", 1), e.hold("a.test", 1), e.hold("b.test", 1)}
			if err := e.fail("a.test", 1); !errors.Is(err, context.DeadlineExceeded) {
				e.t.Errorf("a third request got %v", err)
			}
			end(rs...)
		}},
		{"connections of the bottle", func(b *upstreamBounds) { b.perBottle = 2 }, func(e env) {
			rs := []*http.Response{e.hold("a.test", 1), e.hold("b.test", 2)}
			if err := e.fail("c.test", 1); !errors.Is(err, context.DeadlineExceeded) {
				e.t.Errorf("a third request got %v", err)
			}
			end(rs[0]) // now it is idle, and makes room
			end(e.hold("c.test", 1), rs[1])
		}},
		{"an idle one over HTTP/2 makes room", func(b *upstreamBounds) { b.perBottle = 1 }, func(e env) {
			end(e.hold("a.test", 2))
			waitCounts(e.t, e.u, 1, 1, 0)
			end(e.hold("b.test", 1))
			waitCounts(e.t, e.u, 1, 0, 0)
			end(e.hold("c.test", 2))
			waitCounts(e.t, e.u, 1, 1, 0)
		}},
		{"connections over HTTP/2", func(b *upstreamBounds) { b.h2 = 1 }, func(e env) {
			rs := []*http.Response{e.hold("a.test", 2), e.hold("a.test", 2), e.hold("b.test", 1)}
			waitCounts(e.t, e.u, 2, 1, 0)
			if err := e.fail("b.test", 2); !errors.Is(err, context.DeadlineExceeded) {
				e.t.Errorf("a second host over HTTP/2 got %v", err)
			}
			end(rs...)
			end(e.hold("b.test", 2))
			waitCounts(e.t, e.u, 2, 1, 0)
		}},
		{"requests that wait", func(b *upstreamBounds) { b.perBottle, b.waiting = 1, 0 }, func(e env) {
			r := e.hold("a.test", 1)
			for _, major := range []int{1, 2} {
				if err := e.fail("b.test", major); err == nil || errors.Is(err, context.DeadlineExceeded) {
					e.t.Errorf("a request that may not even wait got %v", err)
				}
			}
			end(r)
		}},
		{"idle connections of one host", func(b *upstreamBounds) { b.idlePerHost = 1 }, func(e env) {
			end(e.hold("a.test", 1), e.hold("b.test", 1))
			rs := []*http.Response{e.hold("a.test", 1), e.hold("a.test", 1)}
			waitCounts(e.t, e.u, 3, 0, 0)
			end(rs...)
			waitCounts(e.t, e.u, 2, 0, 0)
		}},
		{"pools", func(b *upstreamBounds) { b.pools = 2 }, func(e env) {
			r := e.hold("a.test", 2)
			for i := range 20 {
				if err := e.fail(fmt.Sprintf("none%d.test", i), 1); err == nil {
					e.t.Error("a name without an address was reached")
				}
			}
			e.u.mu.Lock()
			if n := len(e.u.pools); n > 2 {
				e.t.Errorf("%d pools are kept", n)
			}
			e.u.mu.Unlock()
			end(r)
		}},
		{"TLS sessions", func(b *upstreamBounds) { b.sessions = 1 }, func(e env) {
			end(e.hold("a.test", 1), e.hold("b.test", 1))
			kept := 0
			for _, host := range []string{"a.test", "b.test"} {
				for key := range e.u.pools {
					if _, ok := (&poolSessions{e.u.sessions, key.sessionPrefix()}).Get(host); ok {
						kept++
					}
				}
			}
			if kept != 1 {
				e.t.Errorf("%d sessions are kept, want one", kept)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			hosts := []string{"a.test", "b.test", "c.test"}
			cert := w.roots.leaf(t, time.Now().Add(time.Hour), hosts...)
			body := strings.Repeat("x", 4*upstreamStreamWindow) // so that it is under way until it is read
			o := newOrigin(t, &cert, func(rw http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(rw).Flush()
				_, _ = io.WriteString(rw, body)
			})
			for _, h := range hosts {
				w.names.set(h, "127.0.0.1")
			}
			u := w.bare(Deadlines{})
			u.bounds = wide
			tt.narrow(&u.bounds)
			u.sessions = tls.NewLRUClientSessionCache(u.bounds.sessions)
			routeFor := map[string]*routes.Route{}
			send := func(host string, major int) (*http.Response, error) {
				if routeFor[host] == nil {
					routeFor[host] = &routes.Route{Host: host, Port: o.port, Protocol: routes.HTTPS}
				}
				return u.RoundTrip(routeFor[host], host, get("/", major), nobody{})
			}
			tt.test(env{t: t, u: u,
				hold: func(host string, major int) *http.Response {
					t.Helper()
					resp, err := send(host, major)
					if err != nil {
						t.Fatalf("%s: %v", host, err)
					}
					return resp
				},
				fail: func(host string, major int) error {
					u.waits.Dial = 50 * time.Millisecond // of waiting for room; the dialer has its own
					defer func() { u.waits.Dial = DefaultDial }()
					resp, err := send(host, major)
					if err == nil {
						end(resp)
					}
					return err
				},
			})
			u.close()
			waitCounts(t, u, 0, 0, 0)
		})
	}
}

// TestResponseHeadsAreBounded has servers send heads without end, and one that is larger than it may be over HTTP/2: each is an
// error, and the rest is not read.
func TestResponseHeadsAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("a.test", "127.0.0.1")
	u := w.bare(Deadlines{})
	defer u.close()
	const enough = 64 << 20
	for name, c := range map[string]struct{ head, again string }{
		"fields":             {"HTTP/1.1 200 OK\r\n", "X-Field: value\r\n"},
		"a field":            {"HTTP/1.1 200 OK\r\nX-Field: ", "value"},
		"the status line":    {"HTTP/1.1 200 ", "OK"},
		"interim responses":  {"", "HTTP/1.1 103 Early Hints\r\n\r\n"},
		"trailers of a body": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-Field: value\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan int, 1)
			port := serveEach(t, "127.0.0.1", func(conn *net.TCPConn) {
				n := 0
				defer func() { sent <- n }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				for text := c.head; n < enough; text = strings.Repeat(c.again, 1+4096/len(c.again)) {
					m, err := io.WriteString(conn, text)
					if n += m; err != nil {
						return
					}
				}
			})
			resp, err := u.RoundTrip(&routes.Route{Host: "a.test", Port: port, Protocol: routes.HTTP}, "a.test", get("/", 1), nobody{})
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			var protocol *http1.ProtocolError
			if !errors.As(err, &protocol) {
				t.Errorf("got %v; want an error of HTTP", err)
			}
			if n := <-sent; n >= enough {
				t.Error("all of it was read")
			}
		})
	}
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "a.test")
	o := newOrigin(t, &cert, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("X-Field", strings.Repeat("a", 2*maxResponseHeadBytes))
	})
	if resp, err := u.RoundTrip(&routes.Route{Host: "a.test", Port: o.port, Protocol: routes.HTTPS}, "a.test", get("/", 2), nobody{}); err == nil {
		resp.Body.Close()
		t.Error("a head over HTTP/2 that is too large was taken")
	}
}
