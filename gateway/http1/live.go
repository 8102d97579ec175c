package http1

import (
	"context"
	"slices"
	"sync"
)

// liveContext is the context of a guest connection's requests. The exchanges with servers that go on under it are told of its
// end by a list: they come and go with every request, for which a registration with a context is dear.
type liveContext struct {
	context.Context
	mu        sync.Mutex
	over      bool
	exchanges []*ClientConn
}

// liveKey is the context key under which a liveContext gives itself.
type liveKey struct{}

// newLiveContext returns a context that ends with ctx, at the latest.
func newLiveContext(ctx context.Context) (*liveContext, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	l := &liveContext{Context: ctx}
	stop := context.AfterFunc(ctx, l.end)
	return l, func() {
		stop()
		cancel()
		l.end()
	}
}

// liveOf returns the liveContext that ends exactly when ctx does, or nil.
func liveOf(ctx context.Context) *liveContext {
	if l, ok := ctx.(*liveContext); ok {
		return l
	}
	if l, ok := ctx.Value(liveKey{}).(*liveContext); ok && l.Done() == ctx.Done() {
		return l
	}
	return nil
}

// Value is [context.Context].Value.
func (l *liveContext) Value(key any) any {
	if key == (liveKey{}) {
		return l
	}
	return l.Context.Value(key)
}

// end closes what goes on.
func (l *liveContext) end() {
	l.mu.Lock()
	l.over = true
	exchanges := l.exchanges
	l.exchanges = nil
	l.mu.Unlock()
	for _, c := range exchanges {
		c.Close()
	}
}

// enter has c closed when the context ends. If it has, c is closed at once.
func (l *liveContext) enter(c *ClientConn) {
	l.mu.Lock()
	over := l.over
	if !over {
		l.exchanges = append(l.exchanges, c)
	}
	l.mu.Unlock()
	if over {
		c.Close()
	}
}

// leave takes back what enter did, and reports whether it still could.
func (l *liveContext) leave(c *ClientConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.exchanges, c)
	if i >= 0 {
		l.exchanges = slices.Delete(l.exchanges, i, i+1)
	}
	return i >= 0
}
