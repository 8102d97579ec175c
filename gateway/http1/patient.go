package http1

import (
	"io"
	"net"
)

// Patient returns a buffered reader of conn for what comes in small pieces, at long intervals, behind rest, which it owns. It holds a
// buffer only while something is in it, if conn is TLS over a transport that can be waited for; its method Await() then waits so that
// little is on the stack. It belongs to one goroutine.
func (s *Server) Patient(conn net.Conn, rest []byte) io.Reader {
	s.once.Do(s.start)
	p := &patient{newReader(conn, &s.reads)}
	if len(rest) > 0 {
		p.buf, p.w = rest, len(rest)
	}
	return p
}

// patient is a reader beyond the life of requests.
type patient struct{ reader }

// Read is [io.Reader].Read.
func (p *patient) Read(b []byte) (int, error) { return p.readPatiently(b) }

// readAhead waits for bytes and takes them into the buffer.
func (b *reader) readAhead() error {
	if b.await != nil && !b.left {
		if err := b.await.Await(); err != nil {
			return err
		}
	}
	return b.fill()
}

// Await gives the buffer back if nothing is in it, and then waits without one, if that can be, until there is something to read or the
// next read has an error to tell. That takes less of the stack than a read that waits.
func (b *reader) Await() {
	b.release()
	if b.buffered() == 0 && b.await != nil && !b.left {
		_ = b.await.Await() // the read fails as well, and with TLS's word for it
	}
}

// readPatiently is read, but gives the buffer back before it waits, and waits without one if that can be.
func (b *reader) readPatiently(p []byte) (int, error) {
	b.Await()
	n, err := b.read(p)
	if err != nil {
		b.release()
	}
	return n, err
}
