package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gatewayd/gateway/routes"
)

// underWay is something that goes on between guest and server while plans change.
type underWay struct {
	piece func() error // moves one more piece, and comes back when it has arrived
	end   func() error // is not nil when it was cut off, and comes back when that is known
}

// talkOrigin is a server on which things go on: /down sends a piece for each word on next, /up tells next of each piece that comes,
// and /chat is a WebSocket that sends back.
func talkOrigin(next chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		switch r.URL.Path {
		case "/v1/up":
			_ = rc.EnableFullDuplex()
			b := make([]byte, len("piece"))
			for {
				said := "piece"
				if _, err := io.ReadFull(r.Body, b); err != nil {
					said = "cut off"
				}
				select {
				case next <- said:
				case <-time.After(testWait): // the test has failed
				}
				if said != "piece" {
					return
				}
			}
		case "/v1/chat":
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
			if err != nil {
				return
			}
			defer c.CloseNow()
			for {
				kind, content, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), kind, content) != nil {
					return
				}
			}
		case "/v1/events":
			w.Header().Set("Content-Type", "text/event-stream")
		}
		_ = rc.Flush()
		for {
			select {
			case piece := <-next:
				_, _ = io.WriteString(w, piece)
				_ = rc.Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
}

// down is a response under way, of path.
func (s *stage) down(t *testing.T, h2 bool, path string, next chan string) underWay {
	resp, err := s.client(t, h2).Do(s.ask(t, "GET", path, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return underWay{
		piece: func() error {
			next <- "piece"
			_, err := io.ReadFull(resp.Body, make([]byte, len("piece")))
			return err
		},
		end: func() error { _, err := io.ReadAll(resp.Body); return err },
	}
}

// up is a request's body under way.
func (s *stage) up(t *testing.T, h2 bool, next chan string) underWay {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		resp, err := s.client(t, h2).Do(s.ask(t, "POST", "/v1/up", r))
		if err == nil {
			resp.Body.Close()
			err = fmt.Errorf("answered with %d", resp.StatusCode)
		}
		r.CloseWithError(err)
		done <- err
	}()
	t.Cleanup(func() { w.Close() })
	return underWay{
		piece: func() error {
			if _, err := io.WriteString(w, "piece"); err != nil {
				return err
			}
			select {
			case said := <-next:
				if said != "piece" {
					return errors.New(said)
				}
				return nil
			case <-soon(t).Done():
				return context.DeadlineExceeded
			}
		},
		end: func() error {
			said := <-next // the server's word: the client waits for its own body
			w.CloseWithError(io.ErrClosedPipe)
			<-done
			return errors.New(said)
		},
	}
}

// chat is a WebSocket under way.
func (s *stage) chat(t *testing.T) underWay {
	c, _, err := s.dialWS(t, "/v1/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return underWay{
		piece: func() error {
			if err := c.Write(soon(t), websocket.MessageText, []byte("piece")); err != nil {
				return err
			}
			_, _, err := c.Read(soon(t))
			return err
		},
		end: func() error { _, _, err := c.Read(soon(t)); return err },
	}
}

// thingsUnderWay are those of decrypted connections, each with what begins it.
var thingsUnderWay = []struct {
	name  string
	begin func(t *testing.T, s *stage, next chan string) underWay
}{
	{"response over HTTP/1.1", func(t *testing.T, s *stage, next chan string) underWay { return s.down(t, false, "/v1/down", next) }},
	{"response over HTTP/2", func(t *testing.T, s *stage, next chan string) underWay { return s.down(t, true, "/v1/down", next) }},
	{"events over HTTP/1.1", func(t *testing.T, s *stage, next chan string) underWay { return s.down(t, false, "/v1/events", next) }},
	{"events over HTTP/2", func(t *testing.T, s *stage, next chan string) underWay { return s.down(t, true, "/v1/events", next) }},
	{"request over HTTP/1.1", func(t *testing.T, s *stage, next chan string) underWay { return s.up(t, false, next) }},
	{"request over HTTP/2", func(t *testing.T, s *stage, next chan string) underWay { return s.up(t, true, next) }},
	{"WebSocket", func(t *testing.T, s *stage, _ chan string) underWay { return s.chat(t) }},
}

// TestPlanChangeSparesWhatItPermits swaps plans under what is under way. Those that permit it let it go on, whatever else they
// change; the first that does not cuts it off.
func TestPlanChangeSparesWhatItPermits(t *testing.T) {
	changes := []struct {
		what    string
		change  func(r *routes.Route)
		permits bool
	}{
		{"methods and paths that it is within", func(r *routes.Route) { r.Methods, r.Paths = []string{"GET", "POST"}, []string{"/v1/**"} }, true},
		{"another path besides", func(r *routes.Route) { r.Paths = []string{"/v1/**", "/v2"} }, true},
		{"it is not scanned any more", func(r *routes.Route) { r.TLSPassthrough = true }, true},
		{"another credential", func(r *routes.Route) { a := *r.Auth; a.Header = "X-Key"; a.Scheme = routes.HeaderScheme; r.Auth = &a }, false},
	}
	for _, tt := range thingsUnderWay {
		t.Run(tt.name, func(t *testing.T) {
			next := make(chan string)
			s := newStage(t, withAuth(t), talkOrigin(next))
			plain := s.b.Table.Routes()[0]
			u := tt.begin(t, s, next)
			for _, c := range changes {
				if err := u.piece(); err != nil {
					t.Fatalf("before the plan of %s: %v", c.what, err)
				}
				r := plain
				c.change(&r)
				b := testBottle(t, r)
				b.CA, b.PlanDigest = s.b.CA, c.what
				s.apply(t, b)
				if !c.permits {
					break
				}
				if err := u.piece(); err != nil {
					t.Fatalf("%s: %v", c.what, err)
				}
			}
			if u.end() == nil {
				t.Error("it looks whole although its credential is no longer the plan's")
			}
			if r := s.records.wait(t, func(r Record) bool { return r.Type == RecordFlow }); r.Reason != ReasonRevoked {
				t.Errorf("record %+v; want an intercepted flow that was revoked", r)
			}
		})
	}
}
