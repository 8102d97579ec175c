package http2

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// struck is an ender that says when it was closed.
type struck chan struct{}

// Close is ender.Close. A second one panics.
func (s struck) Close() { close(s) }

// within reports whether c is closed within the time of a test.
func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(testWait):
		t.Errorf("%s goes on", what)
	}
}

// TestLife ends the context of a request in every way, and looks at what is to end with it: what asked for Done, an ender, a function,
// a narrower context. What has left before is let alone, and what comes later ends at once.
func TestLife(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"the guest resets":           func(p *peer) { p.WriteRSTStream(1, 8) },
		"the guest leaves":           func(p *peer) { p.conn.NetConn().Close() },
		"the guest breaks the rules": func(p *peer) { p.WriteWindowUpdate(0, 1<<31-1); p.WriteWindowUpdate(0, 1<<31-1) },
		"the handler returns":        nil,
		"the server ends":            func(p *peer) { p.cut() },
	} {
		t.Run(name, func(t *testing.T) {
			begun, returned := make(chan context.Context, 1), make(chan struct{})
			if end != nil {
				returned = nil
			}
			stays, leaves, called, notCalled := struck(make(chan struct{})), struck(make(chan struct{})), make(chan struct{}), make(chan struct{})
			narrow := make(chan context.Context, 1)
			s := serverOf(func(_ http.ResponseWriter, r *http.Request) {
				ctx := r.Context()
				l := ctx.(*life)
				l.Enter(leaves)
				l.Enter(stays)
				context.AfterFunc(ctx, func() { close(called) })
				stop := context.AfterFunc(ctx, func() { close(notCalled) })
				narrower, cancel := context.WithCancel(ctx)
				defer cancel()
				if ctx.Err() != nil || !l.Leave(leaves) || l.Leave(leaves) || !stop() {
					t.Error("the context has ended before it does")
				}
				narrow <- narrower
				begun <- ctx
				if returned == nil {
					<-narrower.Done()
				}
			})
			p := newPeer(t, s)
			p.ask(1, "GET", "/", true)
			ctx, narrower := <-begun, <-narrow
			if end != nil {
				end(p)
			}
			within(t, "the context", ctx.Done())
			within(t, "an ender", stays)
			within(t, "a function", called)
			within(t, "a narrower context", narrower.Done())
			if ctx.Err() == nil {
				t.Error("the context has ended without an error")
			}
			late := struck(make(chan struct{}))
			ctx.(*life).Enter(late)
			within(t, "what came late", late)
			select {
			case <-leaves:
				t.Error("what had left is ended")
			case <-notCalled:
				t.Error("what was stopped is called")
			default:
			}
		})
	}
}

// TestLivesOfManyStreams holds the connection's list of requests against requests that end in another order than they came.
func TestLivesOfManyStreams(t *testing.T) {
	const count = 40
	release := make(map[string]chan struct{})
	for i := range count {
		release[strconv.Itoa(i)] = make(chan struct{})
	}
	contexts := make(chan context.Context, count)
	s := serverOf(func(_ http.ResponseWriter, r *http.Request) {
		contexts <- r.Context()
		select {
		case <-release[r.Header.Get("which")]:
		case <-r.Context().Done():
		}
	})
	p := newPeer(t, s)
	for i := range count {
		p.ask(uint32(2*i+1), "GET", "/", true, "which", strconv.Itoa(i))
	}
	var all []context.Context
	for range count {
		all = append(all, <-contexts)
	}
	for i := range count {
		if i%3 > 0 {
			close(release[strconv.Itoa(i)])
		}
	}
	ended := func() (n int) {
		for _, ctx := range all {
			if ctx.Err() != nil {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(testWait); ended() != count-(count+2)/3 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := ended(); n != count-(count+2)/3 {
		t.Errorf("%d of %d requests have ended, want those that returned", n, count)
	}
	p.conn.NetConn().Close()
	for _, ctx := range all {
		within(t, "a request", ctx.Done())
	}
}
