package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestServeDeadlines(t *testing.T) {
	s := &Server{
		Limits: Limits{Head: 50 * time.Millisecond, Idle: 50 * time.Millisecond, BodyIdle: 50 * time.Millisecond},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			var protocol *ProtocolError
			if errors.As(err, &protocol) {
				w.WriteHeader(protocol.Status)
			}
		}),
	}
	addr := start(t, s)
	for _, tt := range []struct {
		name, raw string
		status    int // 0: nothing is said
	}{
		{"idle", "", 0},
		{"slow head", "GET / HTT", 408},
		{"slow body", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nabc", 408},
		{"slow chunks", chunkedHead + "5\r\nab", 408},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, in := dial(t, addr)
			io.WriteString(conn, tt.raw)
			resp, err := http.ReadResponse(in, nil)
			if tt.status == 0 {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("got %+v, %v; want an end", resp, err)
				}
				return
			}
			if err != nil || resp.StatusCode != tt.status {
				t.Errorf("got %+v, %v; want %d", resp, err, tt.status)
			}
		})
	}
}

// TestPace holds bodies that come in pieces against a grace of 2 s and a rate of 100 bytes per second.
func TestPace(t *testing.T) {
	type piece struct {
		n      int
		waited time.Duration
	}
	for _, tt := range []struct {
		name   string
		pieces []piece
		slow   bool // the last one makes it too slow
	}{
		{"nothing within the grace", []piece{{1, time.Second}, {1, time.Second}}, false},
		{"beyond the grace at the rate", []piece{{1, 2 * time.Second}, {99, time.Second}, {100, time.Second}}, false},
		{"one byte less", []piece{{1, 2 * time.Second}, {99, time.Second}, {99, time.Second}}, true},
		{"fast at first", []piece{{1000, time.Second}, {1, 11 * time.Second}}, false},
		{"fast at first, but not for ever", []piece{{1000, time.Second}, {1, 11 * time.Second}, {1, time.Second}}, true},
		{"a byte a second", []piece{{1, time.Second}, {1, time.Second}, {1, time.Second}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Limits{BodyGrace: 2 * time.Second, BodyRate: 100}.Pace()
			for i, c := range tt.pieces {
				err := p.Count(c.n, c.waited)
				want := tt.slow && i == len(tt.pieces)-1
				var protocol *ProtocolError
				if got := errors.As(err, &protocol); got != want || got && (protocol.Reason != ReasonSlowBody || protocol.Status != http.StatusRequestTimeout) {
					t.Fatalf("piece %d: %v; too slow is %t", i, err, want)
				}
			}
		})
	}
}

// TestServeBodyRate sends a body byte by byte, over and over, to a server with no grace: it is refused although no read waits for
// long. The same guest is served at a rate that it reaches.
func TestServeBodyRate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		want   Reason
	}{
		{"too slow", Limits{BodyGrace: time.Nanosecond, BodyRate: 1 << 40}, ReasonSlowBody},
		{"fast enough", Limits{BodyGrace: time.Nanosecond, BodyRate: 1}, ""},
		{"within the grace", Limits{BodyGrace: time.Hour, BodyRate: 1 << 40}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			go func() {
				for i := range 64 {
					if _, err := io.WriteString(far, "x"); err != nil || i == 63 {
						far.Close()
						return
					}
				}
			}()
			lim := tt.limits.withDefaults()
			r := &reader{conn: near, pool: &buffers{size: readBuffer}}
			b, err := io.ReadAll(newBody(r, &lim, framing{length: 64}, nil))
			var protocol *ProtocolError
			if errors.As(err, &protocol); tt.want == "" && (err != nil || len(b) != 64) || tt.want != "" && (protocol == nil || protocol.Reason != tt.want) {
				t.Errorf("got %d bytes, %v; want reason %q", len(b), err, tt.want)
			}
		})
	}
}

// TestServeGuestDoesNotRead shows that a guest which does not read holds a handler no longer than the write deadline.
func TestServeGuestDoesNotRead(t *testing.T) {
	ended := make(chan error, 1)
	s := &Server{Limits: Limits{Write: 50 * time.Millisecond}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(w, pattern{})
		ended <- err
	})}
	conn, _ := dial(t, start(t, s))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if err := <-ended; !isTimeout(err) {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestServeContextEnds(t *testing.T) {
	entered := make(chan struct{})
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})}
	near, far := net.Pipe()
	defer near.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ctx, far) }()
	io.WriteString(near, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	<-entered
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve returned %v, want nil", err)
	}
}
