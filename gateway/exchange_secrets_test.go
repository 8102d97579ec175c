package gateway

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"gatewayd/gateway/routes"
)

// encode returns content in a coding.
func encode(t testing.TB, coding, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch coding {
	case "gzip", "x-gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "raw deflate":
		w, err = flate.NewWriter(&b, 6)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	default:
		return []byte(content)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestInjectedCredentialIsMasked shows that an origin which says the credential back says it to nobody, in whatever coding.
func TestInjectedCredentialIsMasked(t *testing.T) {
	content := strings.Repeat("before ", 1000) + canarySecret + strings.Repeat(" after", 1000)
	want := strings.ReplaceAll(content, canarySecret, strings.Repeat("*", len(canarySecret)))
	s := newStage(t, withAuth(t), func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer "+canarySecret {
			t.Errorf("the origin got %q", got)
		}
		coding := r.Header.Get("Want")
		b := encode(t, coding, content)
		h := w.Header()
		if coding == "raw deflate" {
			coding = "deflate"
		}
		if coding != "" {
			h.Set("Content-Encoding", coding)
		}
		h.Set("Content-Length", strconv.Itoa(len(b)))
		h.Set("Etag", `"strong"`)
		h.Set("X-Echo", r.Header.Get("Authorization"))
		h.Set("X-Saw", r.Header.Get("Accept-Encoding")+"|"+r.Header.Get("Range"))
		w.Write(b)
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		for _, coding := range []string{"", "identity", "gzip", "x-gzip", "deflate", "raw deflate", "br", "zstd"} {
			for _, method := range []string{"GET", "HEAD"} {
				r := s.ask(t, method, "/", nil)
				r.Header.Set("Want", coding)
				r.Header.Set("Authorization", "Bearer "+canaryDummy)
				r.Header.Set("Accept-Encoding", "dcb, br;q=1.0, *;q=0.1, gzip")
				r.Header.Set("Range", "bytes=0-10")
				resp, body := do(t, s.client(t, h2), r)
				if method == "GET" && body != want {
					t.Errorf("%s: got %.60q…, %d bytes", coding, body, len(body))
				}
				h := resp.Header
				if h.Get("X-Echo") != "Bearer "+strings.Repeat("*", len(canarySecret)) || h.Get("X-Saw") != "br;q=1.0, gzip|" {
					t.Errorf("%s: header %v", coding, h)
				}
				plain := coding == "" || coding == "identity"
				if wantTag := map[bool]string{true: `"strong"`, false: `W/"strong"`}[plain]; h.Get("Etag") != wantTag {
					t.Errorf("%s %s: ETag %s, want %s", method, coding, h.Get("Etag"), wantTag)
				}
				if !plain && h.Get("Content-Encoding") != "" {
					t.Errorf("%s: Content-Encoding %q", coding, h.Get("Content-Encoding"))
				}
			}
		}
		r := s.ask(t, "GET", "/", nil)
		r.Header.Set("Want", "compress")
		resp, body := do(t, s.client(t, h2), r)
		s.explained(t, resp, body, 502, ReasonUnmaskable)
	})
	rec := s.request(t, func(r Record) bool { return r.Status == 200 })
	if !rec.Injected || rec.Decision != routes.Intercept {
		t.Errorf("record %+v", rec)
	}
}

