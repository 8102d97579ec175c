package gateway

import (
	"sync"

	"gatewayd/gateway/inject"
)

// bytePool lends byte slices of one size.
type bytePool struct {
	size int
	pool sync.Pool
}

// newBytePool returns a pool of slices with size bytes.
func newBytePool(size int) *bytePool { return &bytePool{size: size} }

// get returns a slice whose content is whatever was there.
func (p *bytePool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, p.size)
	return &b
}

// put takes back what get lent.
func (p *bytePool) put(b *[]byte) { p.pool.Put(b) }

// exchangePool lends the memory of exchanges.
type exchangePool struct{ pool sync.Pool }

// get returns an empty exchange.
func (p *exchangePool) get() *exchange {
	if x, ok := p.pool.Get().(*exchange); ok {
		return x
	}
	return &exchange{carried: new(carried)}
}

// put takes back what get lent, and forgets what was in it. Nobody else may hold any of it.
func (p *exchangePool) put(x *exchange) {
	x.told.Reset()
	kept := x.carried
	*kept = carried{told: kept.told}
	*x = exchange{carried: kept}
	p.pool.Put(x)
}

// maskPool lends masking streams with the memory that they have.
type maskPool struct{ pool sync.Pool }

// get returns a new stream of m.
func (p *maskPool) get(m *inject.Masker) *inject.Stream {
	s, ok := p.pool.Get().(*inject.Stream)
	if !ok {
		return m.Stream()
	}
	s.Reset(m)
	return s
}

// put takes back what get lent. It forgets what went through.
func (p *maskPool) put(s *inject.Stream) {
	s.Reset(nil)
	p.pool.Put(s)
}
