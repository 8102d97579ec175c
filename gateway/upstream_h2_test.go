package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatewayd/gateway/routes"
)

// What a server does to the second request on its connection, of which it looks at nothing.
const (
	h2Refuses     = "refused stream"
	h2GoesAway    = "GOAWAY that does not cover it"
	h2GoesAfter   = "GOAWAY that covers it, and the end"
	h2Ends        = "the end without a word"
	h2GoesBefore  = "GOAWAY before it"
	h2Resets      = "reset stream"
	h2SaysNothing = ""
)

// h2Closer is a server that does something to the second request of its first connection, and answers all others. It notes what it
// was sent, refused or not.
type h2Closer struct {
	mu     sync.Mutex
	heads  int
	bodies []string // that came whole
	warned chan struct{}
}

// newH2Closer serves one on a port.
func newH2Closer(t *testing.T, cert tls.Certificate, at string) (*h2Closer, uint16) {
	c := &h2Closer{warned: make(chan struct{}, 1)}
	var first sync.Once
	port := serveEach(t, "127.0.0.1", func(raw *net.TCPConn) {
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		mine := h2SaysNothing
		first.Do(func() { mine = at })
		c.serve(conn, mine)
	})
	return c, port
}

// serve speaks on one connection.
func (c *h2Closer) serve(conn *tls.Conn, at string) {
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	if f.WriteSettings() != nil {
		return
	}
	bodies := map[uint32]string{}
	answer := func(id uint32) error {
		c.mu.Lock()
		c.bodies = append(c.bodies, bodies[id])
		c.mu.Unlock()
		head.Reset()
		enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true})
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		id := frame.Header().StreamID
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() && f.WriteSettingsAck() != nil {
				return
			}
		case *http2.PingFrame:
			if !frame.IsAck() && f.WritePing(true, frame.Data) != nil {
				return
			}
		case *http2.MetaHeadersFrame:
			c.mu.Lock()
			c.heads++
			c.mu.Unlock()
			if id == 3 && at != h2SaysNothing {
				switch at {
				case h2Refuses:
					err = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				case h2Resets:
					err = f.WriteRSTStream(id, http2.ErrCodeInternal)
				case h2GoesAway:
					err = f.WriteGoAway(1, http2.ErrCodeNo, nil)
				case h2GoesAfter:
					_ = f.WriteGoAway(3, http2.ErrCodeNo, nil)
					return
				case h2Ends:
					return
				}
				if err != nil {
					return
				}
				bodies[id] = "refused"
				continue
			}
			if frame.StreamEnded() && answer(id) != nil {
				return
			}
		case *http2.DataFrame:
			if bodies[id] == "refused" {
				continue
			}
			bodies[id] += string(frame.Data())
			if frame.StreamEnded() && answer(id) != nil {
				return
			}
		}
		if id == 1 && at == h2GoesBefore && f.WriteGoAway(1, http2.ErrCodeNo, nil) == nil {
			c.warned <- struct{}{}
		}
	}
}

// TestWindowThatStaysShut shows that a server which takes nothing of a request's body, or no more than some, does not hold its stream.
func TestWindowThatStaysShut(t *testing.T) {
	for name, window := range map[string]uint32{"nothing": 0, "a part": 1 << 16} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.names.set("api.test", "127.0.0.1")
			cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
			reset := make(chan http2.ErrCode, 1)
			port := serveEach(t, "127.0.0.1", func(raw *net.TCPConn) {
				conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
				defer conn.Close()
				if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				f := http2.NewFramer(conn, conn)
				if f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}) != nil {
					return
				}
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						return
					}
					switch frame := frame.(type) {
					case *http2.SettingsFrame:
						if !frame.IsAck() && f.WriteSettingsAck() != nil {
							return
						}
					case *http2.RSTStreamFrame:
						reset <- frame.ErrCode
					}
				}
			})
			u := w.bare(Deadlines{UpstreamHeader: 100 * time.Millisecond})
			defer u.close()
			req := get("/", 2).WithContext(soon(t))
			req.Method, req.Body, req.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<18))), 1<<18 // more than leaves before the server's settings are read
			_, err := u.RoundTrip(&routes.Route{Host: "api.test", Port: port, Protocol: routes.HTTPS}, "api.test", req, nobody{})
			var ue *UpstreamError
			if !errors.As(err, &ue) || ue.Stage != ReasonUpstreamExchange || !errors.Is(err, context.DeadlineExceeded) || req.Context().Err() != nil {
				t.Errorf("got %v", err)
			}
			if code := <-reset; code != http2.ErrCodeCancel {
				t.Errorf("the stream ended with %v", code)
			}
		})
	}
}

