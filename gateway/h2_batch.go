package gateway

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	gwtls "gatewayd/gateway/tls"
)

// h2LastWords is how long the end of an HTTP/2 connection waits for what was written before, such as GOAWAY.
const h2LastWords = time.Second

// writeBatch is the sending side of an HTTP/2 connection. http2.Server writes each frame by itself and waits for it; here one
// returns as soon as there is room, and what gathers while a write is under way leaves together, in whole TLS records. It has
// two buffers, and only while there is something in them. Write is for one goroutine at a time.
type writeBatch struct {
	conn *tls.Conn
	pool *bytePool

	mu      sync.Mutex
	changed sync.Cond // there is room, or nothing is under way any more
	lent    *[]byte   // of buf, nil while there is none
	buf     []byte
	writing bool
	closing bool
	by      time.Time // when the write under way must be done
	err     error
}

// newWriteBatch returns the sending side of conn, with buffers of pool.
func newWriteBatch(conn *tls.Conn, pool *bytePool) *writeBatch {
	b := &writeBatch{conn: conn, pool: pool}
	b.changed.L = &b.mu
	return b
}

// Write takes p over, and blocks while there is no room. The error is that of an earlier write, or of a closed connection.
func (b *writeBatch) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for taken := 0; ; {
		switch {
		case b.err != nil:
			return taken, b.err
		case b.closing:
			return taken, net.ErrClosed
		case taken == len(p):
			return taken, nil
		}
		if b.lent == nil {
			b.lent = b.pool.get()
			b.buf = (*b.lent)[:0]
		}
		n := min(len(p)-taken, cap(b.buf)-len(b.buf))
		b.buf = append(b.buf, p[taken:taken+n]...)
		if taken += n; !b.writing {
			b.writing = true
			go b.send()
		}
		if taken < len(p) {
			b.changed.Wait()
		}
	}
}

// send writes what is there until there is nothing.
func (b *writeBatch) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.lent != nil && b.err == nil {
		if b.err = b.allowTime(); b.err != nil {
			break
		}
		lent, buf := b.lent, b.buf
		b.lent, b.buf = nil, nil
		b.changed.Broadcast()
		b.mu.Unlock()
		err := b.write(buf)
		b.pool.put(lent)
		b.mu.Lock()
		if b.err == nil {
			b.err = err
		}
	}
	b.writing = false
	b.changed.Broadcast()
}

// allowTime gives the next write its time, half of h2Write at the least. The caller holds the lock.
func (b *writeBatch) allowTime() error {
	now := time.Now()
	if b.closing || b.by.Sub(now) >= h2Write/2 {
		return nil
	}
	b.by = now.Add(h2Write)
	return b.conn.SetWriteDeadline(b.by)
}

// write writes p to the connection.
func (b *writeBatch) write(p []byte) error {
	write := func() error { _, err := b.conn.Write(p); return err }
	if wire, ok := b.conn.NetConn().(*gwtls.Wire); ok {
		return wire.Gather(write)
	}
	return write()
}

// close lets what is there leave, for h2LastWords at the most, and refuses everything else.
func (b *writeBatch) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closing {
		b.closing = true
		_ = b.conn.SetWriteDeadline(time.Now().Add(h2LastWords)) // a closed connection needs none
		b.changed.Broadcast()
	}
	for b.writing && b.err == nil {
		b.changed.Wait()
	}
}
