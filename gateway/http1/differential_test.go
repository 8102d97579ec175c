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
	"testing"
	"testing/iotest"
)

// said is one request, as a server took it from a connection.
type said struct {
	method, host, target string
	minor                int
	header, trailer      http.Header
	body                 []byte
	broken               bool // the body is not whole
}

// servedFrom returns the requests that a Server hands to its handler, and why it ended.
func servedFrom(in io.Reader) (seen []said, err error) {
	s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := said{method: strings.Clone(r.Method), host: strings.Clone(r.Host), target: strings.Clone(r.RequestURI), minor: r.ProtoMinor, header: cloned(r.Header)}
		content, err := io.ReadAll(r.Body)
		q.body, q.trailer, q.broken = content, cloned(r.Trailer), err != nil
		seen = append(seen, q)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "ok")
	})}
	err = s.Serve(context.Background(), context.Background(), &scriptConn{in: in})
	return seen, err
}

// cloned is a deep copy, since a head is a part of a buffer.
func cloned(h http.Header) http.Header {
	out := http.Header{}
	for key, values := range h {
		for _, v := range values {
			out[strings.Clone(key)] = append(out[strings.Clone(key)], strings.Clone(v))
		}
	}
	return out
}

// checkAgainst fails unless net/http reads from raw what was served of it. The Server may stop earlier: it is the stricter.
func checkAgainst(t testing.TB, raw []byte, seen []said) {
	t.Helper()
	theirs := bufio.NewReaderSize(bytes.NewReader(raw), len(raw)) // it keeps heads to its size
	for i, q := range seen {
		r, err := http.ReadRequest(theirs)
		if err != nil {
			t.Fatalf("request %d, %s %s, was served, and net/http refuses it with %q: %q", i, q.method, q.target, err, raw)
		}
		header, announced := cloned(r.Header), r.Trailer != nil // before the body is read
		body, err := io.ReadAll(r.Body)
		trailer := cloned(r.Trailer)
		dropped := !announced && len(q.trailer) == 0 // as RFC 9110 section 6.5.1 lets a recipient do
		switch {
		case q.method != r.Method, q.target != r.RequestURI, q.minor != r.ProtoMinor, !strings.EqualFold(q.host, r.Host):
			t.Fatalf("request %d was served as %s %s %s 1.%d, net/http reads %s %s %s %s: %q", i, q.method, q.host, q.target, q.minor, r.Method, r.Host, r.RequestURI, r.Proto, raw)
		case !sameHeader(q.header, header):
			t.Fatalf("request %d was served with %q, net/http reads %q: %q", i, q.header, header, raw)
		case q.broken:
			continue // there is none after it
		case err != nil:
			t.Fatalf("request %d was served whole, and net/http refuses its body with %q: %q", i, err, raw)
		case !bytes.Equal(q.body, body):
			t.Fatalf("request %d was served with the body %q, net/http reads %q: %q", i, q.body, body, raw)
		case !dropped && !maps.EqualFunc(q.trailer, trailer, slices.Equal):
			t.Fatalf("request %d was served with the trailers %q, net/http reads %q: %q", i, q.trailer, trailer, raw)
		}
	}
}

// sameHeader compares what was served with what net/http reads, but for what either keeps to itself.
func sameHeader(ours, theirs http.Header) bool {
	ours, theirs = maps.Clone(ours), maps.Clone(theirs)
	if _, ok := ours["Cache-Control"]; !ok {
		delete(theirs, "Cache-Control") // net/http derives it from Pragma (RFC 9111 section 5.4)
	}
	delete(ours, "Trailer") // kept where the body is not chunked; net/http drops it
	delete(theirs, "Trailer")
	return maps.EqualFunc(ours, theirs, slices.Equal)
}

// generatedCases is how many conversations TestGenerated makes: a second or two.
const generatedCases = 40_000

// TestGenerated serves generated conversations, and holds every request that is served against what net/http reads from the
// same bytes: the Server is never the looser. It makes sure that the cases say something: that of every kind some are served,
// and that every reason to refuse is met.
func TestGenerated(t *testing.T) {
	g := newGenerator(1)
	var requests, bodies, trailers, pipelined, broken int
	reasons := map[Reason]int{}
	for n := range generatedCases {
		raw := g.conversation()
		var in io.Reader = bytes.NewReader(raw)
		if n%4 == 0 {
			in = iotest.HalfReader(in)
		}
		seen, err := servedFrom(in)
		checkAgainst(t, raw, seen)
		requests += len(seen)
		if len(seen) > 1 {
			pipelined++
		}
		for _, q := range seen {
			if q.broken {
				broken++
			} else if len(q.body) > 0 {
				bodies++
			}
			if len(q.trailer) > 0 {
				trailers++
			}
		}
		var protocol *ProtocolError
		if errors.As(err, &protocol) {
			reasons[protocol.Reason]++
		}
	}
	t.Logf("%d conversations: %d requests were served, %d with a body, %d with trailers, %d broken; %d conversations had several; refused: %v",
		generatedCases, requests, bodies, trailers, broken, pipelined, reasons)
	for what, n := range map[string]int{"requests": requests, "bodies": bodies, "trailers": trailers, "pipelined": pipelined, "broken": broken} {
		if n < generatedCases/50 {
			t.Errorf("%s: %d of %d say too little", what, n, generatedCases)
		}
	}
	for _, why := range []Reason{
		ReasonRequestLine, ReasonMethod, ReasonConnect, ReasonTarget, ReasonVersion, ReasonBareLF, ReasonBareCR, ReasonFold,
		ReasonFieldName, ReasonFieldValue, ReasonHost, ReasonLength, ReasonEncoding, ReasonBothLengths, ReasonExpect, ReasonTrailer,
	} {
		if reasons[why] == 0 {
			t.Errorf("nothing was refused for %s", why)
		}
	}
}

// FuzzServe serves arbitrary bytes as one connection, as TestGenerated does, and begins with its cases.
func FuzzServe(f *testing.F) {
	for _, tt := range desyncs {
		f.Add([]byte(tt.raw))
	}
	for _, tt := range refusals {
		if len(tt.head) < 1<<10 {
			f.Add([]byte(tt.head))
		}
	}
	g := newGenerator(2)
	for range 300 {
		f.Add(g.conversation())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		seen, _ := servedFrom(bytes.NewReader(raw))
		checkAgainst(t, raw, seen)
	})
}
