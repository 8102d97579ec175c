package http1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// start serves connections of a loopback listener until the test ends and returns its address.
func start(t testing.TB, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.Serve(ctx, ctx, conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// client is a client whose connections end with the test.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{ExpectContinueTimeout: 10 * time.Second, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// dial opens a connection on which a test speaks for itself.
func dial(t testing.TB, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

// fetch does one request and returns its response with the body read.
func fetch(t testing.TB, c *http.Client, r *http.Request) (*http.Response, string) {
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

// request makes a request to addr.
func request(t testing.TB, method, addr string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+addr+"/x?y=z", body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServeForms(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.Header.Get("Want") {
		case "small":
			io.WriteString(w, "small")
		case "length":
			h.Set("Content-Length", "5")
			io.WriteString(w, "12345")
		case "large":
			io.WriteString(w, strings.Repeat("x", 100_000))
		case "flushed":
			io.WriteString(w, "a")
			w.(http.Flusher).Flush()
			io.WriteString(w, "b")
		case "204":
			h.Set("Content-Length", "0")
			w.WriteHeader(204)
		case "304":
			h.Set("Content-Length", "7")
			w.WriteHeader(304)
		case "echo":
			io.Copy(w, r.Body)
		case "none":
		}
	})
	addr := start(t, &Server{Handler: handler})
	c := client(t)
	tests := []struct {
		method, want string
		body         io.Reader
		status       int
		content      string
		length       int64
	}{
		{"GET", "small", nil, 200, "small", 5},
		{"GET", "length", nil, 200, "12345", 5},
		{"GET", "large", nil, 200, strings.Repeat("x", 100_000), -1},
		{"GET", "flushed", nil, 200, "ab", -1},
		{"GET", "204", nil, 204, "", 0},
		{"GET", "304", nil, 304, "", 0}, // the client does not look at its length
		{"GET", "none", nil, 200, "", 0},
		{"HEAD", "length", nil, 200, "", 5},
		{"HEAD", "large", nil, 200, "", -1},
		{"POST", "echo", strings.NewReader("abc"), 200, "abc", 3},
		{"POST", "echo", io.MultiReader(strings.NewReader(strings.Repeat("abc", 50_000))), 200, strings.Repeat("abc", 50_000), -1},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.want, func(t *testing.T) {
			r := request(t, tt.method, addr, tt.body)
			r.Header.Set("Want", tt.want)
			resp, content := fetch(t, c, r)
			if resp.StatusCode != tt.status || content != tt.content || resp.ContentLength != tt.length {
				t.Errorf("got %d, %d bytes, length %d; want %d, %d bytes, length %d", resp.StatusCode, len(content), resp.ContentLength, tt.status, len(tt.content), tt.length)
			}
			if resp.Header.Get("Date") == "" {
				t.Error("no Date (RFC 9110 section 6.6.1)")
			}
		})
	}
}

// TestServeOneWrite shows that a small response, head and body, is one write to the connection.
func TestServeOneWrite(t *testing.T) {
	for _, want := range []string{"undeclared", "declared"} {
		conn := &scriptConn{in: strings.NewReader("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")}
		s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if want == "declared" {
				w.Header().Set("Content-Length", "1024")
			}
			w.Write(make([]byte, 1024))
		})}
		if err := s.Serve(context.Background(), context.Background(), conn); err != nil {
			t.Fatal(err)
		}
		if conn.writes != 1 {
			t.Errorf("%s: %d writes, want 1", want, conn.writes)
		}
	}
}

func TestServePipelined(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, b)
	})})
	conn, in := dial(t, addr)
	io.WriteString(conn, "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nabGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /3 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	for _, want := range []string{"/1 ab", "/2 ", "/3 "} {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != want {
			t.Errorf("got %q, want %q", b, want)
		}
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last response: %v, want EOF", err)
	}
}

