package gateway

import (
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// poorListener has no descriptors for so many calls, and then what its listener has.
type poorListener struct {
	net.Listener
	fails int32
	calls atomic.Int32
}

// Accept is [net.Listener].Accept.
func (l *poorListener) Accept() (net.Conn, error) {
	if l.calls.Add(1) <= l.fails {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// TestAcceptTriesAgain has accept(2) fail for want of descriptors: the listener is not given up, and rests between two tries until its
// bottle is shut.
func TestAcceptTriesAgain(t *testing.T) {
	for name, retry := range map[string]time.Duration{"soon": time.Millisecond, "much later": time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.Deadlines.AcceptRetry = retry })
			w.apply(t, testBottle(t))
			b := w.bottle("dev")
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l, done := &poorListener{Listener: inner, fails: 3}, make(chan struct{})
			go func() {
				defer close(done)
				b.accept(l)
			}()
			calls := int32(1)
			if retry < time.Second {
				calls = l.fails + 1 // the last waits for a connection
			}
			for end := time.Now().Add(testWait); l.calls.Load() < calls && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			w.apply(t)
			<-done
			if n := l.calls.Load(); n != calls {
				t.Errorf("%d calls, want %d", n, calls)
			}
			if b.lost.Load() {
				t.Error("the listener was given up")
			}
		})
	}
}
