package http1

import (
	"context"
	"slices"
	"sync"
)

// lifetime is a context that is told which exchanges are to end with it, and closes them then. They come and go with every request, for
// which a registration with a context of another kind is dear.
type lifetime interface {
	context.Context
	// Enter has c closed when the context ends. If it has, c is closed at once.
	Enter(c interface{ Close() })
	// Leave takes back what Enter did, and reports whether it still could.
	Leave(c interface{ Close() }) (before bool)
}

// liveContext is the context of a guest connection's requests. It is a lifetime.
type liveContext struct {
	context.Context
	mu        sync.Mutex
	over      bool
	exchanges []interface{ Close() }
}

// liveKey is the context key under which a liveContext gives itself.
type liveKey struct{}

// newLiveContext returns a context that ends when end is called, which is to happen with ctx at the latest.
func newLiveContext(ctx context.Context) (l *liveContext, end context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	l = &liveContext{Context: ctx}
	return l, func() {
		cancel()
		l.end()
	}
}

// liveOf returns the lifetime that ends exactly when ctx does, or nil.
func liveOf(ctx context.Context) lifetime {
	if l, ok := ctx.(lifetime); ok {
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

// Enter is lifetime.Enter.
func (l *liveContext) Enter(c interface{ Close() }) {
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

// Leave is lifetime.Leave.
func (l *liveContext) Leave(c interface{ Close() }) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.exchanges, c)
	if i >= 0 {
		l.exchanges = slices.Delete(l.exchanges, i, i+1)
	}
	return i >= 0
}
