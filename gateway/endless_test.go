package gateway

import (
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatewayd/gateway/formats"
)

// TestEndlessFraming sends heads and chunked bodies of which most is no content, over HTTP/1.1, for as long as the gateway
// takes them: each gets a refusal that says why, and the connection ends.
func TestEndlessFraming(t *testing.T) {
	s := newStage(t, nil, func(_ http.ResponseWriter, r *http.Request) { readAll(r) })
	const post = "POST / HTTP/1.1\r\nHost: api.test\r\n"
	const chunked = post + "Transfer-Encoding: chunked\r\n\r\n"
	for name, c := range map[string]struct {
		head, again string
		status      int
		reason      string
	}{
		"one extension":             {chunked + "1;", strings.Repeat("a", 1000), 400, "http_chunk"},
		"an extension to each byte": {chunked, "1;" + strings.Repeat("a", 200) + "\r\nx\r\n", 400, "http_chunk"},
		"a trailer section":         {chunked + "1\r\nx\r\n0\r\n", "X-Trailer: value\r\n", 400, "http_trailer"},
		"header fields":             {post, "X-Field: value\r\n", 431, "http_head_too_large"},
		"a header field":            {post + "X-Field: ", strings.Repeat("a", 1000), 431, "http_head_too_large"},
		"the request target":        {"GET /", strings.Repeat("a", 1000), 431, "http_head_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, in := s.raw(t, "api.test", s.port)
			defer conn.Close()
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() { // until the connection is closed
				text := c.head
				for n := 0; n < 64<<20; n += len(text) {
					if _, err := io.WriteString(conn, text); err != nil {
						return
					}
					text = strings.Repeat(c.again, 1+4096/len(c.again))
				}
				t.Error("the gateway took 64 MB of it")
			})
			resp, body := readResponse(t, in)
			conn.Close()
			rec := s.request(t, func(r Record) bool { return string(r.Reason) == c.reason && strings.Contains(body, r.ID) })
			if resp.StatusCode != c.status || string(rec.Reason) != c.reason || !strings.Contains(body, c.reason) || rec.Error == "" {
				t.Errorf("%d %s, record %s: %s", resp.StatusCode, body, rec.Reason, rec.Error)
			}
		})
	}
}

// gigabyteVariable is how many bytes TestOneLongString sends; `make soak-body` sets it to 1 GB.
const gigabyteVariable = "GATEWAYD_TEST_BODY"

// TestOneLongString sends a body that is one JSON string, scanned, while another connection of the bottle makes small
// requests. Memory does not depend on the length, all of it arrives, and what ends it is found.
func TestOneLongString(t *testing.T) {
	size := int64(32 << 20)
	if v := os.Getenv(gigabyteVariable); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		size = n
	}
	var got atomic.Int64
	s := newStage(t, nil, func(_ http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err == nil && r.URL.Path == "/long" {
			got.Store(n)
		}
	}, authRoute(t, "home.test", 443))
	set, err := formats.Default()
	if err != nil {
		t.Fatal(err)
	}
	s.b.Formats = set
	s.apply(t, s.b)
	text := &again{text: "a long text of \\u0041 word after word, \\n and \\\"more\\\" of it; key = value. "}
	send := func(tail string) (*http.Response, error) {
		body := io.MultiReader(strings.NewReader(`{"a":"`), io.LimitReader(text, size), strings.NewReader(tail))
		r := s.ask(t, http.MethodPost, "/long", body)
		r.Header.Set("Content-Type", "application/json")
		return patient(s.client(t, false), 30*time.Minute).Do(r)
	}
	stop, beside := make(chan struct{}), make(chan []time.Duration)
	go func() { beside <- s.smallRequests(t, stop) }()
	var peak uint64
	done := make(chan struct{})
	watched := make(chan struct{})
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	go func() {
		defer close(watched)
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
	}()
	begin := time.Now()
	resp, err := send(`"}`)
	took := time.Since(begin)
	close(done)
	<-watched
	close(stop)
	times := <-beside
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if want := size + int64(len(`{"a":""}`)); resp.StatusCode != 200 || got.Load() != want {
		t.Errorf("status %d, and the origin got %d bytes, want %d", resp.StatusCode, got.Load(), want)
	}
	if grown := int64(peak) - int64(before.HeapInuse); grown > 64<<20 {
		t.Errorf("%d MB of heap more for a body of %d MB", grown>>20, size>>20)
	}
	slices.Sort(times)
	t.Logf("%d MB in %v, heap %d MB before and %d MB at most; %d small requests beside it: median %v, 99 of 100 within %v, the slowest %v",
		size>>20, took.Round(time.Millisecond), before.HeapInuse>>20, peak>>20, len(times), times[len(times)/2], times[len(times)*99/100], times[len(times)-1])
	if resp, err := send(canarySecret + `"}`); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("with a secret at its end it got %d", resp.StatusCode)
		}
	}
	s.request(t, func(r Record) bool { return r.Reason == ReasonLeak && r.BytesUp >= size })
}

// smallRequests makes small requests on one connection until stop is closed, one at least and five hundred each second at most
// (their records are kept), and returns how long each took.
func (s *stage) smallRequests(t *testing.T, stop <-chan struct{}) (times []time.Duration) {
	c := patient(s.client(t, false), 30*time.Minute)
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for {
		begin := time.Now()
		r := s.ask(t, http.MethodPost, "/small", strings.NewReader(`{"small":"request"}`))
		resp, err := c.Do(r)
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("a small request beside a long one: %v", err)
			return []time.Duration{0}
		}
		resp.Body.Close()
		times = append(times, time.Since(begin))
		select {
		case <-stop:
			return times
		case <-pace.C:
		}
	}
}

// again reads as a text again and again.
type again struct {
	text string
	at   int
}

// Read is [io.Reader].Read.
func (a *again) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m := copy(p[n:], a.text[a.at:])
		n, a.at = n+m, (a.at+m)%len(a.text)
	}
	return n, nil
}
