package http2

import (
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestHeadThatDoesNotEnd begins a frame, and a head, and leaves it at that.
func TestHeadThatDoesNotEnd(t *testing.T) {
	for name, begin := range map[string]func(p *peer){
		"frame": func(p *peer) { p.must(p.conn.Write([]byte{0, 0, 8, kindPing})) },
		"head": func(p *peer) {
			p.must(0, p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serverOf(func(http.ResponseWriter, *http.Request) { t.Error("a request was served") })
			s.Limits.Head = 50 * time.Millisecond
			p := newPeer(t, s)
			begin(p)
			if f := next[*http2.GoAwayFrame](p); f.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("ended by %v", f)
			}
		})
	}
}

// TestFramesThatFollow always has a frame begun, and ends each in time: that there is one for longer is no fault.
func TestFramesThatFollow(t *testing.T) {
	s := serverOf(func(http.ResponseWriter, *http.Request) {})
	s.Limits.Head = time.Second
	p := newPeer(t, s)
	ping := append(appendFrame(nil, 8, kindPing, 0, 0), "gatewayd"...)
	const half = 12
	p.must(p.conn.Write(ping[:half]))
	for begun := time.Now(); time.Since(begun) < 3*s.Limits.Head; time.Sleep(s.Limits.Head / 10) {
		p.must(p.conn.Write(append(ping[half:len(ping):len(ping)], ping[:half]...)))
		if f := next[*http2.PingFrame](p); !f.IsAck() {
			t.Fatalf("got %v", f)
		}
	}
}

// TestSilentGuest is asked whether it is there, and left if it does not say so.
func TestSilentGuest(t *testing.T) {
	s := serverOf(func(http.ResponseWriter, *http.Request) {})
	s.Limits.Ping, s.Limits.PingWait = 20*time.Millisecond, time.Second
	p := newPeer(t, s)
	for range 3 {
		p.must(0, p.WritePing(true, next[*http2.PingFrame](p).Data))
	}
	next[*http2.PingFrame](p)
	if f, err := p.ReadFrame(); err == nil {
		t.Errorf("got %v", f)
	}
	<-p.served
}

// TestStalledWrite gives a response no window.
func TestStalledWrite(t *testing.T) {
	failed := make(chan error, 1)
	s := serverOf(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, 100))
		failed <- err
	})
	s.Limits.Write = 50 * time.Millisecond
	p := newPeer(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	p.ask(1, "GET", "/", true)
	if f := next[*http2.RSTStreamFrame](p); f.StreamID != 1 {
		t.Errorf("got %v", f)
	}
	if err := <-failed; err == nil {
		t.Error("the write went well")
	}
	p.ping()
}

// TestControlFramesThatWait asks for answers and takes none: the connection ends, whoever pays.
func TestControlFramesThatWait(t *testing.T) {
	p := newPeer(t, serverOf(func(http.ResponseWriter, *http.Request) {}))
	p.must(0, p.conn.SetDeadline(time.Now().Add(6*testWait)))
	for range 10_000_000 {
		if err := p.WritePing(false, [8]byte{}); err != nil {
			break
		}
	}
	<-p.served
	if p.purse.flooded.Load() != 1 {
		t.Error("the connection did not end as a flood")
	}
}