// TestSilentUpstream shows that a server over HTTP/2 which says nothing is asked whether it is there, and left with its requests if it
// does not answer; one that does may take its time.
func TestSilentUpstream(t *testing.T) {
	for name, there := range map[string]bool{"gone": false, "there": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.names.set("api.test", "127.0.0.1")
			cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
			const enough = 3 // questions, after which the server that is there answers the request
			port := serveEach(t, "127.0.0.1", func(raw *net.TCPConn) {
				conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
				defer conn.Close()
				if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				f := http2.NewFramer(conn, conn)
				err, stream := f.WriteSettings(), uint32(0)
				for asked := 0; err == nil; {
					var frame http2.Frame
					if frame, err = f.ReadFrame(); err != nil {
						return
					}
					switch frame := frame.(type) {
					case *http2.SettingsFrame:
						if !frame.IsAck() {
							err = f.WriteSettingsAck()
						}
					case *http2.HeadersFrame:
						stream = frame.StreamID
					case *http2.PingFrame:
						if there {
							err = f.WritePing(true, frame.Data)
						}
						asked++
					}
					if there && asked == enough && stream != 0 && err == nil {
						const status200 = 0x80 | 8 // RFC 7541 appendix A
						err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{status200}, EndHeaders: true, EndStream: true})
						stream = 0
					}
				}
			})
			waits := Deadlines{UpstreamPing: 20 * time.Millisecond, UpstreamPingWait: testWait}
			if !there {
				waits.UpstreamPingWait = 20 * time.Millisecond
			}
			u := w.bare(waits)
			defer u.close()
			req := get("/", 2).WithContext(soon(t))
			resp, err := u.RoundTrip(&routes.Route{Host: "api.test", Port: port, Protocol: routes.HTTPS}, "api.test", req, nobody{})
			var ue *UpstreamError
			switch {
			case there && (err != nil || resp.StatusCode != http.StatusOK):
				t.Errorf("got %v, %v", resp, err)
			case !there && (!errors.As(err, &ue) || ue.Stage != ReasonUpstreamExchange || req.Context().Err() != nil):
				t.Errorf("got %v, %v", resp, err)
			}
			if err == nil {
				resp.Body.Close()
			}
		})
	}
}

// TestNoRequestIsLostOrSentTwiceH2 has servers over HTTP/2 refuse, go away and end. A request that the server says it has not looked
// at is sent again if it has no body (RFC 9113 section 8.7); one that may have been is not. What the server answers, it got once.
func TestNoRequestIsLostOrSentTwiceH2(t *testing.T) {
	for _, tt := range []struct {
		at     string
		method string
		body   string
		heads  int  // of the one request, at most
		answer bool // the guest has a response
	}{
		{h2Refuses, "GET", "", 2, true},
		{h2Refuses, "POST", "", 2, true},
		{h2Refuses, "POST", "body", 1, false},
		{h2GoesAway, "GET", "", 2, true},
		{h2GoesAway, "POST", "", 2, true},
		{h2GoesAway, "POST", "body", 1, false},
		{h2GoesAfter, "GET", "", 1, false},
		{h2GoesAfter, "POST", "body", 1, false},
		{h2Ends, "GET", "", 1, false},
		{h2Ends, "POST", "body", 1, false},
		{h2Resets, "GET", "", 1, false},
		{h2Resets, "POST", "body", 1, false},
		{h2GoesBefore, "GET", "", 1, true},
		{h2GoesBefore, "POST", "body", 1, true},
	} {
		name := tt.method + ", " + tt.at
		if tt.body != "" {
			name += ", with a body"
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.names.set("api.test", "127.0.0.1")
			c, port := newH2Closer(t, w.roots.leaf(t, time.Now().Add(time.Hour), "api.test"), tt.at)
			u := w.bare(Deadlines{})
			defer u.close()
			route := &routes.Route{Host: "api.test", Port: port, Protocol: routes.HTTPS}
			send := func(method, body string) error {
				req := get("/", 2).WithContext(soon(t))
				req.Method = method
				if body != "" {
					req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
				}
				resp, err := u.RoundTrip(route, "api.test", req, nobody{})
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				return err
			}
			if err := send(http.MethodGet, ""); err != nil {
				t.Fatal(err)
			}
			if tt.at == h2GoesBefore {
				<-c.warned
				for gone := false; !gone; { // until the GOAWAY was read
					p, _ := u.pool(route, "api.test")
					p.h2.mu.Lock()
					gone = len(p.h2.conns) == 0
					p.h2.mu.Unlock()
				}
			}
			if err := send(tt.method, tt.body); (err == nil) != tt.answer {
				t.Errorf("got %v; answered is to be %t", err, tt.answer)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if got := c.heads - 1; got > tt.heads {
				t.Errorf("the server was sent the request %d times, want at most %d", got, tt.heads)
			}
			if want := 1; tt.answer && (len(c.bodies) != want+1 || c.bodies[1] != tt.body) {
				t.Errorf("the server looked at %q, want the request once and whole", c.bodies[1:])
			}
			if !tt.answer && len(c.bodies) != 1 {
				t.Errorf("the server looked at %q, and the guest does not know", c.bodies[1:])
			}
		})
	}
}
