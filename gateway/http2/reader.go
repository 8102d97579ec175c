package http2

import (
	"io"
	"net"
)

// reader is a connection's receiving side: bytes that came and were not used yet are buf[r:w]. It is for one goroutine.
type reader struct {
	conn net.Conn
	wire wire // nil if there is none
	pool *buffers
	lent *[]byte // nil while nothing is buffered
	buf  []byte
	r, w int
	rest bool  // crypto/tls may hold the rest of a record
	err  error // met behind what is buffered
}

// wire is what may lie beneath a TLS connection: it gives bytes of one record at a time, so that crypto/tls holds none of the next, can
// wait without a buffer, and tell whether a read has all that it needs.
type wire interface {
	Await() error
	Whole() bool
}

// newReader returns the receiving side of conn.
func newReader(conn net.Conn, pool *buffers) reader {
	b := reader{conn: conn, pool: pool}
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		b.wire, _ = c.NetConn().(wire)
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

// await blocks until something comes, if nothing is there and the connection can wait, and holds no buffer meanwhile. What it waits in
// vain for, fill reports. Little is on the stack: this is where idle connections are.
func (b *reader) await() {
	if b.r == b.w && b.err == nil && b.wire != nil && !b.rest {
		b.release()
		_ = b.wire.Await()
	}
}

// fill reads what there is, once if nothing tells of more. It blocks until there is something. want is how much is needed to go on,
// if that is known.
func (b *reader) fill(want int) error {
	if err := b.err; err != nil {
		b.err = nil
		return err
	}
	b.need(want)
	n, err := b.read()
	if n == 0 {
		return orNoProgress(err)
	}
	for err == nil && b.wire != nil && len(b.buf)-b.w >= maxFrame && b.wire.Whole() {
		_, err = b.read()
	}
	b.err = err
	return nil
}

// read reads once behind what is buffered.
func (b *reader) read() (int, error) {
	room := b.buf[b.w:]
	n, err := b.conn.Read(room)
	b.w += n
	b.rest = n == len(room)
	return n, err
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
