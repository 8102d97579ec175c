package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/time/rate"

	engine2 "gatewayd/gateway/http2"
	"gatewayd/gateway/routes"
)

// floodGrowth is what a flood may leave behind of heap and stacks, with all that the test itself keeps.
const floodGrowth = 8 << 20

// floodSlow is how long a connection may wait for a budget that is used up. The budgets of these tests take longer to give anything.
const floodSlow = 50 * time.Millisecond

// floodWorld is a stage with small budgets and a second bottle, whose requests go on.
type floodWorld struct {
	*stage
	other *http.Client
}

// newFloodWorld returns one. Its origin answers /wait when the request ends, and anything else at once with 64 KB.
func newFloodWorld(t *testing.T, budget Budget) *floodWorld {
	t.Helper()
	w := newWorld(t, func(o *Options) { o.Budget = budget })
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	body := strings.Repeat("x", 64<<10)
	o := newOrigin(t, &cert, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(rw, body)
	})
	r := routes.Route{Host: "api.test", Port: o.port}
	s := &stage{world: w, b: testBottle(t, r), port: o.port, seen: &o.seen}
	other := namedBottle(t, "other", 2, r)
	w.apply(t, s.b, other)
	return &floodWorld{s, w.guestClient(t, other, o.port, true)}
}

// fine makes sure that the other bottle is served.
func (w *floodWorld) fine(t *testing.T) {
	t.Helper()
	if status, body := fetch(t, w.other, w.url("/"), nil); status != http.StatusOK || len(body) != 64<<10 {
		t.Fatalf("the other bottle got %d with %d bytes", status, len(body))
	}
}

// fields encodes a POST's head with these fields.
func (f *frames) fields(w *floodWorld, more ...string) {
	f.buf.Reset()
	all := append([]string{":method", "POST", ":scheme", "https", ":authority", fmt.Sprintf("api.test:%d", w.port)}, more...)
	for i := 0; i < len(all); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
}

// head sends a request's head for path on the next stream, and leaves it open unless end is set.
func (f *frames) head(w *floodWorld, path string, end bool) error {
	f.fields(w, ":path", path)
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.id, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: end})
	f.id += 2
	return err
}

// end reads until the connection ends and returns the code of the GOAWAY before that.
func (f *frames) end() (code http2.ErrCode, resets int) {
	code = http2.ErrCodeNo
	for {
		frame, err := f.ReadFrame()
		var stream http2.StreamError
		switch {
		case errors.As(err, &stream):
			continue
		case err != nil:
			return code, resets
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			code = frame.ErrCode
		case *http2.RSTStreamFrame:
			resets++
		}
	}
}

