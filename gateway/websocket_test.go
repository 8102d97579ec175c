package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/routes"
)

// newEcho is a stage whose origin says every message back, and, first, what it saw of the handshake.
func newEcho(t testing.TB, change func(*routes.Route), others ...routes.Route) *stage {
	return newStage(t, change, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusUpgradeRequired)
			io.WriteString(w, "use HTTP")
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, CompressionMode: websocket.CompressionContextTakeover, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(64 << 20)
		ctx := r.Context()
		hello := fmt.Sprintf("%q %q %q", r.Header.Get("Authorization"), r.Header.Get("Sec-Websocket-Extensions"), c.Subprotocol())
		if err := c.Write(ctx, websocket.MessageText, []byte(hello)); err != nil {
			return
		}
		for {
			kind, content, err := c.Read(ctx)
			if err != nil {
				return
			}
			if err := c.Write(ctx, kind, content); err != nil {
				return
			}
		}
	}, others...)
}

// dialWS opens a WebSocket connection from the bottle.
func (s *stage) dialWS(t testing.TB, path string, h http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	return s.dialCompressed(t, path, h, websocket.CompressionContextTakeover)
}

// compressionModes are the ways in which a guest offers to compress, with what it then writes into its handshake.
var compressionModes = map[websocket.CompressionMode]string{
	websocket.CompressionDisabled:          "",
	websocket.CompressionContextTakeover:   "permessage-deflate",
	websocket.CompressionNoContextTakeover: "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
}

func (s *stage) dialCompressed(t testing.TB, path string, h http.Header, mode websocket.CompressionMode) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	client := s.client(t, false)
	if s.streams {
		client = s.streamClient(t)
	}
	c, resp, err := websocket.Dial(soon(t), s.url(path), &websocket.DialOptions{
		HTTPClient: client, HTTPHeader: h, Subprotocols: []string{"chat"}, CompressionMode: mode, CompressionThreshold: 1,
	})
	if err == nil {
		t.Cleanup(func() { c.CloseNow() })
		c.SetReadLimit(64 << 20)
	}
	return c, resp, err
}

// opened is the status with which a WebSocket opens.
func (s *stage) opened() int {
	if s.streams {
		return http.StatusOK
	}
	return http.StatusSwitchingProtocols
}

// read reads one message.
func read(t testing.TB, c *websocket.Conn) string {
	t.Helper()
	_, b, err := c.Read(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWebSocket(t *testing.T) {
	overBoth(t, func(t *testing.T, streams bool) {
		s := newEcho(t, func(r *routes.Route) {
			withAuth(t)(r)
			r.TLSPassthrough = true // not scanned, so that the guest may say the secret itself
		})
		s.streams = streams
		for mode, offer := range compressionModes {
			testWebSocket(t, s, fmt.Sprintf("/ws%d", mode), mode, offer)
		}
	})
}

func testWebSocket(t *testing.T, s *stage, path string, mode websocket.CompressionMode, offer string) {
	c, resp, err := s.dialCompressed(t, path, http.Header{"Authorization": {"Bearer " + canaryDummy}}, mode)
	if err != nil {
		t.Fatal(err)
	}
	if (resp.Header.Get("Sec-Websocket-Extensions") != "") != (offer != "") || c.Subprotocol() != "chat" {
		t.Errorf("the handshake answered %v", resp.Header)
	}
	masked := strings.Repeat("*", len(canarySecret))
	if got, want := read(t, c), fmt.Sprintf("%q %q %q", "Bearer "+masked, offer, "chat"); got != want {
		t.Errorf("the origin saw and said %s, want %s", got, want)
	}
	for _, content := range []string{"", "x", strings.Repeat("y", 125), strings.Repeat("y", 126), strings.Repeat("z", 70_000), strings.Repeat("z", 3<<20), "a " + canarySecret + " b"} {
		if err := c.Write(soon(t), websocket.MessageBinary, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, c); got != strings.ReplaceAll(content, canarySecret, masked) {
			t.Errorf("echo of %d bytes came as %d: %.80q", len(content), len(got), got)
		}
	}
	w, err := c.Writer(soon(t), websocket.MessageText) // a fragment for each write
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"one ", canarySecret[:9], canarySecret[9:], " two"} {
		io.WriteString(w, part)
	}
	w.Close()
	if got := read(t, c); got != "one "+masked+" two" {
		t.Errorf("fragments came as %q", got)
	}
	ctx := c.CloseRead(soon(t))
	if err := c.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
	rec := s.request(t, func(r Record) bool { return r.Path == path })
	if rec.Status != s.opened() || !rec.Injected || rec.BytesUp < 1<<10 || offer == "" && rec.BytesUp < 3<<20 || rec.BytesDown < 3<<20 || rec.Error != "" || !rec.Upstream.IsValid() {
		t.Errorf("record %+v", rec)
	}
}

func TestWebSocketRefused(t *testing.T) {
	overBoth(t, func(t *testing.T, streams bool) {
		s := newEcho(t, withAuth(t))
		s.streams = streams
		if _, resp, err := s.dialWS(t, "/refuse", nil); err == nil || resp == nil || resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("got %v, %v; want the origin's 426", resp, err)
		}
		_, resp, err := s.dialWS(t, "/ws", http.Header{"Authorization": {"Bearer somebody-elses-credential"}})
		if err == nil || resp == nil || resp.StatusCode != 403 {
			t.Errorf("got %v, %v; want 403", resp, err)
		}
		s.request(t, func(r Record) bool { return r.Reason == ReasonForeignCredential })
	})
}

