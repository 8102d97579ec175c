package http1

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
)

// Answer is the memory of a response, for [Request].Answer. The zero value is ready for use.
type Answer struct {
	head     responseHead
	response http.Response
	body     responseBody
}

// Reset forgets the response and keeps the memory. Nobody may hold any of the response, its header and its body among it.
func (a *Answer) Reset() {
	a.head.reset()
	a.response, a.body = http.Response{}, responseBody{}
}

// receive reads the response's head, and those of interim responses before it.
func (c *ClientConn) receive(req *Request) (*http.Response, error) {
	lim := &c.client.lim
	a := req.Answer
	if a == nil {
		a = new(Answer)
	}
	h := &a.head
	for interim := 0; ; interim++ {
		h.reset()
		if err := c.readResponseHead(h); err != nil {
			return nil, err
		}
		if h.status >= 200 || h.status == http.StatusSwitchingProtocols {
			return c.response(req, a), nil
		}
		if interim >= lim.Interim {
			return nil, refuse(ReasonInterim, "too many interim responses")
		}
		switch {
		case h.status != http.StatusContinue:
			if req.Interim != nil {
				req.Interim.Interim(h.status, h.header)
			}
		case c.sending != nil:
			c.sending.answer(true)
		}
	}
}

// readResponseHead reads one head and parses it into h. A connection that ends before its first byte is lost.
func (c *ClientConn) readResponseHead(h *responseHead) error {
	b, lim := &c.reader, &c.client.lim
	for scanned := 0; ; {
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
		if b.buffered() >= lim.HeadBytes {
			return tooLarge()
		}
		if b.buf != nil && b.buffered() == len(b.buf) {
			b.grow(min(lim.HeadBytes, 4*len(b.buf)))
		}
		if err := b.fill(); err != nil {
			switch {
			case isTimeout(err):
				return err
			case b.buffered() == 0:
				return &LostError{err}
			case errors.Is(err, io.EOF):
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// response makes the final response of the head in a.
func (c *ClientConn) response(req *Request, a *Answer) *http.Response {
	h, resp, b := &a.head, &a.response, &a.body
	c.headCame()
	if c.sending != nil {
		c.sending.answer(false)
	}
	*resp = http.Response{
		StatusCode: h.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: h.minor,
		Header: h.header, ContentLength: h.framing.length, Trailer: h.trailer, Close: h.close,
	}
	if h.status == http.StatusSwitchingProtocols {
		resp.ContentLength = -1
		_ = c.patient() // the read fails as well
		resp.Body = &upgraded{c}
		return resp
	}
	*b = responseBody{c: c, keep: !h.close, left: h.framing.length, trailer: h.trailer}
	resp.Body = b
	switch {
	case req.Method == http.MethodHead || h.status == http.StatusNoContent || h.status == http.StatusNotModified:
		b.left = 0
		b.keep = b.keep && !(h.framing.chunked && noBody(h.status)) // some send an end of chunks all the same
		if h.status == http.StatusNoContent {
			resp.ContentLength = 0
		}
	case h.framing.chunked:
		resp.ContentLength, b.left = -1, -1
		b.chunks = &chunkReader{src: b, lim: &c.client.body, dropsTrailer: true}
	case b.left < 0:
		b.keep = false // the end of the connection is the body's
	}
	if b.left == 0 {
		b.finish() // there is nothing to come, and the connection may be another exchange's at once
	}
	return resp
}

// responseBody is a response's body. It belongs to one goroutine.
type responseBody struct {
	c       *ClientConn // nil once the exchange is over
	chunks  *chunkReader
	left    int64 // if not chunked; less than 0 means to the connection's end
	keep    bool  // the connection can take another exchange
	trailer http.Header
	err     error // what every further Read returns
}

// Read reads the body, decoded. It blocks until there is a byte. An end that comes too early is [io.ErrUnexpectedEOF].
func (b *responseBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, ended, err := b.next(p)
	switch {
	case ended:
		b.finish()
		return n, io.EOF
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	b.fail(err)
	return n, err
}

// Buffered returns how many bytes have come that were not read, the framing of a chunked body among them.
func (b *responseBody) Buffered() int {
	if b.c == nil {
		return 0
	}
	return b.c.reader.buffered()
}

// Ready reports whether a Read gives some of the body, as far as that is sure, without waiting for the server. A large piece is not
// sure: Read waits for what has come behind it.
func (b *responseBody) Ready() bool {
	if b.c == nil {
		return false
	}
	have := b.c.reader.peek()
	if b.chunks != nil && b.chunks.left == 0 { // the line of a chunk, which is not the last, and a byte of its data
		line := bytes.IndexByte(have, '\n') + 1
		return !b.chunks.inside && line > 0 && line < len(have) && have[0] != '0' && len(have) < bulkPiece
	}
	return len(have) > 0 && len(have) < bulkPiece
}

// Come returns about how many bytes have come of the body and of what follows it, with their framing and TLS's, that were not read.
func (b *responseBody) Come() int {
	n := b.Buffered()
	if b.c != nil && b.c.ahead != nil {
		n += b.c.ahead.Buffered()
	}
	return n
}

// next reads at most len(p) bytes and says whether they were the last.
func (b *responseBody) next(p []byte) (n int, ended bool, err error) {
	switch {
	case b.chunks != nil:
		n, err = b.chunks.read(p)
		if err == nil && b.chunks.left == 0 && b.chunks.inside && b.c.reader.lastChunkNext() {
			err = b.chunks.next() // so that the last bytes and the end come in one call
		}
		return n, b.chunks.ended, err
	case b.left < 0:
		n, err = b.data(p)
		return n, err == io.EOF, err //nolint:errorlint // a connection returns it bare
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err = b.data(p)
	b.left -= int64(n)
	return n, b.left == 0, err
}

// data is [chunkSource].data.
func (b *responseBody) data(p []byte) (n int, err error) {
	for {
		n, err = b.c.reader.read(p)
		if n == 0 && b.again(err) {
			continue
		}
		return b.gather(p, n, err)
	}
}

// bulkPiece is the size of a read from which on a body is taken for bulk, in which a piece may wait for the next one.
const bulkPiece = 8 << 10

// gather reads what has come whole behind a large piece of n bytes, as long as there is room for much of it or p takes all that is left.
// Small pieces, such as events, go on at once: what comes behind them may be a record of TLS's own, behind which a read would wait.
func (b *responseBody) gather(p []byte, n int, err error) (int, error) {
	ends := int64(len(p)) == b.left
	for last := n; err == nil && last >= bulkPiece && (len(p)-n >= readBuffer || ends && n < len(p)); n += last {
		if b.c.ahead == nil || b.c.reader.buffered() > 0 || !b.c.ahead.Whole() {
			break
		}
		last, err = b.c.reader.read(p[n:])
	}
	return n, err
}

// line is [chunkSource].line.
func (b *responseBody) line(limit int) ([]byte, error) { return b.c.reader.line(limit, b) }

// more is [filler].more.
func (b *responseBody) more() error {
	for {
		if err := b.c.reader.fill(); !b.again(err) {
			return err
		}
	}
}

// again reports whether a read failed only because the time for the head, which has come, is over.
func (b *responseBody) again(err error) bool {
	return err != nil && isTimeout(err) && !b.c.aborted.Load() && b.c.patient() == nil
}

// finish ends the body and the exchange with it.
func (b *responseBody) finish() {
	if b.chunks != nil && len(b.chunks.trailer) > 0 {
		maps.Copy(b.trailer, b.chunks.trailer)
	}
	b.err = io.EOF
	c := b.c
	b.c = nil
	c.end(b.keep)
}

// fail ends the exchange before the body's end.
func (b *responseBody) fail(err error) {
	b.err = err
	c := b.c
	b.c = nil
	c.end(false)
}

// Close ends the exchange. A body that was not read to its end takes its connection with it.
func (b *responseBody) Close() error {
	if b.c != nil {
		b.fail(errors.New("read response body: it was closed"))
	}
	return nil
}

// upgraded is a connection that changed its protocol. Reads and writes may be of two goroutines, and Close of a third.
type upgraded struct{ c *ClientConn }

// Read reads what the server says after its head.
func (u *upgraded) Read(p []byte) (int, error) { return u.c.reader.readPatiently(p) }

// Await blocks until there is something to read, or Read has an error to tell, if the connection can be waited for. It takes less of the
// stack than a Read that waits.
func (u *upgraded) Await() { u.c.reader.Await() }

// Write writes to the server within the deadline of a request's write.
func (u *upgraded) Write(p []byte) (int, error) {
	if err := u.c.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends the connection.
func (u *upgraded) Close() error {
	u.c.closed.Do(func() {
		u.c.letGo()
		u.c.Close()
		u.c.release(false)
	})
	return nil
}
