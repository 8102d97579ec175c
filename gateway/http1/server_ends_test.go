package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// handover is what the writer of a response can do.
type handover interface {
	Handover(next func(conn net.Conn, rest []byte)) error
}

// TestServeHandover has a connection go on in another protocol, when its handler has returned.
func TestServeHandover(t *testing.T) {
	var returned atomic.Bool
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer returned.Store(true)
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(101)
		err := w.(handover).Handover(func(conn net.Conn, rest []byte) {
			defer conn.Close()
			if !returned.Load() {
				t.Error("the handler has not returned")
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			fmt.Fprintf(conn, "echo %s%s", rest, line)
		})
		if err != nil {
			t.Error(err)
		}
		if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("write after handover: %v", err)
		}
		if err := w.(handover).Handover(nil); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("second handover: %v", err)
		}
	})})
	conn, in := dial(t, addr)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ")
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "echo" || resp.Header.Get("Connection") != "Upgrade" || resp.Header.Get("Date") != "" {
		t.Fatalf("got %+v, %v", resp, err)
	}
	io.WriteString(conn, "late\n")
	if line, _ := in.ReadString('\n'); line != "echo early late\n" {
		t.Errorf("got %q", line)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection goes on: %v", err)
	}
}

// TestServeHandoverPanics has a handler panic that has handed its connection over: the connection ends, and nobody goes on with it.
func TestServeHandoverPanics(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := w.(handover).Handover(func(net.Conn, []byte) { t.Error("the connection went on") }); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	})})
	conn, in := dial(t, addr)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if _, err := in.ReadByte(); err == nil {
		t.Error("the connection is open")
	}
}

// TestServeGuestLeaves shows that a request's context ends when its guest does, with and without a body, and behind other requests.
func TestServeGuestLeaves(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan error)
	s := &Server{Limits: Limits{Watch: 5 * time.Millisecond}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			return
		}
		io.Copy(io.Discard, r.Body)
		entered <- struct{}{}
		<-r.Context().Done()
		ended <- r.Context().Err()
	})}
	addr := start(t, s)
	for _, raw := range []string{
		"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc",
		chunkedHead + "1\r\na\r\n0\r\n\r\n",
		"GET /short HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	} {
		conn, _ := dial(t, addr)
		io.WriteString(conn, raw)
		<-entered
		conn.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("the context went on after the guest left: %q", raw)
		}
	}
}

// TestServeWatchKeepsBytes shows that bytes which come while the connection is watched are the next request's.
func TestServeWatchKeepsBytes(t *testing.T) {
	proceed := make(chan struct{})
	s := &Server{Limits: Limits{Watch: time.Millisecond}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1" {
			<-proceed
		}
		io.WriteString(w, r.URL.Path)
	})}
	conn, in := dial(t, start(t, s))
	io.WriteString(conn, "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
	time.AfterFunc(20*time.Millisecond, func() {
		io.WriteString(conn, "GET /2 HTTP/1.1\r\nHost: a.test\r\n")
		time.AfterFunc(20*time.Millisecond, func() { close(proceed); io.WriteString(conn, "\r\n") })
	})
	for _, want := range []string{"/1", "/2"} {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != want {
			t.Errorf("got %q, want %q", b, want)
		}
	}
}

// TestServeAborted shows that the guest can tell a response that was cut off from a whole one.
func TestServeAborted(t *testing.T) {
	var log lockedBuffer
	s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil)), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", "100")
		}
		io.WriteString(w, "some")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/panic" {
			panic("a bug")
		}
		if r.URL.Path != "/length" {
			panic(http.ErrAbortHandler)
		}
	})}
	addr := start(t, s)
	for _, path := range []string{"/chunked", "/length", "/panic"} {
		resp, err := client(t).Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "some" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %q, %v; want some and an unexpected end", path, b, err)
		}
		resp.Body.Close()
	}
	if s := log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "a bug") {
		t.Errorf("log %q, want the one panic", s)
	}
}

// lockedBuffer takes a log from several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