// TestWebSocketLeak shows that a dummy in a message ends the connection before the origin has the message.
func TestWebSocketLeak(t *testing.T) {
	overBoth(t, func(t *testing.T, streams bool) {
		s := newEcho(t, nil, authRoute(t, "home.test", 443))
		s.streams = streams
		s.b.Formats = builtinSet(t)
		s.apply(t, s.b)
		n := 0
		for mode := range compressionModes {
			for name, messages := range map[string][]string{
				"known":                  {"fine", canaryDummy},
				"known, late":            {"fine", strings.Repeat("x", 100_000) + canaryDummy},
				"known, in two messages": {"fine " + canaryDummy[:11], canaryDummy[11:]},
				"form":                   {"fine", `{"arguments":"{\"env\":\"one\\n` + formToken() + `\\ntwo\"}"}`},
				"form, seen before":      {formToken()[:20], formToken()},
				"form, referred to":      {modelRequest + formToken()[:30], modelRequest + formToken()}, // short messages refer to nothing
			} {
				n++
				path := fmt.Sprintf("/leak%d", n)
				c, _, err := s.dialCompressed(t, path, nil, mode)
				if err != nil {
					t.Fatal(err)
				}
				read(t, c)
				for i, m := range messages {
					w, err := c.Writer(soon(t), websocket.MessageText) // fragments, for a part of each write
					if err != nil {
						t.Fatal(err)
					}
					for _, part := range []string{m[:len(m)/3], m[len(m)/3:]} {
						io.WriteString(w, part)
					}
					w.Close()
					if i < len(messages)-1 {
						if got := read(t, c); got != m {
							t.Errorf("%s: %q came as %q", name, m, got)
						}
					}
				}
				_, _, err = c.Read(soon(t))
				var closed websocket.CloseError
				if !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation || !strings.Contains(closed.Reason, "leak") {
					t.Errorf("%s, mode %d: the guest read %v; want a close that says why", name, mode, err)
				}
				rec := s.request(t, func(r Record) bool { return r.Path == path })
				if rec.Reason != ReasonLeak || rec.Decision != routes.Deny || !strings.Contains(rec.Finding, "in websocket message: ") {
					t.Errorf("%s: record %+v", name, rec)
				}
				if rec.Finding != "" && strings.HasPrefix(name, "form") != strings.HasPrefix(rec.Finding, "github-pat ") {
					t.Errorf("%s: the finding is %q", name, rec.Finding)
				}
			}
		}
	})
}

