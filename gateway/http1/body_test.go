package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const chunkedHead = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"

func TestChunked(t *testing.T) {
	tests := []struct {
		name, raw, want string
		trailer         http.Header
		reason          Reason // "" if the body is good
	}{
		{"empty", "0\r\n\r\n", "", nil, ""},
		{"two chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", nil, ""},
		{"hexadecimal", "a\r\n0123456789\r\n0A\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", nil, ""},
		{"many zeros", "1\r\na\r\n000000000000000\r\n\r\n", "a", nil, ""},
		{"extension", "1;a=\"b\"\r\nx\r\n0;y\r\n\r\n", "x", nil, ""},
		{"trailer", "1\r\nx\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n", "x", http.Header{"X-Sum": {"1", "2"}}, ""},
		{"prefix 0x", "0x1\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"sign", "+1\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"negative", "-1\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"underscore", "1_0\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"no size", "\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"extension without size", ";a\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"space after the size", "1 \r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"space before the size", " 1\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"space before the extension", "1 ;a\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"overflow", "10000000000000000\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"bare LF after the size", "1\na\r\n0\r\n\r\n", "", nil, ReasonBareLF},
		{"bare LF after the data", "1\r\na\n0\r\n\r\n", "a", nil, ReasonBareLF},
		{"bare LF in an extension", "1;a\nb\r\na\r\n0\r\n\r\n", "", nil, ReasonBareLF},
		{"bare CR in an extension", "1;a\rb\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"NUL in an extension", "1;a\x00\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"data longer than its size", "1\r\nab\r\n0\r\n\r\n", "a", nil, ReasonChunk},
		{"data ends in other bytes", "1\r\naXX0\r\n\r\n", "a", nil, ReasonChunk},
		{"long extension", "1;" + strings.Repeat("a", DefaultChunkLine) + "\r\na\r\n0\r\n\r\n", "", nil, ReasonChunk},
		{"endless size line", strings.Repeat("0", 3*readBuffer), "", nil, ReasonChunk},
		{"trailer that frames", "0\r\nContent-Length: 3\r\n\r\n", "", nil, ReasonTrailer},
		{"trailer that routes", "0\r\nHost: b.test\r\n\r\n", "", nil, ReasonTrailer},
		{"trailer that authenticates", "0\r\nauthorization: Bearer x\r\n\r\n", "", nil, ReasonTrailer},
		{"folded trailer", "0\r\nX: a\r\n b\r\n\r\n", "", nil, ReasonTrailer},
		{"trailer without colon", "0\r\nX\r\n\r\n", "", nil, ReasonTrailer},
		{"large trailer", "0\r\nX: " + strings.Repeat("a", DefaultTrailerBytes) + "\r\n\r\n", "", nil, ReasonChunk},
		{"many trailers", "0\r\n" + strings.Repeat("X: a\r\n", DefaultTrailerFields+1) + "\r\n", "", nil, ReasonTrailer},
	}
	for _, tt := range tests {
		for _, split := range []string{"whole", "by the byte"} {
			t.Run(tt.name+" "+split, func(t *testing.T) {
				var in io.Reader = strings.NewReader(tt.raw)
				if split != "whole" {
					in = iotest.OneByteReader(in)
				}
				lim := Limits{}.withDefaults()
				r := &reader{conn: &scriptConn{in: in}, pool: &buffers{size: readBuffer}}
				trailer := http.Header{}
				got, err := io.ReadAll(newBody(r, &lim, framing{chunked: true}, trailer))
				var protocol *ProtocolError
				if errors.As(err, &protocol) != (tt.reason != "") || err != nil && protocol == nil {
					t.Fatalf("got error %v, want reason %q", err, tt.reason)
				}
				if protocol != nil && protocol.Reason != tt.reason {
					t.Errorf("refused for %s (%s), want %s", protocol.Reason, protocol.Detail, tt.reason)
				}
				if string(got) != tt.want {
					t.Errorf("read %q, want %q", got, tt.want)
				}
				if tt.reason == "" && len(tt.trailer)+len(trailer) > 0 && !reflect.DeepEqual(trailer, tt.trailer) {
					t.Errorf("trailer %v, want %v", trailer, tt.trailer)
				}
			})
		}
	}
}

// TestChunkedOverhead shows that a body cannot consist of chunk lines for the most part.
func TestChunkedOverhead(t *testing.T) {
	lim := Limits{}.withDefaults()
	raw := strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nx\r\n", 100) + "0\r\n\r\n"
	r := &reader{conn: &scriptConn{in: strings.NewReader(raw)}, pool: &buffers{size: readBuffer}}
	_, err := io.ReadAll(newBody(r, &lim, framing{chunked: true}, nil))
	var protocol *ProtocolError
	if !errors.As(err, &protocol) || protocol.Reason != ReasonChunk {
		t.Errorf("got %v, want a refusal for %s", err, ReasonChunk)
	}
}