// TestFloods sends what only costs, without end, and looks at how it ends, at what it leaves, and at another bottle.
func TestFloods(t *testing.T) {
	const burst = 300
	for _, tt := range []struct {
		name string
		want http2.ErrCode
		most int // rounds
		send func(w *floodWorld, f *frames) error
	}{
		{"rapid reset", http2.ErrCodeEnhanceYourCalm, 0, func(w *floodWorld, f *frames) error {
			if err := f.head(w, "/wait", false); err != nil {
				return err
			}
			return f.WriteRSTStream(f.id-2, http2.ErrCodeCancel)
		}},
		{"resets of the gateway's own", http2.ErrCodeEnhanceYourCalm, 0, func(w *floodWorld, f *frames) error {
			if err := f.head(w, "/wait", false); err != nil {
				return err
			}
			return f.WriteRawFrame(http2.FrameWindowUpdate, 0, f.id-2, make([]byte, 4))
		}},
		{"PING", http2.ErrCodeEnhanceYourCalm, 0, func(_ *floodWorld, f *frames) error { return f.WritePing(false, [8]byte{}) }},
		{"acknowledgements", http2.ErrCodeEnhanceYourCalm, 0, func(_ *floodWorld, f *frames) error { return f.WritePing(true, [8]byte{}) }},
		{"SETTINGS", http2.ErrCodeEnhanceYourCalm, 0, func(_ *floodWorld, f *frames) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		}},
		{"PRIORITY", http2.ErrCodeEnhanceYourCalm, 0, func(_ *floodWorld, f *frames) error {
			return f.WritePriority(1, http2.PriorityParam{Weight: 1})
		}},
		{"WINDOW_UPDATE", http2.ErrCodeEnhanceYourCalm, 0, func(_ *floodWorld, f *frames) error { return f.WriteWindowUpdate(0, 1) }},
		{"unknown frames", http2.ErrCodeEnhanceYourCalm, 0, func(_ *floodWorld, f *frames) error { return f.WriteRawFrame(0xbb, 0, 0, nil) }},
		{"empty DATA", http2.ErrCodeEnhanceYourCalm, 0, func(w *floodWorld, f *frames) error {
			if f.id == 1 {
				if err := f.head(w, "/wait", false); err != nil {
					return err
				}
			}
			return f.WriteData(1, false, nil)
		}},
		{"heads that are too large", http2.ErrCodeEnhanceYourCalm, 0, func(w *floodWorld, f *frames) error {
			f.fields(w, ":path", "/")
			for range 40 { // the first goes into the table, the others name it
				f.enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 4000)})
			}
			f.id += 2
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.id - 2, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: true})
		}},
		{"heads that break HTTP", http2.ErrCodeEnhanceYourCalm, 0, func(w *floodWorld, f *frames) error {
			f.fields(w, ":path", "/", "connection", "x")
			f.id += 2
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.id - 2, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: true})
		}},
		{"CONTINUATION", http2.ErrCodeEnhanceYourCalm, 0, func(w *floodWorld, f *frames) error {
			if f.id == 1 {
				f.id += 2
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			}
			return f.WriteContinuation(1, false, nil)
		}},
		{"CONTINUATION with a head of no end", http2.ErrCodeProtocol, 64, func(w *floodWorld, f *frames) error {
			f.buf.Reset()
			f.enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 12<<10), Sensitive: true})
			if f.id == 1 {
				f.id += 2
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.buf.Bytes()})
			}
			return f.WriteContinuation(1, false, f.buf.Bytes())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newFloodWorld(t, Budget{FramesPerSecond: 1, FrameBurst: burst, ResetsPerSecond: 1, ResetBurst: burst})
			w.g.engine.h2.Limits.Slow = floodSlow
			w.fine(t)
			before := inUse()
			f := w.newFrames(t)
			ended := make(chan http2.ErrCode, 1)
			go func() {
				code, _ := f.end()
				ended <- code
			}()
			rounds := 0
			for ; rounds < 1_000_000; rounds++ {
				if err := tt.send(w, f); err != nil {
					break
				}
			}
			code := <-ended
			w.fine(t)
			t.Logf("%d rounds, then %s; %d KiB more in use", rounds, code, (inUse()-before)>>10)
			// A connection that is closed with bytes unread takes its GOAWAY with it.
			if code != tt.want && code != http2.ErrCodeNo {
				t.Errorf("ended by %s, want %s", code, tt.want)
			}
			if tt.want == http2.ErrCodeEnhanceYourCalm {
				w.records.wait(t, func(r Record) bool { return r.Type == RecordFlow && r.Reason == ReasonH2Flood && r.Bottle == "dev" })
				w.records.wait(t, func(r Record) bool { return r.Type == RecordEvent && r.Reason == ReasonH2Flood })
			}
			if grown := inUse() - before; grown > floodGrowth && !raceDetector {
				t.Errorf("%d bytes are in use that were not before", grown)
			}
		})
	}
}

