package http1

import (
	"net/http"
	"sync"
)

// turn is the memory of one request on a guest's connection, and of its response.
type turn struct {
	head     head
	request  http.Request
	response response
}

// turns lends the memory of requests.
type turns struct{ pool sync.Pool }

// get returns an empty turn.
func (p *turns) get() *turn {
	if t, ok := p.pool.Get().(*turn); ok {
		return t
	}
	return new(turn)
}

// put takes back what get lent, and forgets what was in it. Nobody else may hold any of it.
func (p *turns) put(t *turn) {
	kept := t.head.fields
	kept.reset()
	*t = turn{}
	t.head.fields = kept
	p.pool.Put(t)
}