// TestAccount counts what is paid for.
func TestAccount(t *testing.T) {
	s := serverOf(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == "GET" {
			w.Write(make([]byte, 10*frameFare))
		}
	})
	full := int64(1 << 40)
	for _, c := range []struct {
		name                    string
		do                      func(p *peer)
		frames, resets, refused int64
	}{
		{"requests", func(p *peer) {
			p.ask(1, "POST", "/", true)
			p.ask(3, "HEAD", "/", true)
			p.answers(2)
		}, 0, 0, 0},
		{"PING", func(p *peer) { p.ping() }, 1, 0, 0},
		{"empty DATA", func(p *peer) {
			p.ask(1, "POST", "/", false)
			p.must(0, p.WriteData(1, false, nil))
			p.must(0, p.WriteData(1, true, nil))
			p.answers(1)
		}, 1, 0, 0},
		{"what a body pays for", func(p *peer) {
			p.ask(1, "GET", "/", true)
			p.answers(1)
			for range 9 {
				p.must(0, p.WriteWindowUpdate(0, 1))
			}
			p.ping()
		}, 0, 0, 0},
		{"a reset", func(p *peer) {
			p.ask(1, "POST", "/", false)
			p.must(0, p.WriteRSTStream(1, http2.ErrCodeCancel))
			p.ping()
		}, 1, 1, 0},
		{"a reset that the guest provokes", func(p *peer) {
			p.ask(1, "GET", "nothing", true)
			next[*http2.RSTStreamFrame](p)
		}, 0, 1, 0},
		{"a head that breaks HTTP", func(p *peer) {
			p.ask(1, "GET", "/", true, "connection", "close")
			if a := p.answers(1)[1]; a.status != "400" {
				p.t.Errorf("answered %+v", a)
			}
		}, 0, 1, 1},
		{"a head with too many fields", func(p *peer) {
			var many []string
			for range DefaultFields {
				many = append(many, "x", "")
			}
			p.ask(1, "GET", "/", true, many...)
			if a := p.answers(1)[1]; a.status != "431" {
				p.t.Errorf("answered %+v", a)
			}
		}, 0, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t, s)
			next[*http2.SettingsFrame](p)
			base := full - 1 // the guest's SETTINGS
			c.do(p)
			frames, resets := base-p.purse.frames.Load(), full-p.purse.resets.Load()
			if frames != c.frames || resets != c.resets || p.purse.refused.Load() != c.refused {
				t.Errorf("%d frames, %d resets and %d refused heads were paid for, want %d, %d and %d", frames, resets, p.purse.refused.Load(), c.frames, c.resets, c.refused)
			}
		})
	}
	t.Run("nothing left", func(t *testing.T) {
		s := serverOf(s.Handler.ServeHTTP)
		s.Limits.Slow = 50 * time.Millisecond
		p := newPeer(t, s)
		next[*http2.SettingsFrame](p)
		p.purse.frames.Store(0)
		p.must(0, p.WritePing(false, [8]byte{}))
		if f := next[*http2.GoAwayFrame](p); f.ErrCode != http2.ErrCodeEnhanceYourCalm {
			t.Errorf("ended by %v", f)
		}
		if <-p.served; p.purse.flooded.Load() != 1 {
			t.Error("the connection did not end as a flood")
		}
	})
	t.Run("a connection that is left", func(t *testing.T) {
		p := newPeer(t, serverOf(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-r.Context().Done()
			}
		}))
		p.ask(1, "GET", "/", true)
		p.answers(1)
		for id := uint32(3); id < 13; id += 2 {
			p.ask(id, "GET", "/wait", true)
		}
		p.ping()
		p.conn.Close()
		<-p.served
		if left := p.purse.left.Load(); left != 5 {
			t.Errorf("%d requests were paid for as left, want the 5 that are unfinished", left)
		}
	})
}

// TestCreditIsBounded moves more of a body than may be saved up to pay for frames: those beyond are the account's.
func TestCreditIsBounded(t *testing.T) {
	s := serverOf(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	s.Limits.StreamWindow, s.Limits.ConnWindow = 4*maxCreditBytes, 4*maxCreditBytes
	p := newPeer(t, s)
	p.ask(1, "POST", "/", false)
	for left := 2 * maxCreditBytes; left > 0; left -= maxFrame {
		p.must(0, p.WriteData(1, left == maxFrame, make([]byte, maxFrame)))
	}
	p.answers(1)
	before := p.purse.frames.Load()
	const free, beyond = maxCreditBytes/frameFare - 1, 10 // the last of the body has paid for itself
	for range free {
		p.must(0, p.WriteWindowUpdate(0, 1))
	}
	p.must(0, p.WriteWindowUpdate(0, 1))
	for range beyond {
		p.ping()
	}
	if paid := before - p.purse.frames.Load(); paid != beyond+1 {
		t.Errorf("%d frames were paid for, want %d", paid, beyond+1)
	}
}
