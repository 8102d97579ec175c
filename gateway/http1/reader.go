package http1

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// reader is a connection's receiving side: bytes that came and were not used yet are buf[r:w]. It has one user at a time:
// the connection's goroutine between requests, the body while a request runs, the watch after that.
type reader struct {
	conn  net.Conn
	pool  *buffers
	lent  *[]byte // what buf came from, nil if buf is none of the pool's
	buf   []byte  // nil while nothing is buffered and the connection is idle
	r, w  int
	by    time.Time // the read deadline that is set
	await awaiter   // what lies beneath a TLS connection, if it can wait for it
	whole wholes    // the transport, if it can tell
	left  bool      // the last read filled all that it was given, so that crypto/tls may hold the rest of a record
	first [1]byte   // takes the byte that ends an idle time, so that waiting needs no buffer
}

// awaiter is a transport beneath TLS that can wait for its next bytes without a buffer to put them in.
type awaiter interface{ Await() error }

// wholes is a transport that can look, and wait, whether the next piece, such as a TLS record, has come whole, so that a read of it
// does not block.
type wholes interface {
	Ready() bool
	AwaitWhole() error
}

// newReader returns the receiving side of conn.
func newReader(conn net.Conn, pool *buffers) reader {
	b := reader{conn: conn, pool: pool}
	transport := conn
	if secure, ok := conn.(*tls.Conn); ok {
		transport = secure.NetConn()
		b.await, _ = transport.(awaiter)
	}
	b.whole, _ = transport.(wholes)
	return b
}

