package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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