// TestWebSocketControlLeak has a token in a ping, and in the reason of a close frame: neither reaches the origin, and the guest is
// told why.
func TestWebSocketControlLeak(t *testing.T) {
	heard := make(chan string, 1)
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			InsecureSkipVerify: true,
			OnPingReceived:     func(_ context.Context, payload []byte) bool { heard <- string(payload); return false },
		})
		if err != nil {
			return
		}
		defer c.CloseNow()
		_, _, err = c.Read(r.Context())
		heard <- fmt.Sprint(err)
	}, authRoute(t, "home.test", 443))
	for name, head := range map[string][]byte{"ping": {0x89, 0x80 | byte(len(canaryDummy)), 0, 0, 0, 0}, "close": {0x88, 0x80 | byte(2+len(canaryDummy)), 0, 0, 0, 0, 0x03, 0xe8}} {
		conn, in := s.raw(t, "api.test", s.port)
		fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: api.test:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", name, s.port)
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
			t.Fatalf("handshake: %v, %v", resp, err)
		}
		conn.Write(append(head, canaryDummy...))
		told, _ := io.ReadAll(in)
		conn.Close()
		if got := <-heard; strings.Contains(got, canaryDummy[:8]) || !strings.Contains(string(told), "leak refused") {
			t.Errorf("%s: the origin heard %q, and the guest was told %q", name, got, told)
		}
		rec := s.request(t, func(r Record) bool { return r.Path == "/"+name })
		if rec.Reason != ReasonLeak || rec.Decision != routes.Deny || !strings.HasPrefix(rec.Finding, "dummy of home.test in websocket control frame: ") {
			t.Errorf("%s: record %+v", name, rec)
		}
	}
}

// TestWebSocketBomb sends a small message that stands for a large one.
func TestWebSocketBomb(t *testing.T) {
	overBoth(t, func(t *testing.T, streams bool) {
		s := newEcho(t, nil)
		s.streams = streams
		c, _, err := s.dialWS(t, "/bomb", nil)
		if err != nil {
			t.Fatal(err)
		}
		read(t, c)
		if err := c.Write(soon(t), websocket.MessageBinary, make([]byte, 64<<20)); err != nil {
			t.Logf("the guest was cut off as it wrote: %v", err)
		}
		_, _, err = c.Read(soon(t))
		var closed websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation || !strings.Contains(closed.Reason, "cannot be scanned") {
			t.Errorf("the guest read %v; want a close that says why", err)
		}
		rec := s.request(t, func(r Record) bool { return r.Path == "/bomb" })
		if rec.Reason != ReasonUnscannable || rec.Decision != routes.Deny || !strings.Contains(rec.Error, "beyond all proportion") {
			t.Errorf("record %+v", rec)
		}
	})
}

// TestDeflateOffers says which extensions are passed on, and which answers are taken.
func TestDeflateOffers(t *testing.T) {
	for _, c := range []struct{ offered, passed string }{
		{"", ""},
		{"permessage-deflate", "permessage-deflate"},
		{"x-webkit-deflate-frame, permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits"},
		{`permessage-deflate;server_max_window_bits="10" ; client_max_window_bits=15,permessage-deflate`, "permessage-deflate; server_max_window_bits=10; client_max_window_bits=15, permessage-deflate"},
		{"permessage-deflate; client_max_window_bits=16", ""}, {"permessage-deflate; server_max_window_bits", ""},
		{"permessage-deflate; server_no_context_takeover=1", ""}, {"permessage-deflate; unheard_of", ""},
		{"permessage-deflate; client_no_context_takeover; client_no_context_takeover", ""}, {"permessage-deflate;", "permessage-deflate"},
		{"permessage-bzip", ""}, {"permessage-deflate; server_max_window_bits=010", ""},
		{strings.Repeat("permessage-deflate,", 9), strings.TrimSuffix(strings.Repeat("permessage-deflate, ", mostOffers), ", ")},
	} {
		h := http.Header{"Sec-Websocket-Extensions": {c.offered}}
		limitExtensions(h)
		if got := h.Get("Sec-Websocket-Extensions"); got != c.passed {
			t.Errorf("%q was passed on as %q, want %q", c.offered, got, c.passed)
		}
	}
	offers := limitExtensions(http.Header{"Sec-Websocket-Extensions": {"permessage-deflate"}})
	bits := limitExtensions(http.Header{"Sec-Websocket-Extensions": {"permessage-deflate; client_max_window_bits"}})
	for _, c := range []struct {
		answer string
		offers []deflate
		ok     bool
	}{
		{"permessage-deflate", offers, true}, {"permessage-deflate; server_no_context_takeover; client_no_context_takeover", offers, true},
		{"permessage-deflate; client_max_window_bits=10", bits, true}, {"permessage-deflate; client_max_window_bits=10", offers, false},
		{"permessage-deflate", nil, false}, {"permessage-deflate, permessage-deflate", offers, false}, {"", offers, false},
		{"x-webkit-deflate-frame", offers, false}, {"permessage-deflate; client_max_window_bits", bits, false},
	} {
		if d, err := agreedDeflate(http.Header{"Sec-Websocket-Extensions": {c.answer}}, c.offers); (err == nil) != c.ok || (d != nil) != c.ok {
			t.Errorf("%q to %v: %v, %v", c.answer, c.offers, d, err)
		}
	}
	if d, err := agreedDeflate(http.Header{}, offers); d != nil || err != nil {
		t.Errorf("no answer: %v, %v", d, err)
	}
}

