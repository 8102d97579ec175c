package gateway

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is an HTTP/2 connection of the bottle on which a test speaks in frames.
type frames struct {
	*http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
	id  uint32

	conn *tls.Conn
}

// newFrames opens one to api.test.
func (s *stage) newFrames(t testing.TB) *frames {
	t.Helper()
	conn := tls.Client(s.sockets.call(t, s.b.Link, anywhere(s.port)), &tls.Config{RootCAs: bottlePool(t, s.b), ServerName: "api.test", NextProtos: []string{"h2"}})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, http2.ClientPreface)
	f := &frames{Framer: http2.NewFramer(conn, conn), id: 1, conn: conn}
	f.enc = hpack.NewEncoder(&f.buf)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// ask sends a request's head and returns the status and body of its response, or what became of it instead.
func (f *frames) ask(t *testing.T, fields ...string) (status, body string) {
	t.Helper()
	f.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.id, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	f.id += 2
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "connection ended", ""
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status, ended = frame.PseudoValue("status"), frame.StreamEnded()
		case *http2.DataFrame:
			body += string(frame.Data())
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			return "stream reset", ""
		case *http2.GoAwayFrame:
			return "connection ended", ""
		}
		if ended {
			return status, body
		}
	}
}

// TestH2Heads says what no client library would: every request that is not plainly one for this connection's host gets
// nowhere.
func TestH2Heads(t *testing.T) {
	s := newStage(t, withAuth(t), func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Host, "api.test:") || r.RequestURI != "/good" {
			t.Errorf("the origin saw %s %s", r.Host, r.RequestURI)
		}
	})
	for _, tt := range []struct {
		name   string
		want   string
		fields []string
	}{
		{"good", "200", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/good"}},
		{"host alone", "200", []string{":method", "GET", ":scheme", "https", ":path", "/good", "host", "api.test"}},
		{"host beside authority", "200", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/good", "host", "api.test"}},
		{"other authority", "421", []string{":method", "GET", ":scheme", "https", ":authority", "other.test", ":path", "/"}},
		{"other host", "stream reset", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/", "host", "other.test"}},
		{"list of authorities", "421", []string{":method", "GET", ":scheme", "https", ":authority", "api.test,other.test", ":path", "/"}},
		{"user in the authority", "stream reset", []string{":method", "GET", ":scheme", "https", ":authority", "api.test@other.test", ":path", "/"}},
		{"absolute path", "stream reset", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "https://other.test/"}},
		{"fragment", "400", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/good#x"}},
		{"dot segments", "403", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/a/../good"}},
		{"TRACE", "405", []string{":method", "TRACE", ":scheme", "https", ":authority", "api.test", ":path", "/"}},
		{"CONNECT", "405", []string{":method", "CONNECT", ":authority", "api.test"}},
		{"two paths", "stream reset", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/", ":path", "/b"}},
		{"line break in a value", "stream reset", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/", "x", "a\r\nauthorization: b"}},
		{"transfer-encoding", "400", []string{":method", "POST", ":scheme", "https", ":authority", "api.test", ":path", "/", "transfer-encoding", "chunked"}},
		{"connection", "400", []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/", "connection", "authorization"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, v := range tt.fields {
				if v == "api.test" {
					tt.fields[i] = fmt.Sprintf("api.test:%d", s.port)
				}
			}
			if got, body := s.newFrames(t).ask(t, tt.fields...); got != tt.want {
				t.Errorf("got %s, want %s: %s", got, tt.want, body)
			}
		})
	}
}
