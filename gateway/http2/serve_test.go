package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestAnswers asks for answers of every shape on one connection and looks at the frames.
func TestAnswers(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	s := serverOf(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/empty":
		case "/small":
			io.WriteString(w, "small")
		case "/long":
			w.Write(long)
		case "/pieces":
			for range 5 {
				io.WriteString(w, "piece ")
				w.(http.Flusher).Flush()
			}
		case "/none":
			w.WriteHeader(http.StatusNoContent)
			if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("a body of 204 gives %v", err)
			}
		case "/trailers":
			w.Header().Set("Trailer", "X-Announced")
			io.WriteString(w, "body")
			w.Header().Set("X-Announced", "a")
			w.Header().Set(http.TrailerPrefix+"X-Late", "b")
		case "/only":
			w.Header().Set(http.TrailerPrefix+"X-Late", "b")
		case "/short":
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "short")
		case "/over":
			w.Header().Set("Content-Length", "2")
			if _, err := io.WriteString(w, "over"); !errors.Is(err, http.ErrContentLength) {
				t.Errorf("a body beyond its length gives %v", err)
			}
			io.WriteString(w, "ok")
		case "/hints":
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
		case "/abort":
			io.WriteString(w, "something")
			panic(http.ErrAbortHandler)
		case "/defect":
			panic("a defect")
		}
	})
	for _, c := range []struct {
		method, path, status, body string
		trailers                   int
		code                       http2.ErrCode // of its reset
	}{
		{"GET", "/empty", "200", "", 0, 0},
		{"GET", "/small", "200", "small", 0, 0},
		{"HEAD", "/small", "200", "", 0, 0},
		{"GET", "/long", "200", string(long), 0, 0},
		{"GET", "/pieces", "200", strings.Repeat("piece ", 5), 0, 0},
		{"GET", "/none", "204", "", 0, 0},
		{"GET", "/trailers", "200", "body", 2, 0},
		{"GET", "/only", "200", "", 1, 0},
		{"GET", "/short", "200", "short", 0, http2.ErrCodeInternal},
		{"GET", "/over", "200", "ok", 0, 0},
		{"GET", "/hints", "103", "", 1, 0}, // the final head is taken for trailers by this client
		{"GET", "/abort", "200", "something", 0, http2.ErrCodeInternal},
		{"GET", "/defect", "", "", 0, http2.ErrCodeInternal},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			p := newPeer(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
			p.must(0, p.WriteWindowUpdate(0, 1<<20))
			p.ask(1, c.method, c.path, true)
			a := p.answers(1)[1]
			if c.path == "/abort" && a.status == "" { // nothing of it had left
				c.status, c.body = "", ""
			}
			if a.status != c.status || string(a.body) != c.body && c.code == 0 || (len(a.trailer) > 0) != (c.trailers > 0) {
				t.Errorf("got %s with %d bytes and trailers %v", a.status, len(a.body), a.trailer)
			}
			if a.reset != (c.code != 0) || a.code != c.code {
				t.Errorf("reset %v with %v, want %v", a.reset, a.code, c.code)
			}
		})
	}
}

// TestSmallAnswerIsOneFrameLess has a whole answer end with its last bytes, and one without a body with its head.
func TestSmallAnswerIsOneFrameLess(t *testing.T) {
	p := newPeer(t, serverOf(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Trim(r.URL.Path, "/")) }))
	p.ask(1, "GET", "/x", true)
	if next[*http2.MetaHeadersFrame](p).StreamEnded() {
		t.Error("the head ends the stream")
	}
	if f := next[*http2.DataFrame](p); !f.StreamEnded() || string(f.Data()) != "x" {
		t.Errorf("the body came as %v", f)
	}
	p.ask(3, "GET", "/", true)
	if !next[*http2.MetaHeadersFrame](p).StreamEnded() {
		t.Error("a head without a body does not end the stream")
	}
}

