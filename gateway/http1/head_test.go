package http1

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// refusals is one row for each rule that a head can break.
var refusals = []struct {
	name   string
	head   string
	status int
	reason Reason
}{
	{"length and encoding", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, ReasonBothLengths},
	{"encoding and length", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400, ReasonBothLengths},
	{"empty encoding and length", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\n", 400, ReasonBothLengths},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, ReasonLength},
	{"two equal lengths", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400, ReasonLength},
	{"length list", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5, 5\r\n\r\n", 400, ReasonLength},
	{"signed length", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +5\r\n\r\n", 400, ReasonLength},
	{"negative length", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: -1\r\n\r\n", 400, ReasonLength},
	{"empty length", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n\r\n", 400, ReasonLength},
	{"hexadecimal length", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x5\r\n\r\n", 400, ReasonLength},
	{"long length", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9223372036854775808\r\n\r\n", 400, ReasonLength},
	{"unknown coding", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip\r\n\r\n", 501, ReasonEncoding},
	{"coding list", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, ReasonEncoding},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 501, ReasonEncoding},
	{"chunked with tab", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400, ReasonFieldValue},
	{"two encodings", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400, ReasonEncoding},
	{"identity", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: identity\r\n\r\n", 501, ReasonEncoding},
	{"quoted chunked", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 501, ReasonEncoding},
	{"encoding on 1.0", "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n", 400, ReasonEncoding},
	{"bare LF after the request line", "GET / HTTP/1.1\nHost: a.test\r\n\r\n", 400, ReasonBareLF},
	{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a.test\n\r\n", 400, ReasonBareLF},
	{"bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a.test\r\n\n", 400, ReasonBareLF},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n", 400, ReasonBareCR},
	{"bare CR at a value's end", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\r\n\r\n", 400, ReasonBareCR},
	{"bare CR in the target", "GET /a\rb HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonBareCR},
	{"fold", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n", 400, ReasonFold},
	{"fold with tab", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n\tb\r\n\r\n", 400, ReasonFold},
	{"space before the first field", "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n", 400, ReasonFold},
	{"space before the colon", "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n", 400, ReasonFieldName},
	{"tab before the colon", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length\t: 5\r\n\r\n", 400, ReasonFieldName},
	{"empty name", "GET / HTTP/1.1\r\nHost: a.test\r\n: a\r\n\r\n", 400, ReasonFieldName},
	{"no colon", "GET / HTTP/1.1\r\nHost: a.test\r\nX\r\n\r\n", 400, ReasonFieldName},
	{"name with a bracket", "GET / HTTP/1.1\r\nHost: a.test\r\nX[]: a\r\n\r\n", 400, ReasonFieldName},
	{"name with NUL", "GET / HTTP/1.1\r\nHost: a.test\r\nX\x00: a\r\n\r\n", 400, ReasonFieldName},
	{"name beyond ASCII", "GET / HTTP/1.1\r\nHost: a.test\r\nX\xc3\xa4: a\r\n\r\n", 400, ReasonFieldName},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\x00b\r\n\r\n", 400, ReasonFieldValue},
	{"escape in a value", "GET / HTTP/1.1\r\nHost: a.test\r\nX: \x1b[31m\r\n\r\n", 400, ReasonFieldValue},
	{"DEL in a value", "GET / HTTP/1.1\r\nHost: a.test\r\nX: \x7f\r\n\r\n", 400, ReasonFieldValue},
	{"no host", "GET / HTTP/1.1\r\n\r\n", 400, ReasonHost},
	{"no host on 1.0", "GET / HTTP/1.0\r\n\r\n", 400, ReasonHost},
	{"two hosts", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", 400, ReasonHost},
	{"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, ReasonHost},
	{"host list", "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n", 400, ReasonHost},
	{"host with user", "GET / HTTP/1.1\r\nHost: u@a.test\r\n\r\n", 400, ReasonHost},
	{"host with path", "GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", 400, ReasonHost},
	{"host with bad port", "GET / HTTP/1.1\r\nHost: a.test:65536\r\n\r\n", 400, ReasonHost},
	{"host with empty port", "GET / HTTP/1.1\r\nHost: a.test:\r\n\r\n", 400, ReasonHost},
	{"port without host", "GET / HTTP/1.1\r\nHost: :443\r\n\r\n", 400, ReasonHost},
	{"open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, ReasonHost},
	{"zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 400, ReasonHost},
	{"authority differs", "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonHost},
	{"authority has a port", "GET http://a.test:80/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonHost},
	{"authority has a user", "GET http://a.test@b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonHost},
	{"authority ends in a query", "GET http://b.test?@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonHost},
	{"absolute without path", "GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"other scheme", "GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"authority-form", "GET a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"relative path", "GET x HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405, ReasonConnect},
	{"CONNECT with a path", "CONNECT / HTTP/1.1\r\nHost: a.test\r\n\r\n", 405, ReasonConnect},
	{"asterisk with GET", "GET * HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ReasonPreface},
	{"HTTP/0.9", "GET /\r\n\r\n", 505, ReasonVersion},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a.test\r\n\r\n", 505, ReasonVersion},
	{"HTTP/3.0", "GET / HTTP/3.0\r\nHost: a.test\r\n\r\n", 505, ReasonVersion},
	{"lower-case version", "GET / http/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonRequestLine},
	{"long version", "GET / HTTP/1.10\r\nHost: a.test\r\n\r\n", 505, ReasonVersion},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonRequestLine},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonRequestLine},
	{"space at the end", "GET / HTTP/1.1 \r\nHost: a.test\r\n\r\n", 505, ReasonVersion},
	{"leading space", " GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonMethod},
	{"leading empty line", "\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonMethod},
	{"tab for space", "GET\t/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonMethod},
	{"method with colon", "GET: / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonMethod},
	{"long method", strings.Repeat("A", 33) + " / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonMethod},
	{"fragment", "GET /a#b HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"NUL in the target", "GET /a\x00 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"target beyond ASCII", "GET /\xc3\xa4 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"bad escape", "GET /%zz HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ReasonTarget},
	{"other expectation", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nExpect: 200-ok\r\n\r\n", 417, ReasonExpect},
	{"two expectations", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 417, ReasonExpect},
	{"trailer that frames", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: content-length\r\n\r\n", 400, ReasonTrailer},
	{"many fields", "GET / HTTP/1.1\r\nHost: a.test\r\n" + strings.Repeat("X: y\r\n", DefaultFields) + "\r\n", 431, ReasonHeadTooLarge},
	{"large head", "GET / HTTP/1.1\r\nHost: a.test\r\nX: " + strings.Repeat("y", DefaultHeadBytes) + "\r\n\r\n", 431, ReasonHeadTooLarge},
}

// scanHead does what a connection does to find and parse one head.
func scanHead(raw []byte) (*head, []byte, *ProtocolError) {
	lim := Limits{}.withDefaults()
	end, _, bad := headEnd(raw, 0)
	if bad != nil {
		return nil, nil, bad
	}
	if end == 0 {
		if bad := checkStart(raw); bad != nil {
			return nil, nil, bad
		}
		return nil, nil, nil
	}
	h := new(head)
	bad = h.parse(string(raw[:end]), &lim)
	return h, raw[end:], bad
}

func TestHeadRefusals(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			h, _, err := scanHead([]byte(tt.head))
			if err == nil {
				t.Fatalf("accepted: %+v", h)
			}
			if err.Status != tt.status || err.Reason != tt.reason {
				t.Errorf("refused with %d %s (%s), want %d %s", err.Status, err.Reason, err.Detail, tt.status, tt.reason)
			}
		})
	}
}

func TestHeadAccepted(t *testing.T) {
	tests := []struct {
		name, head string
		want       head
	}{
		{"plain", "GET /a?b=c HTTP/1.1\r\nHost: a.test\r\n\r\n", head{method: "GET", target: "/a?b=c", host: "a.test", minor: 1}},
		{"lower-case names", "GET / HTTP/1.1\r\nhost: a.test\r\naccept-encoding: gzip\r\n\r\n", head{method: "GET", target: "/", host: "a.test", minor: 1, header: http.Header{"Accept-Encoding": {"gzip"}}}},
		{"repeated", "GET / HTTP/1.1\r\nHost: a.test\r\nX: 1\r\nY: 2\r\nX: 3\r\n\r\n", head{method: "GET", target: "/", host: "a.test", minor: 1, header: http.Header{"X": {"1", "3"}, "Y": {"2"}}}},
		{"white space round values", "GET / HTTP/1.1\r\nHost:a.test\r\nX:\t a b \t\r\nY:\r\n\r\n", head{method: "GET", target: "/", host: "a.test", minor: 1, header: http.Header{"X": {"a b"}, "Y": {""}}}},
		{"obs-text", "GET / HTTP/1.1\r\nHost: a.test\r\nX: \xc3\xa4\r\n\r\n", head{method: "GET", target: "/", host: "a.test", minor: 1, header: http.Header{"X": {"\xc3\xa4"}}}},
		{"length", "POST / HTTP/1.1\r\nHost: a.test:8443\r\nContent-Length: 12\r\n\r\n", head{method: "POST", target: "/", host: "a.test:8443", minor: 1, framing: framing{length: 12}, header: http.Header{"Content-Length": {"12"}}}},
		{"chunked", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\nTrailer: x-sum\r\n\r\n", head{method: "POST", target: "/", host: "a.test", minor: 1, framing: framing{chunked: true}, trailer: http.Header{"X-Sum": nil}}},
		{"1.0", "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", head{method: "GET", target: "/", host: "a.test", close: true}},
		{"1.0 kept", "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: Keep-Alive\r\n\r\n", head{method: "GET", target: "/", host: "a.test", header: http.Header{"Connection": {"Keep-Alive"}}}},
		{"1.0 with expectation", "GET / HTTP/1.0\r\nHost: a.test\r\nExpect: 100-continue\r\n\r\n", head{method: "GET", target: "/", host: "a.test", close: true, header: http.Header{"Expect": {"100-continue"}}}},
		{"close", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: x, close\r\n\r\n", head{method: "GET", target: "/", host: "a.test", minor: 1, close: true, header: http.Header{"Connection": {"x, close"}}}},
		{"absolute", "GET https://A.test/x HTTP/1.1\r\nHost: a.Test\r\n\r\n", head{method: "GET", target: "https://A.test/x", host: "a.Test", minor: 1}},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", head{method: "OPTIONS", target: "*", host: "a.test", minor: 1}},
		{"address", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n", head{method: "GET", target: "/", host: "[2001:db8::1]:443", minor: 1}},
		{"expectation", "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nExpect: 100-Continue\r\n\r\n", head{method: "PUT", target: "/", host: "a.test", minor: 1, expect: true, header: http.Header{"Content-Length": {"0"}, "Expect": {"100-Continue"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, rest, err := scanHead([]byte(tt.head + "rest"))
			if err != nil {
				t.Fatal(err)
			}
			if string(rest) != "rest" {
				t.Errorf("left %q, want %q", rest, "rest")
			}
			got.url, got.uri, got.fields = nil, url.URL{}, fields{}
			if tt.want.header == nil {
				tt.want.header = http.Header{}
			}
			if !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("parsed %+v, want %+v", *got, tt.want)
			}
		})
	}
}

// TestHeadEarly shows that a connection that speaks something else is refused at its first bytes.
func TestHeadEarly(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		reason    Reason
	}{
		{"TLS", "\x16\x03\x01\x02\x00", ReasonMethod},
		{"SSH", "SSH-2.0-x\r\n", ReasonVersion},
		{"HTTP/0.9", "GET /\r\n", ReasonVersion},
		{"endless method", strings.Repeat("A", 40), ReasonMethod},
		{"preface", "PRI * HTTP/2.0\r\n", ReasonPreface},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := scanHead([]byte(tt.raw))
			if err == nil || err.Reason != tt.reason {
				t.Errorf("got %v, want %s", err, tt.reason)
			}
		})
	}
	if _, _, err := scanHead([]byte("GET /whatever")); err != nil {
		t.Errorf("the beginning of a good head: %v", err)
	}
}

// FuzzHead holds the parser against net/http's: whatever this package accepts, that one parses into the same request, with
// the same body and the same beginning of what follows.
func FuzzHead(f *testing.F) {
	for _, tt := range refusals {
		f.Add([]byte(tt.head))
	}
	f.Add([]byte("POST http://a.test/x?y HTTP/1.1\r\nhost: A.test\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n"))
	f.Add([]byte("POST / HTTP/1.0\r\nHost: a.test:1\r\nContent-Length: 3\r\nPragma: no-cache\r\n\r\nabcdef"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, rest, bad := scanHead(raw)
		if bad != nil || h == nil {
			return
		}
		theirs := bufio.NewReaderSize(bytes.NewReader(raw), 1<<20)
		want, err := http.ReadRequest(theirs)
		if err != nil {
			t.Fatalf("accepted what net/http refuses with %q: %q", err, raw)
		}
		compareHeads(t, h, want)
		got, left, gotErr := readBody(h, rest)
		wantBody, wantErr := io.ReadAll(want.Body)
		if gotErr != nil {
			return // stricter is fine
		}
		if wantErr != nil {
			t.Fatalf("read a body that net/http refuses with %q: %q", wantErr, raw)
		}
		if !bytes.Equal(got, wantBody) {
			t.Fatalf("body %q, net/http has %q: %q", got, wantBody, raw)
		}
		if wantLeft, _ := io.ReadAll(theirs); !bytes.Equal(left, wantLeft) {
			t.Fatalf("left %q, net/http leaves %q: %q", left, wantLeft, raw)
		}
	})
}

// compareHeads fails if two parsers disagree on a head.
func compareHeads(t *testing.T, h *head, want *http.Request) {
	t.Helper()
	if h.method != want.Method || h.target != want.RequestURI || h.minor != want.ProtoMinor {
		t.Fatalf("request line %q %q 1.%d, net/http has %q %q %s", h.method, h.target, h.minor, want.Method, want.RequestURI, want.Proto)
	}
	if !strings.EqualFold(h.host, want.Host) {
		t.Fatalf("host %q, net/http has %q", h.host, want.Host)
	}
	if h.url.Path != want.URL.Path || h.url.RawPath != want.URL.RawPath || h.url.RawQuery != want.URL.RawQuery {
		t.Fatalf("URL %#v, net/http has %#v", h.url, want.URL)
	}
	length := h.framing.length
	if h.framing.chunked {
		length = -1
	}
	if length != want.ContentLength {
		t.Fatalf("length %d, net/http has %d", length, want.ContentLength)
	}
	header := want.Header.Clone()
	if _, ok := h.header["Cache-Control"]; !ok {
		header.Del("Cache-Control") // net/http derives it from Pragma (RFC 9111 section 5.4)
	}
	got := h.header.Clone()
	got.Del("Trailer") // kept where the body is not chunked; net/http drops it
	header.Del("Trailer")
	if !maps.EqualFunc(got, header, slices.Equal) {
		t.Fatalf("header %q, net/http has %q", got, header)
	}
}

// readBody reads the body that h announces from raw and returns it and what follows it.
func readBody(h *head, raw []byte) (content, rest []byte, err error) {
	if !h.framing.chunked && h.framing.length == 0 {
		return nil, raw, nil
	}
	lim := Limits{}.withDefaults()
	r := &reader{conn: &scriptConn{in: bytes.NewReader(raw)}, pool: &buffers{size: readBuffer}}
	b := newBody(r, &lim, h.framing, h.trailer)
	content, err = io.ReadAll(b)
	if err != nil {
		return nil, nil, err
	}
	rest, err = io.ReadAll(r.conn)
	return content, append(r.take(), rest...), err
}
