package http1

import (
	"errors"
	"net"
	"net/http"
	"time"
)

// Handover takes the connection away from the server, after sending what the handler has written, for instance a 101 head. When the
// handler has returned, next is called with the connection, and with what the guest sent beyond the request, which it owns; Serve
// returns when next does. Request, writer and body are nobody's any more by then, nor are their frames on the stack, so that a
// connection of another protocol costs what that takes. The deadlines are cleared and the connection is next's to close. If the
// handler panics, next is not called and the connection is closed. Handover fails if the request's body has not been read to its end.
func (r *response) Handover(next func(conn net.Conn, rest []byte)) error {
	if r.handed {
		return http.ErrHijacked
	}
	if r.status != 0 {
		if err := r.FlushError(); err != nil {
			return err
		}
	}
	if err := r.owner.handOver(r.body, next); err != nil {
		return err
	}
	r.handed = true
	r.mu.Lock()
	r.interimOff = true
	r.mu.Unlock()
	return nil
}

// handOver has the connection go on with next: no deadline is set any more and nobody reads from it.
func (c *connection) handOver(b *body, next func(conn net.Conn, rest []byte)) error {
	c.watch.end()
	if b != nil && b.end() != restNone {
		return errors.New("hand over connection: the request's body has not been read")
	}
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.model = nil // no request follows
	c.goesOn, c.rest = next, c.reader.take()
	return nil
}

// takeRest returns what the guest has sent beyond the last request, once.
func (c *connection) takeRest() []byte {
	rest := c.rest
	c.rest = nil
	return rest
}

// take returns a copy of what is buffered and gives the buffer back.
func (b *reader) take() []byte {
	rest := append([]byte(nil), b.buf[b.r:b.w]...)
	b.discard()
	return rest
}