// TestReadingGoesOn leaves a request without an answer for longer than the reading goroutine may serve it, whatever comes meanwhile.
func TestReadingGoesOn(t *testing.T) {
	release := make(chan struct{})
	left := make(chan error, 1)
	s := serverOf(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/wait":
			<-release
		case "/left":
			<-r.Context().Done()
			left <- r.Context().Err()
		case "/long":
			w.Write(make([]byte, 1<<20))
		}
	})
	for _, c := range []struct {
		name string
		do   func(p *peer)
	}{
		{"PING", func(p *peer) { p.ping() }},
		{"a second request", func(p *peer) {
			p.ask(3, "GET", "/", true)
			if f := next[*http2.MetaHeadersFrame](p); f.StreamID != 3 {
				p.t.Errorf("stream %d is answered", f.StreamID)
			}
		}},
		{"many, one after the other", func(p *peer) {
			for id := uint32(3); id < 99; id += 2 {
				p.ask(id, "GET", "/", true)
				if f := next[*http2.MetaHeadersFrame](p); f.StreamID != id {
					p.t.Fatalf("stream %d is answered, not %d", f.StreamID, id)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t, s)
			p.ask(1, "GET", "/wait", true)
			c.do(p)
			release <- struct{}{}
			if f := next[*http2.MetaHeadersFrame](p); f.StreamID != 1 {
				t.Errorf("stream %d is answered", f.StreamID)
			}
			p.ask(201, "GET", "/", true) // the reading has gone back
			if f := next[*http2.MetaHeadersFrame](p); f.StreamID != 201 {
				t.Errorf("stream %d is answered", f.StreamID)
			}
		})
	}
	t.Run("WINDOW_UPDATE", func(t *testing.T) {
		p := newPeer(t, s)
		p.ask(1, "GET", "/long", true)
		for got := 0; got < 1<<20; {
			n := len(next[*http2.DataFrame](p).Data())
			got += n
			p.must(0, p.WriteWindowUpdate(0, uint32(n)))
			p.must(0, p.WriteWindowUpdate(1, uint32(n)))
		}
	})
	t.Run("RST_STREAM", func(t *testing.T) {
		p := newPeer(t, s)
		p.ask(1, "GET", "/left", true)
		p.must(0, p.WriteRSTStream(1, http2.ErrCodeCancel))
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		p.ask(3, "GET", "/", true)
		next[*http2.MetaHeadersFrame](p)
	})
	t.Run("the end", func(t *testing.T) {
		p := newPeer(t, s)
		p.ask(1, "GET", "/left", true)
		p.conn.Close()
		<-left
		<-p.served
	})
	t.Run("what breaks the protocol", func(t *testing.T) {
		p := newPeer(t, s)
		p.ask(1, "GET", "/left", true)
		p.must(0, p.WriteRawFrame(http2.FrameData, 0, 0, nil))
		if f := next[*http2.GoAwayFrame](p); f.ErrCode != http2.ErrCodeProtocol || f.LastStreamID != 1 {
			t.Errorf("ended by %v", f)
		}
		<-left
	})
}

// TestDrain tells a connection to end: the request under way is answered, a later one is not served, and the guest knows which.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	p := newPeer(t, serverOf(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/wait" {
			t.Error("a request was served after the end")
		}
		<-release
	}))
	p.ask(1, "GET", "/wait", true)
	p.ping()
	p.drain()
	if f := next[*http2.GoAwayFrame](p); f.ErrCode != http2.ErrCodeNo || f.LastStreamID != 1 {
		t.Errorf("told %v", f)
	}
	p.ask(3, "POST", "/late", false)
	p.must(0, p.WriteData(3, true, []byte("late")))
	p.ping()
	close(release)
	if f := next[*http2.MetaHeadersFrame](p); f.StreamID != 1 {
		t.Errorf("stream %d is answered", f.StreamID)
	}
	if f, err := p.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("then came %v, %v", f, err)
	}
}

// TestLateFramesAreDropped sends on a stream that the server has reset, as a guest does that does not know yet: that is no error, and
// what it sent is given back to the window of the connection.
func TestLateFramesAreDropped(t *testing.T) {
	s := serverOf(func(http.ResponseWriter, *http.Request) {})
	p := newPeer(t, s)
	for id := uint32(1); id < 41; id += 2 {
		p.ask(id, "POST", "/", false)
		if f := next[*http2.RSTStreamFrame](p); f.ErrCode != http2.ErrCodeNo || f.StreamID != id {
			t.Fatalf("got %v", f)
		}
		for range 4 {
			p.must(0, p.WriteData(id, false, make([]byte, maxFrame)))
		}
		p.must(0, p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.fields("x", "y"), EndHeaders: true, EndStream: true}))
	}
	for _, f := range p.ping() {
		if f.Type == http2.FrameRSTStream || f.Type == http2.FrameGoAway {
			t.Errorf("got %v", f)
		}
	}
}

