package gateway

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatewayd/gateway/routes"
)

// streamTransport opens WebSockets on streams of HTTP/2 (RFC 8441) for a client that knows HTTP/1.1's handshake alone.
type streamTransport struct {
	h2 interface {
		http.RoundTripper
		CloseIdleConnections()
	}
}

// streamClient is the bottle's.
func (s *stage) streamClient(t testing.TB) *http.Client {
	tr := streamTransport{&http2.Transport{ //nolint:staticcheck // net/http's takes no :protocol
		TLSClientConfig: &tls.Config{RootCAs: bottlePool(t, s.b)},
		DialTLSContext: func(ctx context.Context, _, _ string, c *tls.Config) (net.Conn, error) {
			raw, err := s.sockets.tryCall(t, s.b.Link, anywhere(s.port))
			if err != nil {
				return nil, err
			}
			conn := tls.Client(raw, c)
			return conn, conn.HandshakeContext(ctx)
		},
	}}
	t.Cleanup(tr.h2.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// RoundTrip is [http.RoundTripper].RoundTrip.
func (s streamTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	sum := sha1.Sum([]byte(req.Header.Get("Sec-Websocket-Key") + websocketGUID))
	out := req.Clone(context.WithoutCancel(req.Context()))
	for _, key := range []string{"Connection", "Upgrade", "Sec-Websocket-Key"} {
		delete(out.Header, http.CanonicalHeaderKey(key))
		delete(out.Header, strings.Replace(key, "socket", "Socket", 1))
	}
	out.Header[protocolField] = []string{"websocket"}
	r, w := io.Pipe()
	out.Method, out.Body, out.ContentLength = http.MethodConnect, r, -1
	resp, err := s.h2.RoundTrip(out)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.Close()
		return resp, err
	}
	for _, key := range []string{"Connection", "Upgrade", "Sec-Websocket-Accept"} {
		if resp.Header[key] != nil {
			return nil, fmt.Errorf("the stream was opened with %s", key)
		}
	}
	resp.StatusCode = http.StatusSwitchingProtocols
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	resp.Body = &clientStream{resp.Body, w}
	return resp, nil
}

// clientStream is a client's end of a stream.
type clientStream struct {
	io.ReadCloser
	w *io.PipeWriter
}

// Write is [io.Writer].Write.
func (s *clientStream) Write(p []byte) (int, error) { return s.w.Write(p) }

// Close is [io.Closer].Close.
func (s *clientStream) Close() error {
	s.w.Close()
	return s.ReadCloser.Close()
}

// overBoth runs a test with WebSockets that have a connection of their own, and with such that have a stream of one.
func overBoth(t *testing.T, test func(t *testing.T, streams bool)) {
	t.Run("connections", func(t *testing.T) { test(t, false) })
	t.Run("streams", func(t *testing.T) { test(t, true) })
}

// connectHead says an extended CONNECT on the next stream and leaves it open unless end is set. fields come after the usual
// ones; "" as the value of one leaves it out.
func (s *stage) connectHead(t *testing.T, f *frames, path string, end bool, fields ...string) {
	t.Helper()
	all := [][2]string{
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":authority", fmt.Sprintf("api.test:%d", s.port)},
		{":path", path}, {"sec-websocket-version", "13"},
	}
	for i := 0; i < len(fields); i += 2 {
		set := false
		for j := range all {
			if all[j][0] == fields[i] {
				all[j][1], set = fields[i+1], true
			}
		}
		if !set {
			all = append(all, [2]string{fields[i], fields[i+1]})
		}
	}
	f.buf.Reset()
	for _, h := range all {
		if h[1] != "" {
			f.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.id, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
		t.Fatal(err)
	}
	f.id += 2
}

// answered reads up to the status of a response, or what became of the stream instead.
func (f *frames) answered() string {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "connection ended"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "stream reset"
		}
	}
}

