package http2

import (
	"context"
	"slices"
	"sync"
)

// life is the context of a stream's request. It ends when its connection says so, which knows all that have not ended: to be told by
// context's own means costs each request a registration with the connection and one with each that is to end with it. Whoever is to end
// with it is an ender, and most requests have just one.
type life struct {
	context.Context // the connection's, for its values

	mu     sync.Mutex
	over   bool
	done   chan struct{} // nil until somebody asks for it
	enders []ender
	room   [1]ender // for the first of them
}

// ender is what ends with a life: an exchange with a server. Close is called once at most, and not waited for.
type ender = interface{ Close() }

// Enter has c closed when the context ends. If it has, c is closed at once.
func (l *life) Enter(c ender) {
	l.mu.Lock()
	over := l.over
	if !over {
		if l.enders == nil {
			l.enders = l.room[:0]
		}
		l.enders = append(l.enders, c)
	}
	l.mu.Unlock()
	if over {
		c.Close()
	}
}

// Leave takes back what Enter did, and reports whether it still could.
func (l *life) Leave(c ender) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.enders, c)
	if i >= 0 {
		l.enders = slices.Delete(l.enders, i, i+1)
	}
	return i >= 0
}

// end ends the context. It may be called again.
func (l *life) end() {
	l.mu.Lock()
	enders := l.enders
	l.enders = nil
	if !l.over && l.done != nil {
		close(l.done)
	}
	l.over = true
	l.mu.Unlock()
	for _, c := range enders {
		go c.Close()
	}
}

// Done is [context.Context].Done.
func (l *life) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.over {
			close(l.done)
		}
	}
	return l.done
}

// Err is [context.Context].Err.
func (l *life) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return context.Canceled
	}
	return nil
}

// AfterFunc is what package context asks a context for that is not its own: f is called, in a goroutine of its own, when l ends, unless
// stop was called before and reported true.
func (l *life) AfterFunc(f func()) (stop func() bool) {
	a := &after{f}
	l.Enter(a)
	return func() bool { return l.Leave(a) }
}

// after is a function as an ender.
type after struct{ f func() }

// Close calls it.
func (a *after) Close() { go a.f() }

// enter takes the stream among those whose handlers run. mu is held.
func (c *conn) enter(st *stream) {
	st.place = len(c.active)
	c.active = append(c.active, st)
	if c.over {
		st.life.end()
	}
}

// exit ends the life of a stream whose handler has returned. mu is held.
func (c *conn) exit(st *stream) {
	last := len(c.active) - 1
	c.active[st.place] = c.active[last]
	c.active[st.place].place = st.place
	c.active[last] = nil
	if c.active = c.active[:last]; last == 0 && cap(c.active) > keptStreams {
		c.active = nil
	}
	st.life.end()
}

// endRequests ends the contexts of all requests, and of those that begin still.
func (c *conn) endRequests() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.roles.Broadcast()
	for _, st := range c.active {
		st.life.end()
	}
}
