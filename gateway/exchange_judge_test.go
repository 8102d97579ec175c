package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"testing"

	"gatewayd/gateway/routes"
)

// BenchmarkJudge measures what is done for one exchange of 1 KB between the two connections: judging the request, scanning it,
// its credential, masking and delivering the answer, the record and its file. Both ends are made up and cost next to nothing.
func BenchmarkJudge(b *testing.B) {
	for _, kind := range []struct {
		name    string
		request http.Header
	}{
		{"few fields", http.Header{}},
		{"an agent's fields", agentFields()},
	} {
		for _, h2 := range []bool{false, true} {
			name := kind.name + ", h1"
			if h2 {
				name = kind.name + ", h2"
			}
			b.Run(name, func(b *testing.B) {
				j := newJudged(b, h2)
				b.ReportAllocs()
				before := usedTime(b)
				for b.Loop() {
					j.ask(kind.request)
				}
				b.ReportMetric(float64(usedTime(b)-before)/float64(b.N), "cpu-ns/op")
				if j.status != http.StatusOK || j.written != len(j.content) {
					b.Fatalf("status %d, %d bytes", j.status, j.written)
				}
			})
		}
	}
}

// agentFields are the fields that a client of a model sends with each request, but for its credential.
func agentFields() http.Header {
	return http.Header{
		"Accept": {"application/json"}, "Accept-Encoding": {"gzip, deflate, br, zstd"}, "Accept-Language": {"*"},
		"Content-Type": {"application/json"}, "Sec-Fetch-Mode": {"cors"}, "User-Agent": {"agent-cli/2.0.31 (external, cli)"},
		"X-App": {"cli"}, "X-Client-Arch": {"x64"}, "X-Client-Lang": {"js"}, "X-Client-Os": {"Linux"},
		"X-Client-Package-Version": {"0.60.0"}, "X-Client-Retry-Count": {"0"}, "X-Client-Runtime": {"node"},
		"X-Client-Runtime-Version": {"v22.20.0"}, "X-Client-Timeout": {"600"}, "Version": {"2023-06-01"},
	}
}

// judged is a session whose guest and server are made up.
type judged struct {
	s       *session
	dummy   string
	content []byte
	host    string

	ctx     context.Context
	request http.Header // used again and again
	answer  http.Header
	header  http.Header // of the response, as the guest gets it
	status  int
	written int
}

// newJudged returns a session on a route with a credential.
func newJudged(tb testing.TB, h2 bool) *judged {
	file, err := OpenFileRecorder(filepath.Join(tb.TempDir(), "audit.jsonl"), 0, nil)
	if err != nil {
		tb.Fatal(err)
	}
	w := newWorld(tb, func(o *Options) { o.Audit = file })
	tb.Cleanup(func() { closeRecorder(tb, file) })
	r := authRoute(tb, "api.test", 443)
	bottle := testBottle(tb, r)
	bottle.Formats = builtinSet(tb)
	w.apply(tb, bottle)
	f := &flow{
		id: newID("f-"), b: w.g.bottles[bottle.Name], host: "api.test", port: 443, protocol: routes.HTTPS, tlsVersion: "TLS 1.3",
		src: netip.MustParseAddrPort("198.18.1.2:40000"), dst: netip.MustParseAddrPort("203.0.113.9:443"),
	}
	if h2 {
		f.alpn = alpnH2
	}
	j := &judged{s: f.session(nil), dummy: r.Auth.Dummies.Values[0], host: "api.test", request: http.Header{}, answer: http.Header{}}
	j.content = bytes.Repeat([]byte("a line of an answer that nobody has to hide\n"), 24)[:1<<10]
	j.s.upstream = j
	j.ctx = context.WithValue(tb.Context(), sessionKey{}, j.s)
	return j
}

// ask makes one request with these fields and the dummy.
func (j *judged) ask(fields http.Header) {
	clear(j.request)
	for key, values := range fields {
		j.request[key] = values
	}
	j.request["Authorization"] = []string{"Bearer " + j.dummy}
	j.status, j.written = 0, 0
	r := http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/v1/messages"}, RequestURI: "/v1/messages", Host: j.host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: j.request, Body: http.NoBody,
	}
	j.s.ServeHTTP(j, r.WithContext(j.ctx))
}

// RoundTrip is [roundTripper].RoundTrip.
func (j *judged) RoundTrip(_ *routes.Route, _ string, req *http.Request, on observer) (*http.Response, error) {
	on.connected(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 10}), 443))
	h := j.answer
	clear(h)
	h["Server"], h["Date"] = []string{"nginx"}, []string{"Mon, 30 Nov 2026 11:22:40 GMT"}
	h["Content-Type"], h["Content-Length"] = []string{"application/octet-stream"}, []string{"1024"}
	h["Connection"], h["Etag"] = []string{"keep-alive"}, []string{`"692c2a00-400"`}
	h["Last-Modified"], h["Accept-Ranges"] = []string{"Mon, 30 Nov 2026 10:00:00 GMT"}, []string{"bytes"}
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h,
		ContentLength: int64(len(j.content)), Body: &judgedBody{left: j.content},
	}, nil
}

// judgedBody is a body that has come.
type judgedBody struct{ left []byte }

func (b *judgedBody) Buffered() int { return len(b.left) }
func (b *judgedBody) Close() error  { return nil }
func (b *judgedBody) Read(p []byte) (int, error) {
	n := copy(p, b.left)
	if b.left = b.left[n:]; len(b.left) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (j *judged) Header() http.Header         { return j.header }
func (j *judged) AdoptHeader(h http.Header)   { j.header = h }
func (j *judged) WriteHeader(status int)      { j.status = status }
func (j *judged) Write(p []byte) (int, error) { j.written += len(p); return len(p), nil }
func (j *judged) FlushError() error           { return nil }