// TestFloodBudgetIsTheBottles spreads resets over connections: the next one of the bottle ends at its first.
func TestFloodBudgetIsTheBottles(t *testing.T) {
	w := newFloodWorld(t, Budget{ResetsPerSecond: 1, ResetBurst: 4})
	w.g.engine.h2.Limits.Slow = floodSlow
	for range 8 {
		f := w.newFrames(t)
		if err := f.head(w, "/", false); err != nil {
			t.Fatal(err)
		}
		if err := f.WriteRSTStream(1, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
		if err := f.WritePing(false, [8]byte{}); err != nil {
			t.Fatal(err)
		}
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := frame.(*http2.GoAwayFrame); ok {
				w.fine(t)
				return
			}
			if p, ok := frame.(*http2.PingFrame); ok && p.IsAck() {
				break
			}
		}
	}
	t.Error("eight resets on eight connections were let pass by a budget of four")
}

// TestRequestsThatAreLeft leaves a connection with more requests unfinished than may be reset: the next one of the bottle waits for what
// they cost, before its first request.
func TestRequestsThatAreLeft(t *testing.T) {
	w := newFloodWorld(t, Budget{ResetsPerSecond: 1, ResetBurst: 4})
	w.g.engine.h2.Limits.Slow = floodSlow
	f := w.newFrames(t)
	for range 8 {
		if err := f.head(w, "/wait", true); err != nil {
			t.Fatal(err)
		}
	}
	for len(w.bottle("dev").meter.streams) < 8 {
		w.fine(t) // until they are under way, or the test's deadline
	}
	f.conn.Close()
	w.records.wait(t, func(r Record) bool { return r.Type == RecordFlow && r.Bottle == "dev" })
	f = w.newFrames(t)
	if err := f.head(w, "/", true); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := frame.(*http2.MetaHeadersFrame); ok {
			t.Fatal("the next connection's request was served")
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			if g.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("ended by %s", g.ErrCode)
			}
			break
		}
	}
	w.fine(t)
}

// TestSlowedGuests goes beyond a budget that gives again soon: nothing ends, and all is done in the end.
func TestSlowedGuests(t *testing.T) {
	w := newFloodWorld(t, Budget{FramesPerSecond: 1000, FrameBurst: 4, ResetsPerSecond: 200, ResetBurst: 4})
	c := w.client(t, true)
	f := w.newFrames(t)
	for i := range 100 {
		if err := f.WritePing(false, [8]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if err := f.head(w, "/wait", true); err != nil {
			t.Fatal(err)
		}
		if err := f.WriteRSTStream(f.id-2, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
	}
	if status, body := fetch(t, c, w.url("/"), nil); status != http.StatusOK || len(body) != 64<<10 {
		t.Errorf("another connection of the bottle got %d with %d bytes", status, len(body))
	}
	for i := 0; i < 100; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("after %d pings: %v", i, err)
		}
		if p, ok := frame.(*http2.PingFrame); ok && p.IsAck() {
			if p.Data[0] != byte(i) {
				t.Fatalf("ping %d is answered in place of %d", p.Data[0], i)
			}
			i++
		}
	}
	w.fine(t)
}

// TestAllowance overdraws one: who is charged waits for what is owed, and that is bounded.
func TestAllowance(t *testing.T) {
	a := allowance{rate.NewLimiter(1, 4)}
	for i := range 4 {
		if wait := a.charge(1); wait != 0 {
			t.Errorf("charge %d waits %s", i, wait)
		}
	}
	if wait := a.charge(1); wait <= 0 || wait > time.Second {
		t.Errorf("the first beyond waits %s", wait)
	}
	for range 1000 {
		a.charge(1)
	}
	if wait := a.charge(0); wait <= 3*time.Second || wait > 5*time.Second {
		t.Errorf("after very many, %s are owed", wait)
	}
}

