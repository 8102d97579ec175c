package http1

import (
	"io"
	"net"
)

// Patient returns a buffered reader of conn for what comes in small pieces, at long intervals. It holds a buffer only while something is in it,
// if conn is TLS over a transport that can be waited for. It belongs to one goroutine.
func (s *Server) Patient(conn net.Conn) io.Reader {
	s.once.Do(s.start)
	return &patient{newReader(conn, &s.reads)}
}

// patient is a reader beyond the life of requests.
type patient struct{ reader reader }

// Read is [io.Reader].Read.
func (p *patient) Read(b []byte) (int, error) { return p.reader.readPatiently(b) }

// readAhead waits for bytes and takes them into the buffer.
func (b *reader) readAhead() error {
	if b.await != nil && !b.left {
		if err := b.await.Await(); err != nil {
			return err
		}
	}
	return b.fill()
}

// readPatiently is read, but gives the buffer back before it waits, and waits without one if that can be.
func (b *reader) readPatiently(p []byte) (int, error) {
	b.release()
	if b.buffered() == 0 && b.await != nil && !b.left {
		_ = b.await.Await() // the read fails as well, and with TLS's word for it
	}
	n, err := b.read(p)
	if err != nil {
		b.release()
	}
	return n, err
}
