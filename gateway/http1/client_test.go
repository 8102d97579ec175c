package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
)

// answers makes a client's connection whose server has said everything beforehand, and counts releases.
func answers(in io.Reader) (c *ClientConn, conn *scriptConn, released *[]bool) {
	conn, released = &scriptConn{in: in}, new([]bool)
	c = NewClient(ClientLimits{}).NewConn(conn, conn, func(reusable bool) { *released = append(*released, reusable) })
	return c, conn, released
}

// ask is a request for head and body of one of the responses below.
func ask(method string) *Request {
	return &Request{Method: method, Target: "/x?y=z", Host: "a.test", Header: http.Header{"Accept": {"*/*"}}}
}

// deaf is told of interim responses, for nothing.
type deaf struct{}

func (deaf) Interim(int, http.Header) {}

// responses is one row for each form of a response. What is refused has a reason, what breaks off has none and no body.
var responses = []struct {
	name, method, raw string
	body              string
	reusable          bool
	reason            Reason
	broken            bool
}{
	{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc", true, "", false},
	{"no reason, no space", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", true, "", false},
	{"equal lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "abc", true, "", false},
	{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", true, "", false},
	{"trailers", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nDate: never\r\n\r\n", "a", true, "", false},
	{"trailers that are none", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx\r\n\r\n", "", false, ReasonTrailer, false},
	{"to the end", "GET", "HTTP/1.1 200 OK\r\n\r\nabc", "abc", false, "", false},
	{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", "a", false, "", false},
	{"1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", "a", false, "", false},
	{"1.0 keeps alive", "GET", "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\na", "a", true, "", false},
	{"interim", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", "a", true, "", false},
	{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "", true, "", false},
	{"204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", "", false, "", false},
	{"204 with chunks", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "", false, "", false},
	{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 30\r\n\r\n", "", true, "", false},
	{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n", "", true, "", false},
	{"HEAD with a body", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", "", false, "", false},
	{"more than its length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n", "a", false, "", false},
	{"a second response", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "a", false, "", false},
	{"more than its chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nx", "a", false, "", false},

	{"length and encoding", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", false, ReasonBothLengths, false},
	{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "", false, ReasonLength, false},
	{"length list", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", "", false, ReasonLength, false},
	{"signed length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", "", false, ReasonLength, false},
	{"long length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\nabc", "", false, ReasonLength, false},
	{"gzip coding", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "", false, ReasonEncoding, false},
	{"two codings", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", false, ReasonEncoding, false},
	{"chunked on 1.0", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", false, ReasonEncoding, false},
	{"fold", "GET", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", "", false, ReasonFold, false},
	{"bare LF", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "", false, ReasonBareLF, false},
	{"bare LF in fields", "GET", "HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n", "", false, ReasonBareLF, false},
	{"bare CR", "GET", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n", "", false, ReasonBareCR, false},
	{"NUL", "GET", "HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n", "", false, ReasonFieldValue, false},
	{"control byte in the reason", "GET", "HTTP/1.1 200 O\x1bK\r\nContent-Length: 0\r\n\r\n", "", false, ReasonFieldValue, false},
	{"space before the colon", "GET", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "", false, ReasonFieldName, false},
	{"HTTP/2.0", "GET", "HTTP/2.0 200 OK\r\n\r\n", "", false, ReasonStatusLine, false},
	{"HTTP/1.2", "GET", "HTTP/1.2 200 OK\r\n\r\n", "", false, ReasonStatusLine, false},
	{"lower case", "GET", "http/1.1 200 OK\r\n\r\n", "", false, ReasonStatusLine, false},
	{"two digits", "GET", "HTTP/1.1 99 OK\r\n\r\n", "", false, ReasonStatusLine, false},
	{"status 099", "GET", "HTTP/1.1 099 OK\r\n\r\n", "", false, ReasonStatusLine, false},
	{"four digits", "GET", "HTTP/1.1 2000 OK\r\n\r\n", "", false, ReasonStatusLine, false},
	{"ICY", "GET", "ICY 200 OK\r\n\r\n", "", false, ReasonStatusLine, false},
	{"no status line", "GET", "Content-Length: 0\r\n\r\n", "", false, ReasonStatusLine, false},
	{"interim without end", "GET", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", DefaultInterim+1), "", false, ReasonInterim, false},
	{"interim with chunks", "GET", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n", "", false, ReasonEncoding, false},

	{"nothing", "GET", "", "", false, "", true},
	{"half a head", "GET", "HTTP/1.1 200 OK\r\nContent-", "", false, "", true},
	{"half a body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na", "", false, "", true},
	{"half a chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na", "", false, "", true},
	{"no last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "", false, "", true},
	{"chunk size 0x", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", "", false, "", true},
	{"chunk ended by LF", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n", "", false, "", true},
}

func TestResponses(t *testing.T) {
	for _, tt := range responses {
		for _, split := range []string{"whole", "by the byte"} {
			t.Run(tt.name+" "+split, func(t *testing.T) {
				var in io.Reader = strings.NewReader(tt.raw)
				if split != "whole" {
					in = iotest.OneByteReader(in)
				}
				c, _, released := answers(in)
				resp, err := c.RoundTrip(context.Background(), ask(tt.method))
				var body []byte
				if err == nil {
					body, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				var protocol *ProtocolError
				errors.As(err, &protocol)
				switch {
				case tt.reason != "":
					if protocol == nil || protocol.Reason != tt.reason {
						t.Errorf("got %v, want %s", err, tt.reason)
					}
				case tt.broken:
					if err == nil {
						t.Errorf("it looks whole: %q", body)
					}
				case err != nil || string(body) != tt.body:
					t.Errorf("got %q, %v; want %q", body, err, tt.body)
				}
				// What comes behind a response later than it is for whoever keeps the connection to notice.
				if len(*released) != 1 || split == "whole" && (*released)[0] != tt.reusable {
					t.Errorf("released %v, want once and %v", *released, tt.reusable)
				}
			})
		}
	}
}

// FuzzResponse holds the client against net/http's: what this package accepts, that one reads as the same response with the
// same body.
func FuzzResponse(f *testing.F) {
	for _, tt := range responses {
		f.Add([]byte(tt.raw), tt.method == http.MethodHead)
	}
	f.Fuzz(func(t *testing.T, raw []byte, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		c, _, _ := answers(bytes.NewReader(raw))
		req := ask(method)
		req.Interim = deaf{}
		resp, err := c.RoundTrip(context.Background(), req)
		if err != nil {
			return // stricter is fine
		}
		body, bodyErr := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		theirs := bufio.NewReaderSize(bytes.NewReader(raw), 1<<20)
		want, err := http.ReadResponse(theirs, &http.Request{Method: method})
		for err == nil && want.StatusCode < 200 && want.StatusCode != http.StatusSwitchingProtocols {
			want, err = http.ReadResponse(theirs, &http.Request{Method: method})
		}
		if err != nil {
			t.Fatalf("accepted what net/http refuses with %q: %q", err, raw)
		}
		if resp.StatusCode != want.StatusCode || resp.ProtoMinor != want.ProtoMinor {
			t.Fatalf("got %d by 1.%d, net/http has %d by %s: %q", resp.StatusCode, resp.ProtoMinor, want.StatusCode, want.Proto, raw)
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return
		}
		got, other := resp.Header.Clone(), want.Header.Clone()
		for _, h := range []http.Header{got, other} {
			h.Del("Trailer") // net/http drops it, and Connection if it says close
			h.Del("Connection")
			h.Del("Content-Length")
			h.Del("Transfer-Encoding")
			if resp.Header.Get("Cache-Control") == "" {
				h.Del("Cache-Control") // net/http derives it from Pragma (RFC 9111 section 5.4)
			}
		}
		if !maps.EqualFunc(got, other, slices.Equal) {
			t.Fatalf("header %q, net/http has %q", got, other)
		}
		wantBody, wantErr := io.ReadAll(want.Body)
		if bodyErr == nil && (wantErr != nil || !bytes.Equal(body, wantBody)) {
			t.Fatalf("body %q, net/http has %q, %v: %q", body, wantBody, wantErr, raw)
		}
	})
}

// TestReadyDoesNotWait cuts responses off at every point: where a body is said to be ready, a Read gives some of it without asking the
// connection for more.
func TestReadyDoesNotWait(t *testing.T) {
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
		"HTTP/1.1 200 OK\r\n\r\nabcde",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 16000\r\n\r\n" + strings.Repeat("a", 16000),
	} {
		said := 0
		for end := strings.Index(raw, "\r\n\r\n") + 4; end <= len(raw); end++ {
			asked := 0
			in := strings.NewReader(raw[:end])
			c, _, _ := answers(readerFunc(func(p []byte) (int, error) { asked++; return in.Read(p) }))
			resp, err := c.RoundTrip(t.Context(), ask("GET"))
			if err != nil {
				t.Fatal(err)
			}
			if !resp.Body.(interface{ Ready() bool }).Ready() {
				continue
			}
			said++
			before := asked
			if n, err := resp.Body.Read(make([]byte, 64<<10)); n == 0 || asked != before {
				t.Errorf("%.60q, of which %d bytes had come: read %d bytes, %v, and asked for more %d times", raw, end, n, err, asked-before)
			}
		}
		if want := strings.Contains(raw, "abc") || len(raw) > 16000; want != (said > 0) {
			t.Errorf("%.60q: ready at %d points", raw, said)
		}
	}
}

// TestClientAgainstNetHTTP sends every form of a request to net/http's server over one connection.
func TestClientAgainstNetHTTP(t *testing.T) {
	type seen struct{ line, host, body, length, trailer, expect string }
	saw := make(chan seen, 1)
	addr := start(t, &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		saw <- seen{r.Method + " " + r.RequestURI, r.Host, string(b), r.Header.Get("Content-Length"), r.Trailer.Get("X-Sum"), r.Header.Get("Expect")}
		io.WriteString(w, "answer")
	})})
	conn, _ := dial(t, addr)
	reused := true
	c := NewClient(ClientLimits{}).NewConn(conn, conn, func(reusable bool) { reused = reusable })
	large := strings.Repeat("0123456789", 10_000)
	for _, tt := range []struct {
		name string
		req  *Request
		want seen
	}{
		{"GET", ask("GET"), seen{line: "GET /x?y=z", host: "a.test"}},
		{"empty POST", ask("POST"), seen{line: "POST /x?y=z", host: "a.test", length: "0"}},
		{"asterisk", &Request{Method: "OPTIONS", Target: "*", Host: "a.test"}, seen{line: "OPTIONS *", host: "a.test"}},
		{"length", &Request{Method: "PUT", Target: "/", Host: "b.test", Body: strings.NewReader("abc"), Length: 3}, seen{line: "PUT /", host: "b.test", body: "abc", length: "3"}},
		{"large", &Request{Method: "POST", Target: "/", Host: "b.test", Body: iotest.HalfReader(strings.NewReader(large)), Length: int64(len(large))}, seen{line: "POST /", host: "b.test", body: large, length: "100000"}},
		{"chunked", &Request{Method: "POST", Target: "/", Host: "b.test", Body: strings.NewReader(large), Length: -1}, seen{line: "POST /", host: "b.test", body: large}},
		{"empty chunked", &Request{Method: "POST", Target: "/", Host: "b.test", Body: strings.NewReader(""), Length: -1}, seen{line: "POST /", host: "b.test"}},
		{"trailer", &Request{Method: "POST", Target: "/", Host: "b.test", Body: strings.NewReader("abc"), Length: -1, Trailer: http.Header{"X-Sum": {"6"}}}, seen{line: "POST /", host: "b.test", body: "abc", trailer: "6"}},
		{"expect", &Request{Method: "POST", Target: "/", Host: "b.test", Header: http.Header{"Expect": {"100-continue"}}, Body: strings.NewReader("abc"), Length: 3}, seen{line: "POST /", host: "b.test", body: "abc", length: "3", expect: "100-continue"}},
		{"large head", &Request{Method: "POST", Target: "/", Host: "b.test", Header: http.Header{"X": {strings.Repeat("x", 20_000)}}, Body: strings.NewReader("abc"), Length: 3}, seen{line: "POST /", host: "b.test", body: "abc", length: "3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := c.RoundTrip(t.Context(), tt.req)
			if err != nil {
				t.Fatal(err)
			}
			if got := <-saw; got != tt.want {
				t.Errorf("the server saw %.200v, want %.200v", got, tt.want)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "answer" || !reused {
				t.Errorf("got %q, %v, reusable %v", b, err, reused)
			}
		})
	}
}

// TestHeadAndFirstBytesTogether shows that a small request is one write, and so one TLS record.
func TestHeadAndFirstBytesTogether(t *testing.T) {
	for _, length := range []int64{3, -1, 3} {
		c, conn, _ := answers(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		req := ask("POST")
		req.Body, req.Length = strings.NewReader("abc"), length
		req.Near = length > 0
		req.Body = iotest.DataErrReader(req.Body)
		resp, err := c.RoundTrip(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if conn.writes != 1 {
			t.Errorf("length %d: %d writes, want 1: %q", length, conn.writes, conn.out.String())
		}
	}
}

// TestBodyThatBreaksOff shows that a request whose body fails never looks whole.
func TestBodyThatBreaksOff(t *testing.T) {
	fails := errors.New("the guest is gone")
	for _, tt := range []struct {
		name   string
		body   io.Reader
		length int64
		near   bool
	}{
		{"at its end", io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(fails)), 3, false},
		{"before its end", io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(fails)), 3, false},
		{"too short", strings.NewReader("ab"), 3, false},
		{"too long", strings.NewReader("abcd"), 3, false},
		{"chunked", io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(fails)), -1, false},
		{"near, at its end", io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(fails)), 3, true},
		{"near, before its end", io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(fails)), 3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := loopbackPair(t)
			sent := make(chan []byte, 1)
			go func() {
				b, _ := io.ReadAll(far)
				far.Close()
				sent <- b
			}()
			reusable := true
			c := NewClient(ClientLimits{}).NewConn(near, near, func(r bool) { reusable = r })
			_, err := c.RoundTrip(t.Context(), &Request{Method: "POST", Target: "/", Host: "a.test", Body: tt.body, Length: tt.length, Near: tt.near})
			if err == nil || reusable {
				t.Errorf("error %v, reusable %v", err, reusable)
			}
			raw := <-sent
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
			if err != nil {
				return // not even a head
			}
			if _, err := io.ReadAll(r.Body); err == nil {
				t.Errorf("the server saw a whole request: %q", raw)
			}
		})
	}
}

// TestExpectationThatFails shows that a body is not sent to a server that answers without it.
func TestExpectationThatFails(t *testing.T) {
	c, conn, released := answers(strings.NewReader("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"))
	req := ask("POST")
	req.Header = http.Header{"Expect": {"100-continue"}}
	var read atomic.Bool
	req.Body, req.Length = readerFunc(func([]byte) (int, error) { read.Store(true); return 0, io.EOF }), 3
	resp, err := c.RoundTrip(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 417 || read.Load() || !slices.Equal(*released, []bool{false}) {
		t.Errorf("status %d, body read %v, released %v, sent %q", resp.StatusCode, read.Load(), *released, conn.out.String())
	}
}

// readerFunc is a function as a reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestContextEndsExchange shows that a context ends the wait for a head and a body that does not end.
func TestContextEndsExchange(t *testing.T) {
	for _, raw := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na"} {
		near, far := loopbackPair(t)
		defer far.Close()
		io.WriteString(far, raw)
		released := 0
		c := NewClient(ClientLimits{}).NewConn(near, near, func(bool) { released++ })
		ctx, cancel := context.WithCancel(t.Context())
		stop := context.AfterFunc(ctx, func() {})
		go func() {
			io.ReadAtLeast(far, make([]byte, 64), 1)
			cancel()
		}()
		resp, err := c.RoundTrip(ctx, ask("GET"))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil || released != 1 {
			t.Errorf("error %v, released %d times", err, released)
		}
		stop()
	}
}