// TestHeadsAreRequests makes sure that no request of an ordinary client is taken for a head that http2 answered itself: none, with
// and without a body, that the gateway denies, that its guest gives up, or that is reset.
func TestHeadsAreRequests(t *testing.T) {
	w := newFloodWorld(t, Budget{ResetsPerSecond: 1, ResetBurst: 60})
	c := w.client(t, true)
	for i := range 40 {
		for _, path := range []string{"/", "/a/../b"} {
			if resp, _ := do(t, c, w.ask(t, "POST", path, strings.NewReader("body"))); resp.StatusCode != http.StatusOK && path == "/" {
				t.Fatalf("round %d: %s", i, resp.Status)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		r := w.ask(t, "GET", "/wait", nil).WithContext(ctx)
		time.AfterFunc(time.Millisecond, cancel)
		if resp, err := c.Do(r); err == nil {
			resp.Body.Close()
		}
	}
	if i := slices.IndexFunc(w.records.list(), func(r Record) bool { return r.Reason == ReasonH2Head }); i >= 0 {
		t.Errorf("a request counts as none: %+v", w.records.list()[i])
	}
}

// TestPaidFrames moves bodies, whose WINDOW_UPDATE frames no budget has room for.
func TestPaidFrames(t *testing.T) {
	w := newFloodWorld(t, Budget{FramesPerSecond: 1, FrameBurst: 40})
	c := w.client(t, true)
	for range 200 {
		if status, body := fetch(t, c, w.url("/"), nil); status != http.StatusOK || len(body) != 64<<10 {
			t.Fatalf("got %d with %d bytes", status, len(body))
		}
	}
}

// TestHeaderBomb sends a head that is small in frames and large when it is decoded (HPACK, RFC 7541 section 7.3).
func TestHeaderBomb(t *testing.T) {
	w := newFloodWorld(t, Budget{})
	w.fine(t)
	before := inUse()
	for range 20 {
		f := w.newFrames(t)
		f.fields(w, ":path", "/")
		for i := range 4000 { // the first goes into the table, the others name it: 16 MB in 7 KB
			f.enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 4000)})
			if i == 0 && f.buf.Len() < 2000 {
				t.Fatal("the bomb is none")
			}
		}
		if f.buf.Len() > 16<<10 {
			t.Fatalf("the bomb takes %d bytes", f.buf.Len())
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
			t.Fatal(err)
		}
		f.MaxHeaderListSize = 1 << 20
		status := ""
		for status == "" {
			frame, err := f.ReadFrame()
			if err != nil {
				status = "ended"
				break
			}
			switch frame := frame.(type) {
			case *http2.MetaHeadersFrame:
				status = frame.PseudoValue("status")
			case *http2.GoAwayFrame, *http2.RSTStreamFrame:
				status = "ended"
			}
		}
		if status != "431" {
			t.Fatalf("the bomb got %s", status)
		}
	}
	w.records.wait(t, func(r Record) bool { return r.Type == RecordEvent && r.Reason == ReasonH2Head && r.Bottle == "dev" })
	if w.seen.Load() != 1 {
		t.Errorf("the origin saw %d requests, want the other bottle's alone", w.seen.Load())
	}
	w.fine(t)
	grown := inUse() - before
	t.Logf("%d KiB more in use after 20 bombs", grown>>10)
	if grown > floodGrowth && !raceDetector {
		t.Errorf("%d bytes are in use that were not before", grown)
	}
}

// TestStreamBudget opens more requests at once, over several connections, than a bottle may have.
func TestStreamBudget(t *testing.T) {
	const most = 30
	w := newFloodWorld(t, Budget{Streams: most})
	held, reset := 0, 0
	for range 2 {
		f := w.newFrames(t)
		for range 20 {
			if err := f.head(w, "/wait", false); err != nil {
				t.Fatal(err)
			}
			held++
		}
		if held <= most {
			for len(w.bottle("dev").meter.streams) < held {
				w.fine(t) // until the handlers run, or the test's deadline
			}
			continue
		}
		for reset < held-most {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatalf("%d of %d were reset, then %v", reset, held-most, err)
			}
			if _, ok := frame.(*http2.RSTStreamFrame); ok {
				reset++
			}
		}
	}
	w.fine(t)
	w.records.wait(t, func(r Record) bool {
		return r.Type == RecordEvent && r.Reason == ReasonStreamBudget && r.Bottle == "dev"
	})
}

