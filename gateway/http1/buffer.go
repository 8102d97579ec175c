package http1

import "sync"

const (
	// readBuffer holds nearly every head whole. A larger head takes one of Limits.HeadBytes. Reads of at least as much go past the
	// buffer.
	readBuffer = 4 << 10
	// requestBuffer is readBuffer of the server's side: a TLS record's content, so that a small request is whole at once.
	requestBuffer = 16 << 10
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
