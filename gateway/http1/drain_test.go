package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serveOne serves one connection and tells when that has ended.
func serveOne(t *testing.T, s *Server) (addr string, served <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			s.Serve(ctx, ctx, conn)
		}
	}()
	t.Cleanup(func() {
		cancel()
		l.Close()
		<-done
	})
	return l.Addr().String(), done
}

// TestDrainWaits shows how long the rest of a body is waited for that nobody read: if it comes in time, its connection is used again.
func TestDrainWaits(t *testing.T) {
	for name, drain := range map[string]time.Duration{"the rest comes": time.Hour, "it does not": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			addr, served := serveOne(t, &Server{Limits: Limits{Drain: drain}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, r.URL.Path)
			})})
			conn, in := dial(t, addr)
			io.WriteString(conn, "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\n"+strings.Repeat("x", 10))
			want := []string{"/1"}
			if drain > time.Minute {
				want = append(want, "/2")
			}
			for i, path := range want {
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				if b, _ := io.ReadAll(resp.Body); string(b) != path {
					t.Errorf("got %q, want %q", b, path)
				}
				if i == 0 && drain > time.Minute {
					io.WriteString(conn, strings.Repeat("x", 90)+"GET /2 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
				}
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("after the responses: %v, want EOF and no reset", err)
			}
			conn.Close()
			<-served
		})
	}
}

// TestLinger has a guest break the protocol and not close its side: it reads why, and is waited for as long as Drain says. What it sends
// meanwhile brings no reset.
func TestLinger(t *testing.T) {
	for name, drain := range map[string]time.Duration{"for a moment": 20 * time.Millisecond, "until it closes": time.Hour} {
		t.Run(name, func(t *testing.T) {
			addr, served := serveOne(t, &Server{Limits: Limits{Drain: drain}, Handler: http.NotFoundHandler()})
			conn, in := dial(t, addr)
			io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n") // no Host
			resp, err := http.ReadResponse(in, nil)
			if err != nil || resp.StatusCode != http.StatusBadRequest {
				t.Fatalf("got %v, %v", resp, err)
			}
			io.Copy(io.Discard, resp.Body)
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("after the response: %v, want EOF", err)
			}
			if drain > time.Minute {
				if _, err := conn.Write(make([]byte, 1<<20)); err != nil {
					t.Errorf("more from the guest: %v", err)
				}
				select {
				case <-served:
					t.Error("it did not wait for the guest")
				default:
				}
				conn.Close()
			}
			<-served
		})
	}
}