func TestServeOldVersion(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(103)
		io.WriteString(w, "a")
		if r.URL.Path == "/flush" {
			w.(http.Flusher).Flush()
			io.WriteString(w, "b")
		}
	})})
	conn, in := dial(t, addr)
	io.WriteString(conn, "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\nGET /flush HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 200 || resp.ContentLength != 1 || resp.Header.Get("Connection") != "keep-alive" {
		t.Fatalf("kept response: %+v, %v", resp, err)
	}
	io.Copy(io.Discard, resp.Body)
	resp, err = http.ReadResponse(in, nil)
	if err != nil || len(resp.TransferEncoding) > 0 || !resp.Close {
		t.Fatalf("streamed response: %+v, %v", resp, err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "ab" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestServeDuplex echoes a body while it is being sent, without whole buffering anywhere.
func TestServeDuplex(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 10)
		w.(http.Flusher).Flush()
		for {
			n, err := r.Body.Read(b)
			w.Write(b[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	})})
	out, in := io.Pipe()
	resp, err := client(t).Do(request(t, "POST", addr, out))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 5 {
		fmt.Fprintf(in, "ping%d", i)
		b := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != fmt.Sprintf("ping%d", i) {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	in.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestServeLargeBothWays(t *testing.T) {
	const size = 64 << 20
	up := sha256.New()
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(up, r.Body)
		if n != size || err != nil {
			t.Errorf("received %d bytes, %v", n, err)
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.Copy(w, io.LimitReader(pattern{}, size))
	})})
	for _, declared := range []int64{size, -1} {
		up.Reset()
		r := request(t, "POST", addr, io.LimitReader(pattern{}, size))
		r.ContentLength = declared
		resp, err := client(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		down := sha256.New()
		if n, err := io.Copy(down, resp.Body); n != size || err != nil {
			t.Errorf("got %d bytes, %v", n, err)
		}
		resp.Body.Close()
		if !bytes.Equal(up.Sum(nil), down.Sum(nil)) {
			t.Error("what went up and what came down differ")
		}
	}
}

// pattern is an endless body.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i * 7)
	}
	return len(p), nil
}

func TestServeInterim(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(103)
		w.Header().Del("Link")
		w.WriteHeader(102)
		w.WriteHeader(201)
		w.WriteHeader(500)
		io.WriteString(w, "x")
	})})
	var got []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		got = append(got, fmt.Sprint(code, h["Link"]))
		return nil
	}}
	r := request(t, "GET", addr, nil)
	resp, _ := fetch(t, client(t), r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if want := []string{"103 [</a>; rel=preload]", "102 []"}; fmt.Sprint(got) != fmt.Sprint(want) || resp.StatusCode != 201 {
		t.Errorf("got %q then %d, want %q then 201", got, resp.StatusCode, want)
	}
}

func TestServeExpect(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(413)
			return
		}
		io.Copy(w, r.Body)
	})})
	conn, in := dial(t, addr)
	io.WriteString(conn, "POST /take HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
	if line, _ := in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, want 100", line)
	}
	in.ReadString('\n')
	io.WriteString(conn, "abcPOST /refuse HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "abc" {
		t.Errorf("got %q", b)
	}
	resp, err = http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 413 || !resp.Close {
		t.Errorf("got %+v, %v; want 413 and an end, since nobody knows whether the body comes", resp, err)
	}
}

func TestServeTrailers(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		content, _ := io.ReadAll(r.Body)
		w.Write(content)
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "late")
		w.Header().Set(http.TrailerPrefix+"Content-Length", "7")
	})})
	r := request(t, "POST", addr, io.MultiReader(strings.NewReader("abc")))
	r.Trailer = http.Header{"X-Sum": {"sum"}}
	resp, content := fetch(t, client(t), r)
	if content != "abc" || resp.Header.Get("X-Sum") != "" || fmt.Sprint(resp.Trailer) != "map[X-Late:[late] X-Sum:[sum]]" {
		t.Errorf("got %q, header %v, trailer %v", content, resp.Header, resp.Trailer)
	}
}

