package http2

import (
	"bytes"
	"context"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// said is one request, as a server took it from a connection.
type said struct {
	method, host, target string
	length               int64
	header, trailer      http.Header
	body                 string
	broken               bool // the body is not whole
}

// equal compares requests. What is not whole may have broken off anywhere.
func (q said) equal(other said) bool {
	same := q.method == other.method && q.host == other.host && q.target == other.target && q.length == other.length &&
		maps.EqualFunc(q.header, other.header, slices.Equal)
	return same && (q.broken || !other.broken && q.body == other.body && maps.EqualFunc(q.trailer, other.trailer, slices.Equal))
}

// listener notes what a handler is given.
type listener struct {
	patient bool // its handlers end with the connection, so that how streams end does not depend on how soon
	mu      sync.Mutex
	seen    []said
}

// ServeHTTP is [http.Handler].ServeHTTP.
func (l *listener) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	q := said{method: r.Method, host: r.Host, target: r.RequestURI, length: r.ContentLength, header: r.Header.Clone()}
	body, err := io.ReadAll(r.Body)
	q.body, q.broken, q.trailer = string(body), err != nil, http.Header{}
	for key, values := range r.Trailer {
		if len(values) > 0 {
			q.trailer[key] = values
		}
	}
	if l.patient {
		<-r.Context().Done()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, q)
}

// lacks returns those of q that l has not seen, each as often as it is there.
func (l *listener) lacks(q []said) (missing []said) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := slices.Clone(l.seen)
	for _, want := range q {
		i := slices.IndexFunc(rest, want.equal)
		if i < 0 {
			missing = append(missing, want)
			continue
		}
		rest = slices.Delete(rest, i, i+1)
	}
	return missing
}

// script is a connection on which a guest says what was written down, in pieces of any size, and then leaves.
type script struct {
	net.Conn
	in   *bytes.Reader
	step int
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p[:min(len(p), s.step)]) }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// served returns what a Server takes from raw, and whether a stream was reset. The guest can pay for few frames, and is slowed beyond.
func served(raw []byte, step int, patient bool) (seen []said, reset bool) {
	l, p := &listener{patient: patient}, fullPurse()
	p.frames.Store(int64(step % 8))
	p.wait.Store(1)
	s := &Server{Handler: l}
	s.Serve(context.Background(), context.Background(), &script{in: bytes.NewReader(raw), step: step}, p)
	return l.seen, p.resets.Load() != fullPurse().resets.Load()
}

// checkAgainst fails unless golang.org/x/net/http2 takes every request from raw that was served of it. The Server may take fewer: it
// is the stricter. It is so in all but one thing: of a stream that it has reset itself, it drops what still comes (RFC 9113 section
// 5.1), where the other, which takes such a stream for one that was never opened or is closed, ends the connection. reset says that
// there was one.
func checkAgainst(t testing.TB, raw []byte, seen []said, reset bool) {
	t.Helper()
	seen = slices.DeleteFunc(slices.Clone(seen), func(q said) bool {
		return q.header[":protocol"] != nil // http2 serves RFC 8441 only if the environment says so
	})
	if len(seen) == 0 {
		return
	}
	l := new(listener)
	var errs sync.Map
	s := &http2.Server{ //nolint:staticcheck // net/http's takes no connection
		MaxConcurrentStreams: DefaultStreams, MaxReadFrameSize: maxFrame, MaxUploadBufferPerStream: DefaultStreamWindow,
		MaxUploadBufferPerConnection: DefaultConnWindow, CountError: func(what string) { errs.Store(what, true) },
	}
	base := &http.Server{MaxHeaderBytes: DefaultHeadBytes, ErrorLog: log.New(io.Discard, "", 0)}
	var wg sync.WaitGroup
	wg.Go(func() { // after GOAWAY it waits for a second
		s.ServeConn(&script{in: bytes.NewReader(raw), step: 1 << 20}, &http2.ServeConnOpts{BaseConfig: base, Handler: l}) //nolint:staticcheck // likewise
	})
	t.Cleanup(wg.Wait)
	for end := time.Now().Add(testWait); ; time.Sleep(100 * time.Microsecond) { // handlers may outlive the connection there
		missing := l.lacks(seen)
		if len(missing) == 0 {
			return
		}
		var why []string
		errs.Range(func(what, _ any) bool { why = append(why, what.(string)); return true })
		if reset && slices.ContainsFunc(why, endsForLateFrames) {
			return
		}
		if time.Now().After(end) {
			t.Errorf("served, but not by http2, which says %q and takes %+v: %+v\n%q", why, l.seen, missing, raw)
			return
		}
	}
}

// endsForLateFrames reports whether http2 says that it ends a connection since a frame's stream is none that it knows as open.
func endsForLateFrames(what string) bool {
	for _, name := range []string{"stream_went_down", "data_on_idle", "reset_idle_stream", "stream_idle"} {
		if strings.HasPrefix(what, "conn_") && strings.HasSuffix(what, name) {
			return true
		}
	}
	return false
}

// TestGeneratedFrames holds sequences of frames, good and bad, against golang.org/x/net/http2.
func TestGeneratedFrames(t *testing.T) {
	const count = 500
	requests := 0
	var wg sync.WaitGroup
	for seed := range count {
		raw := generate(uint64(seed))
		seen, reset := served(raw, 1+seed%7*700, false)
		requests += len(seen)
		wg.Go(func() { checkAgainst(t, raw, seen, reset) })
	}
	wg.Wait()
	t.Logf("%d connections, %d requests", count, requests)
	if requests < count {
		t.Errorf("only %d requests were served", requests)
	}
}

// TestPiecesDoNotMatter reads the same bytes in pieces of all sizes.
func TestPiecesDoNotMatter(t *testing.T) {
	for seed := range 40 {
		raw := generate(uint64(seed))
		whole, _ := served(raw, 1<<20, true)
		for _, step := range []int{1, 2, 3, 8, 9, 10, 100, 4096} {
			seen, _ := served(raw, step, true)
			l := &listener{seen: seen}
			if missing := l.lacks(whole); len(missing) > 0 || len(l.seen) != len(whole) {
				t.Fatalf("seed %d in pieces of %d: %d requests, not %d; without %+v", seed, step, len(l.seen), len(whole), missing)
			}
		}
	}
}

// FuzzFrames is TestGeneratedFrames for whatever Go's fuzzer makes of such sequences.
func FuzzFrames(f *testing.F) {
	for seed := range 40 {
		f.Add(strings.TrimPrefix(string(generate(uint64(seed))), preface), uint16(seed*100))
	}
	f.Fuzz(func(t *testing.T, frames string, step uint16) {
		if len(frames) > 1<<18 {
			return
		}
		raw := []byte(preface + frames)
		seen, reset := served(raw, int(step)+1, false)
		checkAgainst(t, raw, seen, reset)
	})
}
