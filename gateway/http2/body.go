package http2

import (
	"io"
	"maps"
	"os"
	"time"

	"golang.org/x/net/http/httpguts"
)

// body is what came of a request's body and was not read yet, in pieces of one size.
type body struct {
	pieces []*[]byte
	r, w   int // of the first and of the last piece
	size   int
}

// push appends p.
func (b *body) push(p []byte, pool *buffers) {
	b.size += len(p)
	for len(p) > 0 {
		if len(b.pieces) == 0 || b.w == len(*b.pieces[len(b.pieces)-1]) {
			b.pieces = append(b.pieces, pool.get(len(p)+b.w)) // a body of tiny frames does not stay in small pieces
			b.w = 0
		}
		n := copy((*b.pieces[len(b.pieces)-1])[b.w:], p)
		b.w += n
		p = p[n:]
	}
}

// pop takes as much as there is and p has room for.
func (b *body) pop(p []byte, pool *buffers) (n int) {
	for n < len(p) && b.size > 0 {
		first := *b.pieces[0]
		end := len(first)
		if len(b.pieces) == 1 {
			end = b.w
		}
		took := copy(p[n:], first[b.r:end])
		b.r += took
		b.size -= took
		n += took
		if b.r == end {
			pool.put(b.pieces[0])
			b.pieces[0] = nil
			b.pieces = b.pieces[1:]
			b.r = 0
		}
	}
	if b.size == 0 {
		b.drop(pool)
	}
	return n
}

// drop lets go of everything and returns how much that was.
func (b *body) drop(pool *buffers) (n int) {
	for _, p := range b.pieces {
		pool.put(p)
	}
	n = b.size
	*b = body{}
	return n
}

// requestBody is a stream as its request's body.
type requestBody stream

// Read is [io.Reader].Read. It returns [ErrBodyClosed] once the handler has returned.
func (b *requestBody) Read(p []byte) (int, error) {
	st := (*stream)(b)
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch {
		case st.bodyClosed:
			return 0, ErrBodyClosed
		case st.body.size > 0:
			n := st.body.pop(p, &c.server.bodies)
			c.giveBack(n)
			st.giveBack(n)
			if c.out.urgent {
				c.out.flush()
			}
			if st.body.size == 0 && st.ended() {
				return n, st.end()
			}
			return n, nil
		case st.bodyErr != nil:
			return 0, st.bodyErr
		case st.ended():
			return 0, st.end()
		case st.err != nil:
			return 0, st.err
		case st.readPast:
			return 0, os.ErrDeadlineExceeded
		case st.expects && !st.headSent:
			st.expects = false
			st.sendContinue()
		default:
			st.arrived.Wait()
		}
	}
}

// ended reports whether the body is whole. mu is held.
func (st *stream) ended() bool { return st.remoteClosed && st.bodyErr == nil }

// end is what reading a whole body ends with. mu is held.
func (st *stream) end() error {
	if st.trailer != nil {
		maps.Copy(st.request.Trailer, st.trailer)
		st.trailer = nil
	}
	return io.EOF
}

// Close ends reading. What is left of the body is dropped.
func (b *requestBody) Close() error {
	st := (*stream)(b)
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.closeBody()
	return nil
}

// closeBody is Close with mu held.
func (st *stream) closeBody() {
	if st.bodyClosed {
		return
	}
	st.bodyClosed = true
	st.c.giveBack(st.body.drop(&st.c.server.bodies))
	st.arrived.Broadcast()
}

// setReadDeadline makes reading fail from t on, or never if t is zero.
func (st *stream) setReadDeadline(t time.Time) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	wait := time.Until(t)
	st.readBy = t
	st.readPast = !t.IsZero() && wait <= 0
	switch {
	case st.readPast:
		st.arrived.Broadcast()
	case t.IsZero() || st.bodyClosed:
	case st.readTimer == nil:
		st.readTimer = time.AfterFunc(wait, st.readTimeout)
	default:
		st.readTimer.Reset(wait)
	}
}

// readTimeout is the read deadline.
func (st *stream) readTimeout() {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if !st.readBy.IsZero() && !time.Now().Before(st.readBy) { // or it was set anew meanwhile
		st.readPast = true
		st.arrived.Broadcast()
	}
}

// hasContinue reports whether the guest waits for 100 Continue (RFC 9110 section 10.1.1).
func hasContinue(expect []string) bool {
	return len(expect) > 0 && httpguts.HeaderValuesContainsToken(expect, "100-continue")
}
