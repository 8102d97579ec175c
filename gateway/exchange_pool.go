package gateway

import "sync"

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
