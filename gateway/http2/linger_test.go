package http2

import (
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestLinger has a guest break the protocol and not close its side: it reads why, and is waited for as long as Linger says. What it sends
// meanwhile brings no reset.
func TestLinger(t *testing.T) {
	for name, linger := range map[string]time.Duration{"for a moment": 20 * time.Millisecond, "until it closes": time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := serverOf(func(http.ResponseWriter, *http.Request) {})
			s.Limits.Linger = linger
			p := newPeer(t, s)
			next[*http2.SettingsFrame](p)
			p.must(0, p.WriteRawFrame(http2.FrameData, 0, 0, []byte("of no stream")))
			if f := next[*http2.GoAwayFrame](p); f.ErrCode != http2.ErrCodeProtocol {
				t.Errorf("got %v", f)
			}
			if _, err := p.ReadFrame(); err != io.EOF { //nolint:errorlint // not one of a stream that was cut off
				t.Errorf("got %v, want the end", err)
			}
			if linger > testWait {
				p.must(p.conn.Write(make([]byte, lingerBytes/2)))
				select {
				case <-p.served:
					t.Error("it did not wait for the guest")
				default:
				}
				p.must(0, p.conn.NetConn().Close())
			}
			<-p.served
		})
	}
}
