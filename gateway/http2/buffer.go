package http2

import "sync"

// buffers lends byte slices of two sizes: most of what is said is short, and a connection that says it should not take the memory
// that bulk is worth. An idle connection holds none.
type buffers struct {
	small, large int
	smalls       sync.Pool
	larges       sync.Pool
}

// get returns a slice that has room for n bytes, or is large. Its content is whatever was there.
func (b *buffers) get(n int) *[]byte {
	pool, size := &b.larges, b.large
	if n <= b.small {
		pool, size = &b.smalls, b.small
	}
	if p, ok := pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, size)
	return &p
}

// put takes back what get lent.
func (b *buffers) put(p *[]byte) {
	if len(*p) == b.small {
		b.smalls.Put(p)
		return
	}
	b.larges.Put(p)
}
