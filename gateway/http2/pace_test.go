package http2

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// newSlowPeer connects a guest that has nothing left, and waits so long for each frame that it is charged.
func newSlowPeer(t *testing.T, s *Server, wait time.Duration) *peer {
	t.Helper()
	p := newPeer(t, s)
	p.ping()
	p.purse.frames.Store(0)
	p.purse.resets.Store(0)
	p.purse.wait.Store(int64(wait))
	return p
}

// TestSlowedLosesNothing has a guest that has to wait say much at once: all of it is done, in order.
func TestSlowedLosesNothing(t *testing.T) {
	p := newSlowPeer(t, serverOf(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.URL.Path)) }), time.Millisecond)
	for i := range uint32(40) {
		p.must(0, p.WritePing(false, [8]byte{byte(i)}))
		p.ask(2*i+1, "GET", "/"+strings.Repeat("x", int(i)), true)
	}
	pings, ended, bodies := byte(0), 0, map[uint32]string{}
	for pings < 40 || ended < 40 {
		frame, err := p.ReadFrame()
		if err != nil {
			t.Fatalf("after %d pings and %d bodies: %v", pings, ended, err)
		}
		switch f := frame.(type) {
		case *http2.PingFrame:
			if f.Data[0] != pings {
				t.Errorf("ping %d is answered in place of %d", f.Data[0], pings)
			}
			pings++
		case *http2.DataFrame:
			bodies[f.StreamID] += string(f.Data()) // the end may have a frame of its own
			if f.StreamEnded() {
				ended++
			}
		}
	}
	for i := range uint32(40) {
		if want := "/" + strings.Repeat("x", int(i)); bodies[2*i+1] != want {
			t.Errorf("request %d got %q", i, bodies[2*i+1])
		}
	}
}

// TestSlowedReadsNothing has a guest wait without an end: what it had done is done, what is under way goes on, nothing further begins.
func TestSlowedReadsNothing(t *testing.T) {
	begun, goOn := make(chan string, 2), make(chan struct{})
	s := serverOf(func(w http.ResponseWriter, r *http.Request) {
		begun <- r.URL.Path
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
		w.Write([]byte("body"))
	})
	s.Limits.Slow = time.Hour
	p := newSlowPeer(t, s, time.Hour)
	p.ask(1, "GET", "/first", true)
	<-begun
	p.ping() // is answered, and has it wait
	p.ask(3, "GET", "/second", true)
	close(goOn)
	if a := p.answers(1)[1]; a == nil || string(a.body) != "body" {
		t.Errorf("the first request got %+v", a)
	}
	time.Sleep(20 * time.Millisecond) // for what should not come: there is no event for that
	select {
	case path := <-begun:
		t.Errorf("%s was begun", path)
	default:
	}
}

// TestSlowedByResetsOfTheServer has requests reset that broke no rule, as those beyond a bottle's budget are.
func TestSlowedByResetsOfTheServer(t *testing.T) {
	s := serverOf(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	s.Limits.Slow = 50 * time.Millisecond
	p := newSlowPeer(t, s, time.Hour)
	p.ask(1, "GET", "/", true)
	next[*http2.RSTStreamFrame](p)
	p.ask(3, "GET", "/", true)
	if f := next[*http2.GoAwayFrame](p); f.ErrCode != http2.ErrCodeEnhanceYourCalm || f.LastStreamID != 1 {
		t.Errorf("ended by %v", f)
	}
}

// TestSlowedEnds ends a connection in every way that does not come from its guest, while that is made to wait without an end.
func TestSlowedEnds(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"the server ends":                func(p *peer) { p.cut() },
		"it is to close":                 func(p *peer) { p.drain() },
		"the guest does not answer":      nil,
		"a reset is owed, and it drains": func(p *peer) { p.drain() },
	} {
		t.Run(name, func(t *testing.T) {
			s := serverOf(func(http.ResponseWriter, *http.Request) {})
			s.Limits.Slow = time.Hour
			if end == nil {
				s.Limits.Ping, s.Limits.PingWait = 50*time.Millisecond, 50*time.Millisecond
			}
			p := newSlowPeer(t, s, time.Hour)
			if strings.HasPrefix(name, "a reset") {
				p.ask(1, "GET", "nothing", true)
				next[*http2.RSTStreamFrame](p)
			} else {
				p.ping()
			}
			if end != nil {
				end(p)
			}
			within(t, "the connection", p.served)
		})
	}
}

// TestSlowedWhileAnotherServes has the connection wait while its first goroutine serves a request, and that end at any moment of the
// wait: the next request is served.
func TestSlowedWhileAnotherServes(t *testing.T) {
	goOn := make(chan struct{})
	s := serverOf(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
	})
	for wait := time.Duration(0); wait <= 2*time.Millisecond; wait += 100 * time.Microsecond {
		p := newSlowPeer(t, s, wait)
		for id := uint32(1); id < 40; id += 2 {
			p.ask(id, "GET", "/", true)
			p.ping() // somebody else reads
			time.AfterFunc(time.Duration(id)*50*time.Microsecond, func() {
				select {
				case goOn <- struct{}{}:
				case <-p.served:
				}
			})
			if a := p.answers(1)[id]; a == nil || a.status != "200" {
				t.Fatalf("with a wait of %s, request %d got %+v", wait, id, a)
			}
		}
	}
}

// TestSlowedIsNotLate begins a frame and has its connection wait for longer than a frame may take.
func TestSlowedIsNotLate(t *testing.T) {
	s := serverOf(func(http.ResponseWriter, *http.Request) {})
	s.Limits.Head = 300 * time.Millisecond
	p := newSlowPeer(t, s, 2*s.Limits.Head)
	ping := append(appendFrame(nil, 8, kindPing, 0, 0), "gatewayd"...)
	const half = 12
	p.must(p.conn.Write(append(ping[:len(ping):len(ping)], ping[:half]...)))
	next[*http2.PingFrame](p)
	p.must(p.conn.Write(ping[half:]))
	next[*http2.PingFrame](p)
}

// TestSlowedServesWhatCame has a frame of a request's own head be what its guest cannot pay: the request, which came alone, is served all
// the same, and its connection ends as soon as it has waited for too long.
func TestSlowedServesWhatCame(t *testing.T) {
	s := serverOf(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("body")) })
	s.Limits.Slow = 50 * time.Millisecond
	p := newSlowPeer(t, s, time.Hour)
	block := p.fields(":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/")
	p.must(0, p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:1], EndStream: true}))
	p.must(0, p.WriteContinuation(1, true, block[1:]))
	if a := p.answers(1)[1]; a == nil || string(a.body) != "body" {
		t.Errorf("the request got %+v", a)
	}
	p.must(0, p.WritePing(false, [8]byte{})) // only now is it looked at what is owed
	if f := next[*http2.GoAwayFrame](p); f.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("ended by %v", f)
	}
	within(t, "the connection", p.served)
}
