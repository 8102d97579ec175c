package http1

import "sync"

const (
	// readBuffer is the size of a read from which on it goes past a connection's buffer.
	readBuffer = 4 << 10
	// recordBuffer is what a connection is read into: a TLS record's content, so that a small message is whole at once, and of a larger
	// one crypto/tls holds nothing back.
	recordBuffer = 16 << 10
	// writeBuffer is one TLS record's content (RFC 8446 section 5.1), so that a full buffer leaves as one record and one
	// write.
	writeBuffer = 16 << 10
)

// buffers lends byte slices of one size. An idle connection holds none.
type buffers struct {
	size int
	pool sync.Pool
}

// get returns a slice of length size, whose content is whatever was there.
func (b *buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, b.size)
	return &p
}

// put takes back what get lent. Slices of another size are dropped.
func (b *buffers) put(p *[]byte) {
	if p != nil && len(*p) == b.size {
		b.pool.Put(p)
	}
}