// TestStreamsOfOneConnection opens more than a connection may have: those beyond never reach the gateway.
func TestStreamsOfOneConnection(t *testing.T) {
	w := newFloodWorld(t, Budget{})
	f := w.newFrames(t)
	for range engine2.DefaultStreams + 20 {
		if err := f.head(w, "/wait", false); err != nil {
			t.Fatal(err)
		}
	}
	for reset := 0; reset < 20; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := frame.(*http2.GoAwayFrame); ok {
			break
		}
		if _, ok := frame.(*http2.RSTStreamFrame); ok {
			reset++
		}
	}
	w.fine(t)
}

// TestH2ConnectionBudget makes more connections than may speak HTTP/2: who can speak HTTP/1.1 goes on with it.
func TestH2ConnectionBudget(t *testing.T) {
	w := newFloodWorld(t, Budget{H2Connections: 2})
	first, second := w.newFrames(t), w.newFrames(t)
	dial := func(protocols ...string) (string, error) {
		conn := tls.Client(w.sockets.call(t, w.b.Link, anywhere(w.port)), &tls.Config{RootCAs: bottlePool(t, w.b), ServerName: "api.test", NextProtos: protocols})
		err := conn.Handshake()
		return conn.ConnectionState().NegotiatedProtocol, err
	}
	if got, err := dial("h2", "http/1.1"); err != nil || got != "http/1.1" {
		t.Errorf("the third connection speaks %q (%v), want http/1.1", got, err)
	}
	if _, err := dial("h2"); err == nil {
		t.Error("a third connection speaks HTTP/2")
	}
	w.records.wait(t, func(r Record) bool { return r.Type == RecordFlow && r.Reason == ReasonH2Budget })
	w.fine(t)
	for _, f := range []*frames{first, second} {
		f.conn.Close()
	}
	w.records.wait(t, func(r Record) bool { return r.Type == RecordFlow && r.ALPN == "h2" && r.Bottle == "dev" })
	if got, err := dial("h2", "http/1.1"); err != nil || got != "h2" {
		t.Errorf("after one has ended, the next speaks %q (%v), want h2", got, err)
	}
}

// TestStalledStreams asks for much and opens no window: the streams end, and nothing is left of them.
func TestStalledStreams(t *testing.T) {
	for _, window := range []uint32{0, 1} {
		t.Run(fmt.Sprintf("window %d", window), func(t *testing.T) {
			w := newFloodWorld(t, Budget{})
			w.g.engine.h2.Limits.Write = 100 * time.Millisecond
			f := w.newFrames(t)
			if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
				t.Fatal(err)
			}
			for range 40 {
				if err := f.head(w, "/", true); err != nil {
					t.Fatal(err)
				}
			}
			for reset := 0; reset < 40; {
				frame, err := f.ReadFrame()
				if err != nil {
					t.Fatalf("%d streams were reset, then %v", reset, err)
				}
				if _, ok := frame.(*http2.RSTStreamFrame); ok {
					reset++
				}
			}
			w.fine(t)
			for len(w.bottle("dev").meter.streams) > 0 {
				w.fine(t) // until the handlers have returned, or the test's deadline
			}
		})
	}
}