// TestWebSocketEndsTogether shows that neither side outlives the other.
func TestWebSocketEndsTogether(t *testing.T) {
	overBoth(t, func(t *testing.T, streams bool) {
		ended := make(chan error, 1)
		s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			if r.URL.Path == "/origin" {
				return
			}
			_, _, err = c.Read(context.Background())
			ended <- err
		})
		s.streams = streams
		c, _, err := s.dialWS(t, "/guest", nil)
		if err != nil {
			t.Fatal(err)
		}
		c.CloseNow()
		select {
		case <-ended:
		case <-time.After(testWait):
			t.Error("the origin's side outlived the guest's")
		}
		if c, _, err = s.dialWS(t, "/origin", nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Read(soon(t)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the guest's side outlived the origin's: %v", err)
		}
		s.request(t, func(r Record) bool { return r.Path == "/origin" && r.Status == s.opened() })
	})
}

// TestWebSocketBrokenFrames says what no client may, and sees the connection end.
func TestWebSocketBrokenFrames(t *testing.T) {
	s := newEcho(t, nil)
	for i, frame := range [][]byte{
		{0x81, 0x01, 'x'},                                   // not masked
		{0xc1, 0x81, 0, 0, 0, 0, 'x'},                       // reserved bit
		{0x83, 0x81, 0, 0, 0, 0, 'x'},                       // reserved opcode
		{0x09, 0x80, 0, 0, 0, 0},                            // fragmented ping
		{0x80, 0x81, 0, 0, 0, 0, 'x'},                       // continuation of nothing
		{0x82, 0xfe, 0, 1, 0, 0, 0, 0, 'x'},                 // length not in its shortest form
		{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, // length beyond bounds
	} {
		conn, in := s.raw(t, "api.test", s.port)
		path := fmt.Sprintf("/broken%d", i)
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: api.test:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, s.port)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Fatalf("handshake: %v, %v", resp, err)
		}
		conn.Write(frame)
		io.Copy(io.Discard, in)
		if rec := s.request(t, func(r Record) bool { return r.Path == path }); !strings.Contains(rec.Error, "read frame") {
			t.Errorf("frame %x: record %+v", frame, rec)
		}
	}
}

