package http1

import (
	"context"
	"io"
	"testing"
)

// TestLiveContextEndsExchanges shows that the context of a guest's connection ends what goes on under it, that one which is narrower
// ends with itself, and that an exchange which is over is not closed later.
func TestLiveContextEndsExchanges(t *testing.T) {
	for name, narrower := range map[string]bool{"itself": false, "one below it": true} {
		t.Run(name, func(t *testing.T) {
			live, end := newLiveContext(t.Context())
			defer end()
			ctx, cancel := context.Context(live), end
			if narrower {
				ctx, cancel = context.WithCancel(live)
				defer cancel()
			}
			if (liveOf(ctx) == live) == narrower {
				t.Fatal("the list is that of another context")
			}
			near, far := loopbackPair(t)
			defer far.Close()
			c := NewClient(ClientLimits{}).NewConn(near, near, func(bool) {})
			exchange := func() error {
				resp, err := c.RoundTrip(ctx, ask("GET"))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				return err
			}
			io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
			if err := exchange(); err != nil || len(live.exchanges) > 0 {
				t.Fatalf("error %v, %d exchanges are held that are over", err, len(live.exchanges))
			}
			go func() {
				io.ReadAtLeast(far, make([]byte, 256), 60) // the second request has begun
				cancel()
			}()
			if exchange() == nil {
				t.Error("the exchange goes on")
			}
			if exchange() == nil {
				t.Error("one begins under a context that has ended")
			}
		})
	}
}