// TestStalledLargeResponses asks a server that speaks HTTP/2 for much on many streams, and opens no window: what the server may send
// in the meantime is bounded, for all connections to it together, and all of it goes with the streams.
func TestStalledLargeResponses(t *testing.T) {
	const (
		streams = 60
		perConn = 20 // as many as the server takes on one connection
		conns   = 2  // as many as the bottle may have
		most    = conns*upstreamConnWindow + conns*perConn*2*deliveryBuffer
	)
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	piece := make([]byte, 16<<10)
	var sent atomic.Int64
	o := newOriginOf(t, &cert, []string{"h2"}, func(rw http.ResponseWriter, r *http.Request) {
		for range 3 * upstreamStreamWindow / len(piece) {
			n, err := rw.Write(piece)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}, func(s *http.Server) { s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: perConn} })
	s := &stage{world: w, b: testBottle(t, routes.Route{Host: "api.test", Port: o.port}), port: o.port, seen: &o.seen}
	w.apply(t, s.b)
	b := w.bottle("dev")
	b.up.bounds.h2 = conns
	fetch(t, s.client(t, true), s.url("/"), nil)
	sent.Store(0)
	before := inUse()
	f := s.newFrames(t)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	for range streams {
		if err := f.head(&floodWorld{stage: s}, "/", true); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(testWait); sent.Load() < conns*upstreamConnWindow; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes were sent, which is less than may be", sent.Load())
		}
	}
	time.Sleep(100 * time.Millisecond) // for what should not come: there is no event for that
	if got := sent.Load(); got > most {
		t.Errorf("%d bytes were sent that nobody takes, want %d at most", got, most)
	}
	grown := inUse() - before
	t.Logf("%d KiB sent, %d KiB more in use", sent.Load()>>10, grown>>10)
	if grown > most+floodGrowth && !raceDetector {
		t.Errorf("%d bytes are in use that were not before", grown)
	}
	f.conn.Close()
	for len(b.meter.streams) > 0 {
		time.Sleep(time.Millisecond) // until the handlers have returned, or the test's deadline
	}
	if grown := inUse() - before; grown > floodGrowth && !raceDetector {
		t.Errorf("%d bytes are left in use", grown)
	}
}

// TestGuestWindows reads what a guest may send before anybody takes it, from the first frames that it is sent. With what a server may
// send (TestStalledLargeResponses) it is all that a bottle's bodies take over HTTP/2.
func TestGuestWindows(t *testing.T) {
	s := newStage(t, nil, func(http.ResponseWriter, *http.Request) {})
	f := s.newFrames(t)
	stream, conn := uint32(0), uint32(0xffff) // RFC 9113 section 6.9.2
	for stream == 0 || conn == 0xffff {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if v, ok := frame.Value(http2.SettingInitialWindowSize); ok {
				stream = v
			}
		case *http2.WindowUpdateFrame:
			conn += frame.Increment
		}
	}
	if stream != engine2.DefaultStreamWindow || conn != engine2.DefaultConnWindow {
		t.Errorf("the windows are %d and %d, want %d and %d", stream, conn, engine2.DefaultStreamWindow, engine2.DefaultConnWindow)
	}
	if bottleBodies > 384<<20 {
		t.Errorf("the bodies of one bottle may take %d bytes, which docs/OPERATIONS.md says is 384 MiB", bottleBodies)
	}
}

// TestH2Idle leaves a connection alone: it ends in order, but not while a request is under way.
func TestH2Idle(t *testing.T) {
	w := newWorld(t, nil)
	w.g.engine.h2.Limits.Idle = 500 * time.Millisecond
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	o := newOrigin(t, &cert, func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(3 * w.g.engine.h2.Limits.Idle):
		case <-r.Context().Done():
		}
	})
	s := &stage{world: w, b: testBottle(t, routes.Route{Host: "api.test", Port: o.port}), port: o.port, seen: &o.seen}
	w.apply(t, s.b)
	f := s.newFrames(t)
	if err := f.head(&floodWorld{stage: s}, "/", true); err != nil {
		t.Fatal(err)
	}
	status := ""
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("after status %q: %v", status, err)
		}
		if m, ok := frame.(*http2.MetaHeadersFrame); ok {
			status = m.PseudoValue("status")
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			if g.ErrCode != http2.ErrCodeNo || status != "200" {
				t.Errorf("ended by %s with status %q, want NO_ERROR after 200", g.ErrCode, status)
			}
			return
		}
	}
}