// TestBrokenCoding shows that a body which does not decode is no whole body.
func TestBrokenCoding(t *testing.T) {
	s := newStage(t, withAuth(t), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		if r.URL.Path == "/empty" {
			return
		}
		b := encode(t, "gzip", strings.Repeat("content ", 10000))
		w.Write(b[:len(b)/2])
	})
	resp, err := s.client(t, false).Do(s.ask(t, "GET", "/half", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("half a body looked whole")
	}
	if resp, body := do(t, s.client(t, false), s.ask(t, "GET", "/empty", nil)); resp.StatusCode != 200 || body != "" {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
}

// TestLeaksAreStopped shows a dummy on its way to a host that is not its home, in every place of a request.
func TestLeaksAreStopped(t *testing.T) {
	var whole atomic.Int64
	home := authRoute(t, "home.test", 443)
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			whole.Add(1)
			if bytes.Contains(b, []byte(canaryDummy)) {
				t.Error("the dummy reached the origin")
			}
		}
	}, home)
	large := strings.Repeat("x", 200_000)
	for _, tt := range []struct {
		name  string
		build func(*http.Request)
		place string
	}{
		{"header", func(r *http.Request) { r.Header.Set("X-Anything", "k="+canaryDummy) }, "header X-Anything"},
		{"authorization", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+canaryDummy) }, "header Authorization"},
		{"query", func(r *http.Request) { r.URL.RawQuery = "q=" + canaryDummy }, "url"},
		{"path", func(r *http.Request) { r.URL.Path = "/" + canaryDummy }, "url"},
		{"body", func(r *http.Request) { setBody(r, canaryDummy) }, "body"},
		{"end of a large body", func(r *http.Request) { setBody(r, large+canaryDummy) }, "body"},
		{"chunked body", func(r *http.Request) { setBody(r, large+canaryDummy+large); r.ContentLength = -1 }, "body"},
		{"gzip body", func(r *http.Request) {
			setBody(r, string(encode(t, "gzip", large+canaryDummy)))
			r.Header.Set("Content-Encoding", "gzip")
		}, "body"},
		{"trailer", func(r *http.Request) {
			setBody(r, "x")
			r.ContentLength, r.Trailer = -1, http.Header{"X-T": {canaryDummy}}
		}, "header X-T"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, h2 bool) {
				before := whole.Load()
				r := s.ask(t, "POST", "/", nil)
				tt.build(r)
				resp, body := do(t, s.client(t, h2), r)
				_, rec := s.explained(t, resp, body, 403, ReasonLeak)
				if !strings.Contains(rec.Finding, tt.place) || strings.Contains(rec.Finding, canaryDummy) || strings.Contains(body, canaryDummy) && tt.name != "path" {
					t.Errorf("finding %q, explanation %s", rec.Finding, body)
				}
				if whole.Load() != before {
					t.Error("the origin saw a whole request")
				}
			})
		})
	}
	r := s.ask(t, "POST", "/", nil)
	setBody(r, "x")
	r.Header.Set("Content-Encoding", "exotic")
	resp, body := do(t, s.client(t, false), r)
	s.explained(t, resp, body, 415, ReasonUnscannable)
	if resp, _ := do(t, s.client(t, false), s.ask(t, "POST", "/", strings.NewReader(large))); resp.StatusCode != 200 {
		t.Errorf("a clean request got %d", resp.StatusCode)
	}
}

func setBody(r *http.Request, content string) {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(content)), int64(len(content))
}

// TestLeakAfterTheResponseBegan shows that a request whose response is under way is cut off on both sides.
func TestLeakAfterTheResponseBegan(t *testing.T) {
	broke := make(chan error, 1)
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.(http.Flusher).Flush()
		_, err := io.Copy(io.Discard, r.Body)
		broke <- err
		<-r.Context().Done()
	}, authRoute(t, "home.test", 443))
	bothVersions(t, func(t *testing.T, h2 bool) {
		out, in := io.Pipe()
		resp, err := s.client(t, h2).Do(s.ask(t, "POST", "/late", out))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		go func() { io.WriteString(in, canaryDummy+"\n"); in.Close() }()
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the response looks whole")
		}
		if err := <-broke; err == nil {
			t.Error("the origin saw a whole request")
		}
	})
	if rec := s.request(t, func(r Record) bool { return r.Path == "/late" }); rec.Reason != ReasonLeak || rec.Finding == "" || rec.Decision != routes.Deny {
		t.Errorf("record %+v", rec)
	}
}

