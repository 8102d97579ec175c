package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// closer is a server that answers the first request of each connection, and at the second one ends the connection at some
// point. It counts the heads of requests that it was sent.
type closer struct {
	port  uint16
	heads atomic.Int64
	idle  chan struct{} // told when a connection was closed that was not in use
}

// Where a connection ends.
const (
	endIdle       = "while it is idle"
	endAtOnce     = "before a byte of the response"
	endInHead     = "in the head"
	endInBody     = "in the body"
	endInChunks   = "in the chunks"
	endByReset    = "by a reset before a byte of the response"
	endAfterReply = "behind the response"
	endUnasked    = "after a response that nobody asked for"
)

func newCloser(t *testing.T, at string, first bool) *closer {
	c := &closer{idle: make(chan struct{}, 8)}
	c.port = serveEach(t, "127.0.0.1", func(conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		for n := 0; ; n++ {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			c.heads.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			if n == 0 && !first {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				switch at {
				case endIdle:
					conn.Close()
					c.idle <- struct{}{}
					return
				case endUnasked:
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
					c.idle <- struct{}{}
				}
				continue
			}
			switch at {
			case endInHead:
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-")
			case endInBody:
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
			case endInChunks:
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
			case endByReset:
				reset(conn)
			case endAfterReply:
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			case endUnasked:
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				continue
			}
			return
		}
	})
	return c
}

// TestNoRequestIsLostOrSentTwice ends connections at every point, unused ones and used ones. Only a request that is safe,
// has no body, and met the end of a used connection before a byte of a response, is sent again.
func TestNoRequestIsLostOrSentTwice(t *testing.T) {
	for _, tt := range []struct {
		at     string
		fresh  bool // the connection that ends has not been used before
		method string
		body   string
		heads  int64 // requests that the server is sent of the one, at most
		answer bool  // the guest has a whole response
	}{
		{endIdle, false, "GET", "", 1, true},
		{endIdle, false, "POST", "", 1, true},
		{endIdle, false, "POST", "body", 1, true},
		{endUnasked, false, "GET", "", 1, true},
		{endUnasked, false, "POST", "body", 1, true},
		{endAtOnce, false, "GET", "", 2, true},
		{endAtOnce, false, "HEAD", "", 2, true},
		{endAtOnce, false, "POST", "", 1, false},
		{endAtOnce, false, "PUT", "body", 1, false},
		{endAtOnce, false, "DELETE", "", 1, false},
		{endAtOnce, false, "GET", "body", 1, false},
		{endAtOnce, true, "GET", "", 1, false},
		{endAtOnce, true, "POST", "body", 1, false},
		{endByReset, false, "GET", "", 2, true},
		{endByReset, false, "POST", "body", 1, false},
		{endInHead, false, "GET", "", 1, false},
		{endInHead, true, "GET", "", 1, false},
		{endInHead, false, "POST", "body", 1, false},
		{endInBody, false, "GET", "", 1, false},
		{endInBody, false, "POST", "body", 1, false},
		{endInChunks, false, "GET", "", 1, false},
		{endAfterReply, false, "GET", "", 1, true},
		{endAfterReply, false, "POST", "body", 1, true},
	} {
		name := tt.method + " " + tt.at
		if tt.body != "" {
			name += ", with a body"
		}
		if tt.fresh {
			name += ", unused"
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.names.set("plain.test", "127.0.0.1")
			c := newCloser(t, tt.at, tt.fresh)
			u := w.bare(Deadlines{})
			defer u.close()
			route := &routes.Route{Host: "plain.test", Port: c.port, Protocol: routes.HTTP}
			exchange := func(method, body string) (string, error) {
				req := get("/", 1)
				req.Method = method
				if body != "" {
					req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
				}
				resp, err := u.RoundTrip(route, "plain.test", req, nobody{})
				if err != nil {
					return "", err
				}
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				return string(b), err
			}
			if !tt.fresh {
				if _, err := exchange("GET", ""); err != nil {
					t.Fatal(err)
				}
				if tt.at == endIdle || tt.at == endUnasked {
					<-c.idle
					waitUnquiet(t, u)
				}
			}
			before := c.heads.Load()
			answer, err := exchange(tt.method, tt.body)
			if tt.answer && (err != nil || answer != "ok" && tt.method != "HEAD") {
				t.Errorf("got %q, %v; want a whole response", answer, err)
			}
			if !tt.answer && err == nil {
				t.Errorf("got %q as a whole response", answer)
			}
			if got := c.heads.Load() - before; got > tt.heads {
				t.Errorf("the server was sent the request %d times, want at most %d", got, tt.heads)
			}
		})
	}
}

// waitUnquiet waits until what the server did to the one idle connection has arrived, or was seen before it was idle.
func waitUnquiet(t *testing.T, u *upstream) {
	t.Helper()
	end := time.Now().Add(testWait)
	for time.Now().Before(end) {
		u.mu.Lock()
		for _, p := range u.pools {
			if len(p.idle) == 0 || !p.idle[0].wire.Quiet() {
				u.mu.Unlock()
				return
			}
		}
		u.mu.Unlock()
		time.Sleep(time.Millisecond) // there is no event for what arrives at a socket that nobody reads
	}
	t.Fatal("the end of the connection did not arrive")
}

// TestUpstreamBounds shows that a request waits for a connection when all are in use, that it gets one as soon as one is
// free, and that connections are counted to the end.
func TestUpstreamBounds(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("plain.test", "127.0.0.1")
	o := newOrigin(t, nil, func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, "ok") })
	u := w.bare(Deadlines{Dial: testWait})
	defer u.close()
	route := &routes.Route{Host: "plain.test", Port: o.port, Protocol: routes.HTTP}
	first, err := u.RoundTrip(route, "plain.test", get("/", 1), nobody{})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := u.pool(route, "plain.test")
	u.mu.Lock()
	p.open += maxConnsPerHost - 1 // as if they were in use
	u.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		resp, err := u.RoundTrip(route, "plain.test", get("/", 1), nobody{})
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		done <- err
	}()
	for waiting := false; !waiting; {
		u.mu.Lock()
		waiting = u.waiting == 1
		u.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, first.Body)
	first.Body.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := o.conns.Load(); n != 1 {
		t.Errorf("%d connections, want the one that was freed", n)
	}
	u.mu.Lock()
	p.open -= maxConnsPerHost - 1
	u.mu.Unlock()
	u.close()
	if u.open != 0 || p.open != 0 || u.waiting != 0 {
		t.Errorf("%d and %d connections and %d waiting are still counted", u.open, p.open, u.waiting)
	}
}

// TestUpstreamSweepsIdle shows that idle connections end by themselves.
func TestUpstreamSweepsIdle(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("plain.test", "127.0.0.1")
	o := newOrigin(t, nil, func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, "ok") })
	u := w.bare(Deadlines{UpstreamIdle: 20 * time.Millisecond})
	defer u.close()
	resp, err := u.RoundTrip(&routes.Route{Host: "plain.test", Port: o.port, Protocol: routes.HTTP}, "plain.test", get("/", 1), nobody{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	for open := 1; open > 0; {
		u.mu.Lock()
		open = u.open
		u.mu.Unlock()
		time.Sleep(time.Millisecond) // the sweeper tells nobody
	}
}
