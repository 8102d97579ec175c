package http2

import (
	"io"
	"net"
)

// reader is a connection's receiving side: bytes that came and were not used yet are buf[r:w]. It is for one goroutine.
type reader struct {
	conn  net.Conn
	ahead ahead // nil if the connection cannot tell
	pool  *buffers
	lent  *[]byte // nil while nothing is buffered
	buf   []byte
	r, w  int
	err   error           // met behind what is buffered
	first [frameHead]byte // takes what ends an idle time, so that waiting needs no buffer
}

// ahead is what can tell whether a read has all that it needs, as what lies beneath a TLS connection may.
type ahead interface{ Whole() bool }

// newReader returns the receiving side of conn.
func newReader(conn net.Conn, pool *buffers) reader {
	b := reader{conn: conn, pool: pool}
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		b.ahead, _ = c.NetConn().(ahead)
	}
	return b
}

// buffered is what came and was not used.
func (b *reader) buffered() []byte { return b.buf[b.r:b.w] }

// use takes n bytes of what is buffered. They are valid until the next fill.
func (b *reader) use(n int) []byte {
	p := b.buf[b.r : b.r+n]
	b.r += n
	return p
}

// release gives the buffer back.
func (b *reader) release() {
	if b.lent != nil {
		b.pool.put(b.lent)
		b.lent, b.buf, b.r, b.w = nil, nil, 0, 0
	}
}

// fill reads what there is, once if nothing tells of more. It blocks until there is something. want is how much is needed to go on,
// if that is known. While nothing has begun, want is 0, and it waits with room for a frame's head alone: a TLS connection buffers for
// itself, and gives the rest of the record at once.
func (b *reader) fill(want int) error {
	if err := b.err; err != nil {
		b.err = nil
		return err
	}
	if b.r == b.w && want == 0 {
		b.release()
		n, err := b.conn.Read(b.first[:])
		if n == 0 {
			return orNoProgress(err)
		}
		b.need(0)
		b.w = copy(b.buf, b.first[:n])
		b.err = err
		return nil
	}
	b.need(want)
	n, err := b.conn.Read(b.buf[b.w:])
	if n == 0 {
		return orNoProgress(err)
	}
	b.w += n
	for err == nil && b.ahead != nil && len(b.buf)-b.w >= maxFrame && b.ahead.Whole() {
		n, err = b.conn.Read(b.buf[b.w:])
		b.w += n
	}
	b.err = err
	return nil
}

// need makes room for want bytes behind what is buffered, or as much as there can be.
func (b *reader) need(want int) {
	have := b.w - b.r
	switch {
	case b.lent == nil:
		b.lent = b.pool.get(want)
		b.buf = *b.lent
	case have+want > len(b.buf) && len(b.buf) < b.pool.large:
		larger := b.pool.get(have + want)
		copy(*larger, b.buffered())
		b.pool.put(b.lent)
		b.lent, b.buf = larger, *larger
	default:
		copy(b.buf, b.buffered())
	}
	b.r, b.w = 0, have
}

// orNoProgress is err, or what stands for none.
func orNoProgress(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}