// TestExtendedConnect shows that guests are told that they may open WebSockets on streams (RFC 8441 section 3), and what they
// may not open. What the origin sees is always a handshake of HTTP/1.1 with a key of the gateway's own.
func TestExtendedConnect(t *testing.T) {
	s := newStage(t, func(r *routes.Route) { r.Methods, r.Paths = []string{"GET"}, []string{"/ws", "/plain", "/refuse"} }, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.Header.Get("Upgrade") != "websocket" || len(r.Header.Get("Sec-Websocket-Key")) != 24 {
			t.Errorf("the origin saw %s %s %v", r.Proto, r.Method, r.Header)
		}
		switch r.URL.Path {
		case "/plain":
			_, _ = io.WriteString(w, "no WebSocket")
		case "/refuse":
			w.WriteHeader(http.StatusUpgradeRequired)
		default:
			if c, err := websocket.Accept(w, r, nil); err == nil {
				c.CloseNow()
			}
		}
	})
	f := s.newFrames(t)
	frame, err := f.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	if settings, ok := frame.(*http2.SettingsFrame); !ok {
		t.Fatalf("the first frame is %v, want settings", frame)
	} else if v, _ := settings.Value(http2.SettingEnableConnectProtocol); v != 1 {
		t.Error("extended CONNECT is not offered")
	}
	for _, c := range []struct {
		name, path, want string
		end              bool
		fields           []string
	}{
		{name: "good", path: "/ws", want: "200"},
		{name: "a key of the guest's", path: "/ws", want: "200", fields: []string{"sec-websocket-key", "x"}},
		{name: "a path that the plan denies", path: "/other", want: "403"},
		{name: "a path that could be read otherwise", path: "/x/../ws", want: "403"},
		{name: "another host", path: "/ws", want: "421", fields: []string{":authority", "other.test"}},
		{name: "another protocol", path: "/ws", want: "501", fields: []string{":protocol", "connect-udp"}},
		{name: "another scheme", path: "/ws", want: "400", fields: []string{":scheme", "http"}},
		{name: "no scheme", path: "/ws", want: "stream reset", fields: []string{":scheme", ""}},
		{name: "no path", want: "stream reset"},
		{name: "another method", path: "/ws", want: "400", fields: []string{":method", "GET"}},
		{name: "a method with a body", path: "/ws", want: "400", fields: []string{":method", "POST"}},
		{name: "a length", path: "/ws", want: "400", fields: []string{"content-length", "3"}},
		{name: "no stream", path: "/ws", want: "400", end: true},
		{name: "an upgrade as well", path: "/ws", want: "400", fields: []string{"connection", "upgrade", "upgrade", "websocket"}},
		{name: "an origin that does not upgrade", path: "/plain", want: "502"},
		{name: "an origin that refuses", path: "/refuse", want: "426"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := s.newFrames(t)
			s.connectHead(t, f, c.path, c.end, c.fields...)
			if got := f.answered(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestExtendedConnectAnswered shows that a route that is answered on the host opens no WebSocket.
func TestExtendedConnectAnswered(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t, routes.Route{Host: "api.test", Answer: "yes"})
	b.Answerers = map[string]http.Handler{"yes": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("an answer was asked for") })}
	w.apply(t, b)
	s := &stage{world: w, b: b, port: 443}
	f := s.newFrames(t)
	s.connectHead(t, f, "/", false)
	if got := f.answered(); got != "501" {
		t.Errorf("got %s, want 501", got)
	}
}

// TestStreamsShareAConnection has many WebSockets on one connection, beside requests, and ends one by a reset.
func TestStreamsShareAConnection(t *testing.T) {
	s := newEcho(t, nil)
	s.streams = true
	client := s.streamClient(t)
	var all []*websocket.Conn
	for i := range 20 {
		c, _, err := websocket.Dial(soon(t), s.url(fmt.Sprintf("/ws%d", i)), &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		read(t, c)
		all = append(all, c)
	}
	all[0].CloseNow()
	s.request(t, func(r Record) bool { return r.Path == "/ws0" })
	for i, c := range all[1:] {
		text := strings.Repeat(fmt.Sprint(i), 10_000)
		if err := c.Write(soon(t), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, c); got != text {
			t.Errorf("%d bytes came as %d", len(text), len(got))
		}
	}
	for _, f := range s.bottle("dev").open() {
		if f.alpn != alpnH2 {
			t.Errorf("a flow speaks %q", f.alpn)
		}
	}
	if n := len(s.bottle("dev").open()); n != 1 {
		t.Errorf("%d connections, want one", n)
	}
}

// TestStreamStalls leaves a WebSocket's echo unread: the stream ends, and its slot is free.
func TestStreamStalls(t *testing.T) {
	s := newEcho(t, nil)
	s.g.engine.h2.Limits.Write = 100 * time.Millisecond
	f := s.newFrames(t)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}); err != nil {
		t.Fatal(err)
	}
	s.connectHead(t, f, "/ws", false)
	if got := f.answered(); got != "200" {
		t.Fatalf("got %s", got)
	}
	if got := f.answered(); got != "stream reset" { // the origin's first message does not fit
		t.Errorf("got %s, want a reset", got)
	}
	s.request(t, func(r Record) bool { return r.Path == "/ws" })
	for end := time.Now().Add(testWait); len(s.bottle("dev").meter.streams) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the stream's slot is still taken")
		}
	}
}

// TestStreamResetAfterClose has a guest answer the close frame of a stop by a reset, before the origin has answered its own: the
// WebSocket ended in order.
func TestStreamResetAfterClose(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	s := newStage(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			<-over // without reading, so that no close is answered
			c.CloseNow()
		}
	})
	f := s.newFrames(t)
	s.connectHead(t, f, "/ws", false)
	if got := f.answered(); got != "200" {
		t.Fatalf("got %s", got)
	}
	done := s.stopping(soon(t), t)
	for told := false; !told; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("%v; want a close frame", err)
		}
		data, ok := frame.(*http2.DataFrame)
		told = ok && strings.Contains(string(data.Data()), "gatewayd stops")
	}
	if err := f.WriteRSTStream(f.id-2, http2.ErrCodeCancel); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
	if r := s.request(t, func(r Record) bool { return r.Path == "/ws" }); r.Status != http.StatusOK || r.Error != "" {
		t.Errorf("record %+v; want an end in order", r)
	}
}

// TestStreamIsRevoked has a new plan that denies an open WebSocket's path.
func TestStreamIsRevoked(t *testing.T) {
	overBoth(t, func(t *testing.T, streams bool) {
		s := newEcho(t, nil)
		s.streams = streams
		c, _, err := s.dialWS(t, "/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		read(t, c)
		table, err := routes.NewTable([]routes.Route{{Host: "api.test", Port: s.port, Paths: []string{"/other"}}})
		if err != nil {
			t.Fatal(err)
		}
		s.b.Table, s.b.PlanDigest = table, "digest-2"
		s.apply(t, s.b)
		if _, _, err := c.Read(soon(t)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the WebSocket goes on: %v", err)
		}
		s.records.wait(t, func(r Record) bool { return r.Type == RecordFlow && r.Reason == ReasonRevoked })
	})
}