// FuzzChunked holds the decoder against net/http's: whatever body it takes, that one takes too, with the same content,
// trailers and end.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\nGET", "1;a=b\r\nx\r\n0\r\nX: y\r\n\r\n", "00\r\n\r\n", "1\r\na\r\n0\r\nA: b\r\nA: c\r\n\r\n0\r\n\r\n",
		"1 \r\na\r\n0\r\n\r\n", "1\r\nab\r\n0\r\n\r\n", "ffffffffffffffff\r\n", "1;\r\na\r\n0;\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		trailer := http.Header{}
		got, left, err := readBody(&head{framing: framing{chunked: true}, trailer: trailer}, raw)
		if err != nil {
			return
		}
		theirs := bufio.NewReader(io.MultiReader(strings.NewReader(chunkedHead), bytes.NewReader(raw)))
		want, err := http.ReadRequest(theirs)
		if err != nil {
			t.Fatal(err)
		}
		wantBody, err := io.ReadAll(want.Body)
		if err != nil {
			t.Fatalf("read a body that net/http refuses with %q", err)
		}
		if !bytes.Equal(got, wantBody) {
			t.Fatalf("read %q, net/http reads %q", got, wantBody)
		}
		if wantLeft, _ := io.ReadAll(theirs); !bytes.Equal(left, wantLeft) {
			t.Fatalf("left %q, net/http leaves %q", left, wantLeft)
		}
		if len(trailer)+len(want.Trailer) > 0 && !reflect.DeepEqual(trailer, want.Trailer) {
			t.Fatalf("trailer %v, net/http has %v", trailer, want.Trailer)
		}
	})
}

// pieces is a connection over which pieces have come, each of which is read by itself, as TLS records are.
type pieces struct {
	net.Conn
	come []string
	late []string // what comes while somebody waits
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.come) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, p.come[0])
	if p.come[0] = p.come[0][n:]; p.come[0] == "" {
		p.come = p.come[1:]
	}
	return n, nil
}

func (p *pieces) Ready() bool { return len(p.come) > 0 }

// AwaitWhole is told that the deadline has passed, but if late has come meanwhile.
func (p *pieces) AwaitWhole() error {
	if p.come, p.late = p.late, nil; p.come == nil {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (p *pieces) SetReadDeadline(time.Time) error { return nil }

// TestBodyNear shows when a body is taken to be there: whole, small, of known length, and not waited for with 100 Continue.
func TestBodyNear(t *testing.T) {
	lim := Limits{}.withDefaults()
	long := strings.Repeat("b", recordBuffer-1)
	for _, tt := range []struct {
		name   string
		come   []string // what has come, the first of it in the buffer
		late   []string // what comes a moment later
		head   int      // bytes of the buffer that were the head's
		f      framing
		expect bool
		want   bool
	}{
		{"all", []string{"abc"}, nil, 0, framing{length: 3}, false, true},
		{"all and the next request", []string{"abcGET"}, nil, 0, framing{length: 3}, false, true},
		{"a part", []string{"ab"}, nil, 0, framing{length: 3}, false, false},
		{"of unknown length", []string{"1\r\na\r\n0\r\n\r\n"}, nil, 0, framing{chunked: true}, false, false},
		{"waited for", []string{"abc"}, nil, 0, framing{length: 3}, true, false},
		{"behind the head", []string{"head", "abc"}, nil, 4, framing{length: 3}, false, true},
		{"in pieces", []string{"heada", "b", "cGET"}, nil, 4, framing{length: 3}, false, true},
		{"a part in pieces", []string{"heada", "b"}, nil, 4, framing{length: 3}, false, false},
		{"waited for behind the head", []string{"head", "abc"}, nil, 4, framing{length: 3}, true, false},
		{"as much as the buffer holds", []string{"head", "a" + long}, nil, 4, framing{length: recordBuffer}, false, true},
		{"more than that", []string{"head", "a" + long, "b"}, nil, 4, framing{length: recordBuffer + 1}, false, false},
		{"a moment later", []string{"head"}, []string{"a", "bcGET"}, 4, framing{length: 3}, false, true},
		{"a part a moment later", []string{"head"}, []string{"a", "b"}, 4, framing{length: 3}, false, false},
	} {
		all := strings.Join(append(tt.come, tt.late...), "")[tt.head:]
		conn := &pieces{come: tt.come, late: tt.late}
		r := &reader{conn: conn, whole: conn, pool: &buffers{size: recordBuffer}}
		if err := r.fill(); err != nil {
			t.Fatal(err)
		}
		r.r += tt.head
		b := newBody(r, &lim, tt.f, nil)
		if tt.expect {
			b.expect = func() error { return nil }
		}
		if b.Near() != tt.want {
			t.Errorf("%s: near is %v", tt.name, !tt.want)
		}
		if n := int(tt.f.length); n > 0 && len(all) >= n { // looking has taken nothing away
			got := make([]byte, n)
			if _, err := io.ReadFull(b, got); err != nil || string(got) != all[:n] {
				t.Errorf("%s: read %.20q, %v", tt.name, got, err)
			}
		}
	}
}

// TestBodyNearBreaksOff shows that what goes wrong while a body is looked for is told by a read of it.
func TestBodyNearBreaksOff(t *testing.T) {
	lim := Limits{}.withDefaults()
	conn := &pieces{come: []string{"head", ""}} // there is something to read, and reading it fails
	r := &reader{conn: conn, whole: conn, pool: &buffers{size: recordBuffer}}
	if err := r.fill(); err != nil {
		t.Fatal(err)
	}
	r.r += 4
	b := newBody(r, &lim, framing{length: 3}, nil)
	if b.Near() {
		t.Error("a body is near of which nothing came")
	}
	var stalled *ProtocolError
	if n, err := b.Read(make([]byte, 3)); n != 0 || !errors.As(err, &stalled) || stalled.Reason != ReasonSlowBody {
		t.Errorf("%d bytes, %v", n, err)
	}
}
