package gateway

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/routes"
)

// TestH2BodyThatNeverComes opens requests whose bodies do not come, or too slowly, while the guest answers every PING: they end with
// 408, towards the server as well, and the record says why. A body whose response has begun may take any time.
func TestH2BodyThatNeverComes(t *testing.T) {
	stalled := http1.Limits{BodyIdle: 100 * time.Millisecond}
	slow := http1.Limits{BodyGrace: time.Nanosecond, BodyRate: 1 << 40}
	for _, tt := range []struct {
		name   string
		path   string
		limits http1.Limits
		first  string // what comes of the body
		status string
		detail string
	}{
		{"none", "/read", stalled, "", "408", "the body stalled"},
		{"some", "/read", stalled, "some", "408", "the body stalled"},
		{"too slowly", "/read", slow, "some", "408", "the body came too slowly"},
		{"answered first", "/talk", stalled, "some", "200", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			broke, more := make(chan error, 1), make(chan struct{})
			s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/talk" {
					_ = http.NewResponseController(w).Flush()
					<-more
				}
				_, err := io.Copy(io.Discard, r.Body)
				broke <- err
			})
			s.g.engine.body = tt.limits
			f := s.newFrames(t)
			if err := f.head(&floodWorld{stage: s}, tt.path, false); err != nil {
				t.Fatal(err)
			}
			if tt.first != "" {
				if err := f.WriteData(1, false, []byte(tt.first)); err != nil {
					t.Fatal(err)
				}
			}
			for status := ""; status == ""; {
				frame, err := f.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				switch frame := frame.(type) {
				case *http2.MetaHeadersFrame:
					if status = frame.PseudoValue("status"); status != tt.status {
						t.Errorf("got %s, want %s", status, tt.status)
					}
				case *http2.RSTStreamFrame:
					t.Fatalf("the stream was reset: %s", frame.ErrCode)
				}
			}
			if tt.status == "200" {
				time.Sleep(3 * tt.limits.BodyIdle) // a wait that must not matter
				close(more)
				if err := f.WriteData(1, true, []byte("rest")); err != nil {
					t.Fatal(err)
				}
				if err := <-broke; err != nil {
					t.Errorf("the server's read of the body: %v", err)
				}
				return
			}
			if err := <-broke; err == nil {
				t.Error("the server takes the body for whole")
			}
			r := s.request(t, func(r Record) bool { return r.Path == tt.path })
			if r.Reason != routes.Reason("http_"+http1.ReasonSlowBody) || r.Status != http.StatusRequestTimeout {
				t.Errorf("record %+v", r)
			}
			for len(s.bottle("dev").meter.streams) > 0 {
				time.Sleep(time.Millisecond) // until the handler has returned, or the test's deadline
			}
		})
	}
}

// TestH2DenialIsNotCutOff sends a body that nobody will read after the answer to its head: the stream ends in order, since
// clients that are about to send report a reset in place of the answer. A body without end is reset after all.
func TestH2DenialIsNotCutOff(t *testing.T) {
	for _, endless := range []bool{false, true} {
		t.Run(fmt.Sprintf("endless %v", endless), func(t *testing.T) {
			s := newStage(t, func(r *routes.Route) { r.Methods = []string{"GET"} }, func(http.ResponseWriter, *http.Request) { t.Error("the origin was asked") })
			s.g.engine.rest = testWait
			if endless {
				s.g.engine.rest = time.Millisecond
			}
			f := s.newFrames(t)
			if err := f.head(&floodWorld{stage: s}, "/", false); err != nil {
				t.Fatal(err)
			}
			if status := f.answered(); status != "403" {
				t.Fatalf("answered %s, want 403", status)
			}
			if !endless {
				if err := f.WriteData(1, true, []byte("what was on its way")); err != nil {
					t.Fatal(err)
				}
			}
			if reset := f.reset(t); reset != endless {
				t.Errorf("reset %v", reset)
			}
		})
	}
}

// reset reads to the end of a stream and reports whether that was a reset. One behind the end counts too.
func (f *frames) reset(t *testing.T) (reset bool) {
	t.Helper()
	ended := false
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			return true
		case *http2.DataFrame:
			if ended = ended || frame.StreamEnded(); ended { // what follows comes before the answer to another ping
				if err := f.WritePing(false, [8]byte{2}); err != nil {
					t.Fatal(err)
				}
			}
		case *http2.PingFrame:
			if ended && frame.IsAck() && frame.Data == [8]byte{2} {
				return false
			}
		}
	}
}
