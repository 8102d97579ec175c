package http1

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

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