// TestCredentialThatIsNotToBeHad shows the 503 and the log line, and that the credential is taken up when it comes.
func TestCredentialThatIsNotToBeHad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	s := newStage(t, func(r *routes.Route) {
		r.Auth = &routes.Auth{Scheme: routes.HeaderScheme, Header: "X-Key", Secret: routes.SecretRef{File: file, Remedy: "run `sign in` on the host"}}
	}, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strconv.Itoa(len(r.Header.Get("X-Key"))))
	})
	bothVersions(t, func(t *testing.T, h2 bool) {
		os.Remove(file)
		resp, body := do(t, s.client(t, h2), s.ask(t, "GET", "/", nil))
		p, _ := s.explained(t, resp, body, 503, ReasonCredentialMissing)
		if !strings.Contains(p.Detail, file) || p.Remedy != "run `sign in` on the host" {
			t.Errorf("explained as %+v", p)
		}
		if log := s.log.String(); !strings.Contains(log, "sign in") || !strings.Contains(log, p.RequestID) {
			t.Errorf("log %s", log)
		}
		// {"alg":"HS256"} . {"exp":1} . a signature
		if err := os.WriteFile(file, []byte("eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl"), 0o600); err != nil {
			t.Fatal(err)
		}
		resp, body = do(t, s.client(t, h2), s.ask(t, "GET", "/", nil))
		if p, _ := s.explained(t, resp, body, 503, ReasonCredentialExpired); !strings.Contains(p.Detail, "1970-01-01") {
			t.Errorf("explained as %+v", p)
		}
		if s.seen.Load() != map[bool]int64{false: 0, true: 1}[h2] {
			t.Error("a request without its credential went upstream")
		}
		if err := os.WriteFile(file, []byte("a-current-credential"), 0o600); err != nil {
			t.Fatal(err)
		}
		if resp, body = do(t, s.client(t, h2), s.ask(t, "GET", "/", nil)); resp.StatusCode != 200 || body != "20" {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
	})
}

// TestLargeBodiesBothWays streams more than would fit, and looks at how much memory that takes.
func TestLargeBodiesBothWays(t *testing.T) {
	size := int64(128 << 20) // four times up and four times down
	if testing.Short() {
		size = 16 << 20
	}
	sums := make(chan [32]byte, 1)
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		io.Copy(h, r.Body)
		sums <- [32]byte(h.Sum(nil))
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		io.Copy(w, io.LimitReader(endless{}, size))
	}, authRoute(t, "home.test", 443))
	runtime.GC()
	before := liveHeap()
	var peak atomic.Uint64
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak.Store(max(peak.Load(), liveHeap()))
			}
		}
	}()
	bothVersions(t, func(t *testing.T, h2 bool) {
		for _, path := range []string{"/length", "/chunked"} {
			c := patient(s.client(t, h2), 2*time.Minute)
			r := s.ask(t, "POST", path, io.LimitReader(endless{}, size))
			if path == "/length" {
				r.ContentLength = size
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			down := sha256.New()
			n, err := io.Copy(down, resp.Body)
			resp.Body.Close()
			if n != size || err != nil || [32]byte(down.Sum(nil)) != <-sums {
				t.Fatalf("%s: got %d bytes, %v, or other bytes than went up", path, n, err)
			}
		}
	})
	close(stop)
	<-stopped
	t.Logf("%d MB of live heap before, %d at most", before>>20, peak.Load()>>20)
	if got := peak.Load(); got > before+32<<20 {
		t.Errorf("%d MB more of heap for %d MB streamed", (got-before)>>20, size>>20)
	}
	rec := s.request(t, func(r Record) bool { return r.Path == "/chunked" })
	if rec.BytesUp != size || rec.BytesDown != size {
		t.Errorf("record says %d up and %d down", rec.BytesUp, rec.BytesDown)
	}
}

// liveHeap is how many bytes of the heap the last collection found in use. Garbage is none of them, of which there is the more the more
// the tests before have left in use.
func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// patient lets a client's requests take as long as limit, which is longer than what ought to come at once.
func patient(c *http.Client, limit time.Duration) *http.Client {
	c.Timeout = limit
	tr := c.Transport.(*http.Transport)
	dial := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err == nil {
			err = conn.SetDeadline(time.Time{})
		}
		return conn, err
	}
	return c
}

// endless reads as an endless body.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i * 7)
	}
	return len(p), nil
}