// TestBodies sends bodies of all framings and reads them back.
func TestBodies(t *testing.T) {
	type seen struct {
		body    string
		err     error
		trailer http.Header
	}
	got := make(chan seen, 1)
	s := serverOf(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		got <- seen{string(body), err, r.Trailer}
	})
	for _, c := range []struct {
		name   string
		fields []string
		send   func(p *peer)
		body   string
		bad    bool
	}{
		{"one frame", nil, func(p *peer) { p.must(0, p.WriteData(1, true, []byte("body"))) }, "body", false},
		{"bytes", nil, func(p *peer) {
			for range 9000 {
				p.must(0, p.WriteData(1, false, []byte("x")))
			}
			p.must(0, p.WriteData(1, true, nil))
		}, strings.Repeat("x", 9000), false},
		{"padding", nil, func(p *peer) {
			p.must(0, p.WriteDataPadded(1, false, []byte("bo"), make([]byte, 200)))
			p.must(0, p.WriteDataPadded(1, true, []byte("dy"), nil))
		}, "body", false},
		{"as long as said", []string{"content-length", "4"}, func(p *peer) { p.must(0, p.WriteData(1, true, []byte("body"))) }, "body", false},
		{"shorter than said", []string{"content-length", "5"}, func(p *peer) { p.must(0, p.WriteData(1, true, []byte("body"))) }, "", true},
		{"longer than said", []string{"content-length", "3"}, func(p *peer) { p.must(0, p.WriteData(1, true, []byte("body"))) }, "", true},
		{"trailers", []string{"trailer", "x-sum"}, func(p *peer) {
			p.must(0, p.WriteData(1, false, []byte("body")))
			p.must(0, p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields("x-sum", "1", "x-other", "2"), EndHeaders: true, EndStream: true}))
		}, "body", false},
		{"cut off", nil, func(p *peer) {
			p.must(0, p.WriteData(1, false, []byte("body")))
			p.must(0, p.WriteRSTStream(1, http2.ErrCodeCancel))
		}, "", true},
		{"awaited", []string{"expect", "100-continue"}, func(p *peer) {
			if f := next[*http2.MetaHeadersFrame](p); f.PseudoValue("status") != "100" {
				p.t.Errorf("got %v", f)
			}
			p.must(0, p.WriteData(1, true, []byte("body")))
		}, "body", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t, s)
			p.ask(1, "POST", "/", false, c.fields...)
			c.send(p)
			q := <-got
			if (q.err != nil) != c.bad || !c.bad && q.body != c.body {
				t.Errorf("read %d bytes, %v", len(q.body), q.err)
			}
			if c.name == "trailers" && !slices.Equal(q.trailer["X-Sum"], []string{"1"}) || len(q.trailer) > 1 {
				t.Errorf("trailers %v", q.trailer)
			}
		})
	}
}

// TestBodyDeadline has a read of a body end, then or later, and go on.
func TestBodyDeadline(t *testing.T) {
	p := newPeer(t, serverOf(func(w http.ResponseWriter, r *http.Request) {
		c, b := http.NewResponseController(w), make([]byte, 10)
		for _, by := range []time.Time{time.Unix(1, 0), time.Now().Add(10 * time.Millisecond)} {
			if err := c.SetReadDeadline(by); err != nil {
				t.Error(err)
			}
			if _, err := r.Body.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
		}
		if err := errors.Join(c.SetReadDeadline(time.Time{}), c.Flush()); err != nil {
			t.Error(err)
		}
		if n, err := r.Body.Read(b); string(b[:n]) != "body" {
			t.Errorf("read %q, %v", b[:n], err)
		}
		r.Body.Close()
		if _, err := r.Body.Read(b); !errors.Is(err, ErrBodyClosed) {
			t.Errorf("read: %v", err)
		}
	}))
	p.ask(1, "POST", "/", false)
	next[*http2.MetaHeadersFrame](p)
	p.must(0, p.WriteData(1, false, []byte("body")))
	if f := next[*http2.RSTStreamFrame](p); f.ErrCode != http2.ErrCodeNo {
		t.Errorf("got %v", f)
	}
}