// FuzzFrames runs arbitrary bytes through one direction and holds what comes out against what a plain parser reads from it:
// the same messages, in the same order.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 0x81, 1, 2, 3, 4, 'x'})
	f.Add([]byte{0x41, 0x81, 1, 2, 3, 4, 'x', 0x80, 0x81, 1, 2, 3, 4, 'x'})
	f.Add([]byte{0x01, 0x81, 0, 0, 0, 0, 'x', 0x89, 0x80, 0, 0, 0, 0, 0x80, 0x82, 9, 9, 9, 9, 'y', 'z', 0x88, 0x80, 0, 0, 0, 0})
	f.Add(append([]byte{0x82, 0xfe, 0, 126, 5, 6, 7, 8}, make([]byte, 126)...))
	const canary = "canary-of-a-test-7f3a"
	token := "gl" + "pat-1x2Y3z4W5v6U7t8S9r0Q"
	for _, text := range []string{canary, token} {
		f.Add(append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...))
		f.Add(append(append([]byte{0x01, 0x85, 0, 0, 0, 0}, text[:5]...), append([]byte{0x80, 0x80 | byte(len(text)-5), 0, 0, 0, 0}, text[5:]...)...))
	}
	set := builtinSet(f)
	scanner := pipelock.New([]pipelock.Token{{Name: "canary", Value: canary}}).WithFormats(set, set.Policy(nil, false))
	pool := newBytePool(64 + frameHead)
	f.Fuzz(func(t *testing.T, raw []byte) {
		want, _ := messages(raw, true)
		for filter, of := range map[string]messageFilter{
			"none": nil,
			"same": func(r io.Reader, _ bool) (io.Reader, bool, error) { return r, true, nil },
			"scan": scanning(scanner),
		} {
			var out bytes.Buffer
			to := &frameWriter{out: &out, masked: true}
			d := &messagePump{in: messageReader{in: bufio.NewReader(bytes.NewReader(raw)), masked: true, compresses: true}, out: to, pool: pool, count: &(&exchange{}).sent}
			d.in.control = func(op byte, p []byte) error {
				err := to.control(op, p)
				if err != nil && to.left == 0 {
					t.Fatalf("control frame: %v", err)
				}
				return err
			}
			d.filter = of
			if err := d.run(); err == nil {
				t.Fatal("a direction ended without an end")
			}
			got, err := messages(out.Bytes(), true)
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("wrote what cannot be read: %v", err)
			}
			if len(got) > len(want) {
				t.Fatalf("%d messages became %d", len(want), len(got))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("filter %s: message %d: %q became %q", filter, i, want[i], got[i])
				}
				if isText := got[i][0] < '8'; filter == "scan" && isText && (strings.Contains(got[i], canary) || strings.Contains(got[i], token)) {
					t.Fatalf("message %d went: %q", i, got[i])
				}
			}
		}
	})
}

// scanning returns the filter of a guest's messages.
func scanning(scanner *pipelock.Scanner) messageFilter {
	messages := scanner.Messages("api.test", true)
	return func(r io.Reader, compressed bool) (io.Reader, bool, error) {
		return messages.Next(r, compressed), true, nil
	}
}

// messages reads whole messages, and control frames, the plainest way there is.
func messages(raw []byte, masked bool) (out []string, err error) {
	in := bufio.NewReader(bytes.NewReader(raw))
	open, content := "", ""
	for {
		h, err := readFrameHeader(in, masked, true)
		if err != nil {
			return out, err
		}
		payload, err := io.ReadAll(io.LimitReader(in, h.length))
		if err != nil || int64(len(payload)) < h.length {
			return out, io.ErrUnexpectedEOF
		}
		for i := range payload {
			payload[i] ^= h.key[i%4]
		}
		switch {
		case h.op >= opClose:
			if h.op == opClose {
				return append(out, fmt.Sprint(h.op, " ", string(payload))), io.EOF
			}
			out = append(out, fmt.Sprint(h.op, " ", string(payload)))
			continue
		case (h.op == opContinuation) != (open != ""):
			return out, &FrameError{"order"}
		case h.op != opContinuation:
			open, content = fmt.Sprint(h.op, h.compressed, " "), ""
		}
		content += string(payload)
		if h.fin {
			out, open = append(out, open+content), ""
		}
	}
}

func TestMask(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	for length := range 40 {
		for pos := range 5 {
			got := make([]byte, length)
			end := applyMask(got, key, pos)
			want := make([]byte, length)
			for i := range want {
				want[i] = key[(pos+i)%4]
			}
			if !bytes.Equal(got, want) || end != pos+length {
				t.Fatalf("%d bytes at %d: %x, %d; want %x", length, pos, got, end, want)
			}
		}
	}
}

// TestMaskKeysDiffer shows that the guest cannot foresee the bytes that its message becomes on the wire.
func TestMaskKeysDiffer(t *testing.T) {
	w := &frameWriter{out: io.Discard, masked: true}
	seen := map[uint32]bool{}
	for range 100 {
		if err := w.control(opPing, nil); err != nil {
			t.Fatal(err)
		}
		seen[binary.LittleEndian.Uint32(w.key[:])] = true
	}
	if len(seen) < 99 {
		t.Errorf("%d different keys in 100 frames", len(seen))
	}
}