func TestServeHijack(t *testing.T) {
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(101)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("write after hijack: %v", err)
		}
		line, _ := rw.ReadString('\n')
		fmt.Fprintf(conn, "echo %s", line)
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

// TestServeUnreadBody shows what becomes of a connection whose handler left the body unread.
func TestServeUnreadBody(t *testing.T) {
	s := &Server{Limits: Limits{DrainBytes: 1000}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path)
	})}
	addr := start(t, s)
	t.Run("short", func(t *testing.T) {
		conn, in := dial(t, addr)
		io.WriteString(conn, "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n"+strings.Repeat("x", 1000)+"GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n")
		for _, want := range []string{"/1", "/2"} {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(resp.Body); string(b) != want || resp.Close {
				t.Errorf("got %q, close %v; want %q", b, resp.Close, want)
			}
		}
	})
	t.Run("long", func(t *testing.T) {
		conn, in := dial(t, addr)
		io.WriteString(conn, "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 2000))
		resp, err := http.ReadResponse(in, nil)
		if err != nil || !resp.Close {
			t.Fatalf("got %+v, %v; want an end", resp, err)
		}
		io.Copy(io.Discard, resp.Body)
		if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("after the response: %v, want EOF and no reset", err)
		}
	})
}

// TestServeBodyAfterEnd shows that a Read which outlives its request ends, and that one after it gives nothing.
func TestServeBodyAfterEnd(t *testing.T) {
	results := make(chan error, 2)
	reading := make(chan struct{})
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		go func() {
			b := make([]byte, 4)
			io.ReadFull(r.Body, b)
			close(reading)
			_, err := r.Body.Read(b)
			results <- err
			_, err = r.Body.Read(b)
			results <- err
		}()
		<-reading
		io.WriteString(w, "early")
	})}
	conn, in := dial(t, start(t, s))
	io.WriteString(conn, "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nabcd")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "early" {
		t.Errorf("got %q", b)
	}
	for range 2 {
		if err := <-results; !errors.Is(err, ErrBodyClosed) {
			t.Errorf("read after the end: %v", err)
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

// TestServeRefusal shows that a refusal is told to the guest, and to ErrorBody once.
func TestServeRefusal(t *testing.T) {
	var calls atomic.Int32
	s := &Server{
		Handler: http.NotFoundHandler(),
		ErrorBody: func(_ context.Context, err *ProtocolError) (string, []byte) {
			calls.Add(1)
			return "application/problem+json", []byte(`{"reason":"` + err.Reason + `"}`)
		},
	}
	conn, in := dial(t, start(t, s))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 400 || !resp.Close || resp.Header.Get("Content-Type") != "application/problem+json" || string(b) != `{"reason":"field_name"}` || calls.Load() != 1 {
		t.Errorf("got %+v %q after %d calls", resp, b, calls.Load())
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the refusal: %v, want EOF", err)
	}
}

// TestServeHeaderInjection shows that no value can end its line, and no name can be anything but a token.
func TestServeHeaderInjection(t *testing.T) {
	conn := &scriptConn{in: strings.NewReader("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")}
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X"] = []string{"a\r\nSet-Cookie: b"}
		w.Header()["Bad Name"] = []string{"c"}
		w.Header()["Transfer-Encoding"] = []string{"gzip"}
		w.Header()["Content-Length"] = []string{"1", "2"}
	})}
	if err := s.Serve(context.Background(), context.Background(), conn); err != nil {
		t.Fatal(err)
	}
	out := conn.out.String()
	if !strings.Contains(out, "\r\nX: a  Set-Cookie: b\r\n") || strings.Contains(out, "Bad Name") || strings.Contains(out, "gzip") || !strings.Contains(out, "\r\nContent-Length: 0\r\n") {
		t.Errorf("wrote %q", out)
	}
}