// fits makes room for size bytes in the buffer, and reports whether it can have them all.
func (b *reader) fits(size int64) bool {
	if b.buf == nil || size > int64(len(b.buf)) {
		return false
	}
	if int64(len(b.buf)-b.r) < size {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
	return true
}

// receive reads once from the connection.
func (b *reader) receive(p []byte) (int, error) {
	n, err := b.conn.Read(p)
	b.left = n == len(p)
	return n, err
}

// buffered returns the number of bytes that came and were not used.
func (b *reader) buffered() int { return b.w - b.r }

// peek returns the bytes that came and were not used.
func (b *reader) peek() []byte { return b.buf[b.r:b.w] }

// until sets the read deadline.
func (b *reader) until(t time.Time) error {
	b.by = t
	return b.conn.SetReadDeadline(t)
}

// within makes the read deadline one of about wait from now.
func (b *reader) within(wait time.Duration) error {
	if by, due := Deadline(b.by, wait); due {
		return b.until(by)
	}
	return nil
}

// need makes sure that there is a buffer.
func (b *reader) need() {
	if b.buf == nil {
		b.lent = b.pool.get()
		b.buf, b.r, b.w = *b.lent, 0, 0
	}
}

// release gives the buffer back if nothing is in it.
func (b *reader) release() {
	if b.buf != nil && b.r == b.w {
		b.pool.put(b.lent)
		b.lent, b.buf, b.r, b.w = nil, nil, 0, 0
	}
}

// grow gives the buffer size bytes, keeping what is in it.
func (b *reader) grow(size int) {
	bigger := make([]byte, size)
	n := copy(bigger, b.buf[b.r:b.w])
	b.pool.put(b.lent)
	b.lent, b.buf, b.r, b.w = nil, bigger, 0, n
}

// fill reads once into the free part of the buffer, which it first makes room in. It blocks under the connection's read
// deadline. A full buffer is the caller's mistake and fails.
func (b *reader) fill() error {
	b.need()
	if b.r == b.w {
		b.r, b.w = 0, 0
	} else if b.w == len(b.buf) && b.r > 0 {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
	if b.w == len(b.buf) {
		return io.ErrShortBuffer
	}
	n, err := b.receive(b.buf[b.w:])
	b.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// read takes buffered bytes, else reads from the connection: straight into p if p is the larger, else through the buffer.
func (b *reader) read(p []byte) (int, error) {
	if b.buffered() == 0 {
		if len(p) >= readBuffer {
			return b.receive(p)
		}
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.buf[b.r:b.w])
	b.r += n
	return n, nil
}

// filler reads further bytes into a reader's buffer.
type filler interface{ more() error }

// line takes a line of a chunked body, without its CRLF and at most limit bytes long. It is valid until the next call.
func (b *reader) line(limit int, f filler) ([]byte, error) {
	for scanned := 0; ; {
		have := b.buf[b.r:b.w]
		if i := bytes.IndexByte(have[scanned:], '\n'); i >= 0 {
			i += scanned
			if i == 0 || have[i-1] != '\r' {
				return nil, refuse(ReasonBareLF, "a line of a chunked body ends in LF without CR")
			}
			if i-1 > limit {
				return nil, refuse(ReasonChunk, "a line of a chunked body is too long")
			}
			b.r += i + 1
			return have[:i-1], nil
		}
		if scanned = len(have); scanned > limit+1 {
			return nil, refuse(ReasonChunk, "a line of a chunked body is too long")
		}
		if b.buf != nil && len(have) == len(b.buf) {
			b.grow(limit + readBuffer)
		}
		if err := f.more(); err != nil {
			return nil, err
		}
	}
}

// lastChunkNext reports whether a chunk's end and the whole last chunk without trailers are buffered, so that reading on does
// not block.
func (b *reader) lastChunkNext() bool {
	return bytes.HasPrefix(b.buf[b.r:b.w], []byte("\r\n0\r\n\r\n"))
}

// awaitRequest blocks until the first bytes of the next request are there. It returns errGuestLeft if the connection ends,
// in whatever way, or its read deadline passes first. No buffer is held meanwhile if that can be: if the connection can be waited
// for, or if it is TLS, which buffers for itself, so that it can be asked for one byte. Any other would have to be asked twice.
func (b *reader) awaitRequest() error {
	if b.buffered() > 0 {
		return nil
	}
	b.release()
	if _, ok := b.conn.(*tls.Conn); ok && (b.await == nil || b.left) {
		if n, _ := b.receive(b.first[:]); n == 0 {
			return errGuestLeft
		}
		b.need()
		b.buf[0], b.r, b.w = b.first[0], 0, 1
		return nil
	}
	if b.await != nil && b.await.Await() != nil || b.fill() != nil {
		return errGuestLeft
	}
	return nil
}

// readHead reads one head and parses it into h, after awaitRequest. Every error but an I/O error is a *ProtocolError.
func (b *reader) readHead(lim *Limits, h *head) error {
	for scanned, timed := 0, false; ; {
		end, resume, bad := headEnd(b.buf[b.r:b.w], scanned)
		if bad != nil {
			return bad
		}
		if end > 0 {
			text := string(b.buf[b.r : b.r+end])
			b.r += end
			if bad := h.parse(text, lim); bad != nil {
				return bad
			}
			return nil
		}
		scanned = resume
		if bad := checkStart(b.buf[b.r:b.w]); bad != nil {
			return bad
		}
		if !timed {
			timed = true
			if err := b.within(lim.Head); err != nil {
				return errGuestLeft
			}
		}
		if err := b.more(lim.HeadBytes); err != nil {
			return err
		}
	}
}

// more reads further bytes of a head that may have at most limit.
func (b *reader) more(limit int) error {
	if b.buffered() >= limit {
		return tooLarge()
	}
	if b.buffered() == len(b.buf) {
		b.grow(min(limit, 4*len(b.buf)))
	}
	switch err := b.fill(); {
	case err == nil:
		return nil
	case isTimeout(err):
		return refuseWith(http.StatusRequestTimeout, ReasonSlowHead, "the head did not end in time")
	case errors.Is(err, io.EOF):
		return errGuestLeft
	default:
		return err
	}
}

// isTimeout reports whether err is a deadline that passed.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
