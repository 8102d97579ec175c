package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gatewayd/gateway/routes"
)

// stopping begins to shut the stage's gateway down, which ctx bounds, and returns what it will say. It returns when the
// bottle takes no new flow.
func (s *stage) stopping(ctx context.Context, t testing.TB) <-chan error {
	t.Helper()
	b, done := s.bottle("dev"), make(chan error, 1)
	go func() { done <- s.g.Shutdown(ctx) }()
	select {
	case <-b.taking.Done():
	case <-soon(t).Done():
		t.Fatal("the gateway does not begin to stop")
	}
	return done
}

// TestStopLetsRequestsFinish: a request that is under way when the gateway stops is answered as a whole, over HTTP/1.1 with
// the word that it was the last of its connection, and the stop waits for it; nothing new is taken.
func TestStopLetsRequestsFinish(t *testing.T) {
	bothVersions(t, func(t *testing.T, h2 bool) {
		begun, finish := make(chan struct{}), make(chan struct{})
		s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-finish
			io.WriteString(w, "the whole answer")
		})
		type answer struct {
			resp *http.Response
			body string
			err  error
		}
		answered := make(chan answer, 1)
		client := s.client(t, h2)
		request := s.ask(t, "GET", "/slow", nil)
		go func() {
			resp, err := client.Do(request)
			if err != nil {
				answered <- answer{err: err}
				return
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			answered <- answer{resp, string(body), err}
		}()
		<-begun
		done := s.stopping(soon(t), t)
		if c, err := s.sockets.tryCall(t, s.b.Link, anywhere(s.port)); err == nil {
			c.SetDeadline(time.Now().Add(testWait))
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a connection was taken during the stop")
			}
			c.Close()
		}
		select {
		case err := <-done:
			t.Fatalf("the stop did not wait for the request: %v", err)
		default:
		}
		close(finish)
		a := <-answered
		if a.err != nil || a.body != "the whole answer" {
			t.Fatalf("body %q, %v; want the whole answer", a.body, a.err)
		}
		if !h2 && !a.resp.Close {
			t.Error("the response does not say that its connection ends")
		}
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

// TestStopClosesIdleConnections: connections on which nothing is under way do not hold up a stop.
func TestStopClosesIdleConnections(t *testing.T) {
	s := newStage(t, nil, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	used, in := s.raw(t, "api.test", s.port)
	if _, err := io.WriteString(used, "GET / HTTP/1.1\r\nHost: "+fmt.Sprintf("api.test:%d", s.port)+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp, body := readResponse(t, in); resp.StatusCode != 200 || body != "ok" {
		t.Fatalf("%d %q", resp.StatusCode, body)
	}
	fresh, _ := s.raw(t, "api.test", s.port)
	silent := s.sockets.call(t, s.b.Link, anywhere(443)) // has not sent its hello
	s.waitOpen(t, func(i FlowInfo) bool { return i.Dst.Port() == 443 })
	overH2 := s.client(t, true)
	do(t, overH2, s.ask(t, "GET", "/", nil))
	if err := <-s.stopping(soon(t), t); err != nil {
		t.Fatalf("stop: %v", err)
	}
	for name, c := range map[string]net.Conn{"used": used, "fresh": fresh} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s connection: %v; want an end in order", name, err)
		}
	}
	if _, err := silent.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("silent connection: %v; want a RST", err)
	}
}

// TestStopClosesWebSockets: both ends of a WebSocket connection are told why it ends.
func TestStopClosesWebSockets(t *testing.T) {
	overBoth(t, func(t *testing.T, streams bool) {
		s := newEcho(t, nil)
		s.streams = streams
		c, _, err := s.dialWS(t, "/chat", nil)
		if err != nil {
			t.Fatal(err)
		}
		read(t, c)
		done := s.stopping(soon(t), t)
		var closed websocket.CloseError
		if _, _, err := c.Read(soon(t)); !errors.As(err, &closed) || closed.Code != websocket.StatusGoingAway {
			t.Errorf("guest: %v; want a close frame with 1001", err)
		}
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
		if r := s.request(t, func(r Record) bool { return r.Path == "/chat" }); r.Status != s.opened() || r.Error != "" {
			t.Errorf("record %+v; want an upgrade without an error", r)
		}
	})
}

// TestStopEndsAtItsDeadline: what does not end is cut off, and the stop says so.
func TestStopEndsAtItsDeadline(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("pass.test", "127.0.0.1")
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	s := &stage{world: w, port: port, b: testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true})}
	w.apply(t, s.b)
	relayed := w.sockets.call(t, s.b.Link, anywhere(port))
	if _, err := relayed.Write(clientHello(t, "pass.test")); err != nil {
		t.Fatal(err)
	}
	w.waitOpen(t, func(i FlowInfo) bool { return i.Upstream.IsValid() })
	ctx, cancel := context.WithCancel(soon(t))
	done := s.stopping(ctx, t)
	if _, err := relayed.Write([]byte("more")); err != nil {
		t.Errorf("a relay was ended before the deadline: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 flows") {
		t.Errorf("stop: %v; want it to say that one flow was cut", err)
	}
	if _, err := relayed.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("relay: %v; want a RST", err)
	}
	if r := w.records.flowOf(t, relayed); r.Reason != ReasonShut {
		t.Errorf("record %+v; want it shut", r)
	}
}
