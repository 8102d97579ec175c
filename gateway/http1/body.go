package http1

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// body is a request's body: an [io.ReadCloser] over the connection's reader. Its Read may run in another goroutine than
// the handler's, and while the response is written, and even while the handler returns: end waits for it.
type body struct {
	reader *reader
	lim    *Limits
	expect func() error // sends 100 Continue, once, before the first read; nil if the guest does not wait for it
	onEnd  func()       // called once, when the body has been read to its end

	mu      sync.Mutex // held during Read
	closed  bool       // the request has ended; only drain reads any more
	chunks  *chunkReader
	left    int64 // if chunks is nil
	trailer http.Header
	err     error // what every further Read returns
	pace    Pace

	limit time.Time // if set, no read deadline may be later

	gate    sync.Mutex // guards stopped and orders it with the read deadline
	stopped bool       // the request has ended during a Read, which must not set a deadline any more
}

// newBody makes the body that f describes. trailer is the request's, filled when the body ends; it may be nil.
func newBody(r *reader, lim *Limits, f framing, trailer http.Header) *body {
	b := &body{reader: r, lim: lim, pace: newPace(lim), left: f.length, trailer: trailer}
	if f.chunked {
		b.chunks = &chunkReader{src: b, lim: lim}
	}
	return b
}

// Read reads the body, decoded. It blocks until there is a byte, under the deadlines of [Limits]. It returns a
// *[ProtocolError] if the guest broke the framing or was too slow, [io.ErrUnexpectedEOF] if it left, and [ErrBodyClosed]
// after the request's end.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, ErrBodyClosed
	}
	return b.read(p)
}

// read is Read without its lock.
func (b *body) read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.expect != nil {
		send := b.expect
		b.expect = nil
		if err := send(); err != nil {
			return 0, b.fail(err)
		}
	}
	n, ended, err := b.next(p)
	if err != nil {
		return n, b.fail(err)
	}
	if ended {
		b.finish()
		return n, io.EOF
	}
	return n, nil
}

// nearDelay is how long the rest of a small body is waited for before it is taken for one that comes by and by.
const nearDelay = 2 * time.Millisecond

// Near reports whether all of the body has come, so that reading it waits for nobody. A small one is taken into the connection's
// buffer for that, and waited for a moment: many clients send the head and the body one after the other.
func (b *body) Near() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.err != nil || b.chunks != nil || b.expect != nil {
		return false
	}
	if b.left > int64(b.reader.buffered()) && b.reader.whole != nil && b.reader.fits(b.left) {
		b.bringNear()
	}
	return b.left <= int64(b.reader.buffered())
}

// bringNear takes what comes of the body within nearDelay into the buffer, which it fits. What fails is for the next read to tell.
func (b *body) bringNear() {
	for armed := false; b.left > int64(b.reader.buffered()); {
		if !b.reader.whole.Ready() {
			if !armed && b.arm(time.Now().Add(nearDelay)) != nil {
				return
			}
			armed = true
			if b.reader.whole.AwaitWhole() != nil {
				return
			}
		}
		if b.reader.fill() != nil {
			return
		}
	}
}

// next reads at most len(p) bytes and says whether they were the last.
func (b *body) next(p []byte) (n int, ended bool, err error) {
	if b.chunks != nil {
		n, err = b.chunks.read(p)
		if err == nil && b.chunks.left == 0 && b.chunks.inside && b.reader.lastChunkNext() {
			err = b.chunks.next() // so that the last bytes and the end come in one call
		}
		return n, b.chunks.ended, err
	}
	if b.left == 0 {
		return 0, true, nil
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err = b.data(p)
	b.left -= int64(n)
	return n, b.left == 0, err
}

// finish marks the body as read to its end.
func (b *body) finish() {
	if b.chunks != nil && b.trailer != nil {
		maps.Copy(b.trailer, b.chunks.trailer)
	}
	b.err = io.EOF
	if b.onEnd != nil {
		b.onEnd()
	}
}

// fail keeps err for every further Read.
func (b *body) fail(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	b.err = err
	return err
}

// Close does nothing: what is left of a body is dealt with when its request ends. It never fails.
func (b *body) Close() error { return nil }

// data is [chunkSource].data.
func (b *body) data(p []byte) (int, error) {
	if b.reader.buffered() > 0 {
		return b.reader.read(p)
	}
	return b.timed(func() (int, error) { return b.reader.read(p) })
}

// line is [chunkSource].line. The limit does not count the line's end.
func (b *body) line(limit int) ([]byte, error) { return b.reader.line(limit, b) }

// more reads further bytes into the reader's buffer.
func (b *body) more() error {
	_, err := b.timed(func() (int, error) { return 0, b.reader.fill() })
	return err
}

// timed runs one read from the connection under its deadline and the rate bound.
func (b *body) timed(read func() (int, error)) (int, error) {
	begin := time.Now()
	if err := b.arm(begin.Add(b.pace.Idle())); err != nil {
		return 0, err
	}
	before := b.reader.buffered()
	n, err := read()
	switch {
	case err == nil:
		err = b.pace.Count(n+b.reader.buffered()-before, time.Since(begin))
	case isTimeout(err) && b.isStopped():
		err = ErrBodyClosed
	case isTimeout(err):
		err = b.pace.Stalled()
	}
	return n, err
}

// arm sets the read deadline unless the request has ended.
func (b *body) arm(t time.Time) error {
	b.gate.Lock()
	defer b.gate.Unlock()
	if b.stopped {
		return ErrBodyClosed
	}
	if !b.limit.IsZero() && b.limit.Before(t) {
		t = b.limit
	}
	return b.reader.until(t)
}

// isStopped reports whether stop was called.
func (b *body) isStopped() bool {
	b.gate.Lock()
	defer b.gate.Unlock()
	return b.stopped
}

// awaitsContinue reports whether nobody has begun to read a body whose guest waits for that.
func (b *body) awaitsContinue() bool {
	if !b.mu.TryLock() {
		return false
	}
	defer b.mu.Unlock()
	return b.expect != nil
}

// rest says what a request left of its body when its handler returned.
type rest uint8

const (
	restNone  rest = iota // the body was read to its end: the next request begins where the reader stands
	restSome              // it may be drained
	restStuck             // it cannot: somebody was in a Read, or the guest broke off, or waits for 100 Continue
)

// end makes every present and future Read fail and waits for the present one. Afterwards the reader is the caller's.
func (b *body) end() rest {
	b.gate.Lock()
	interrupt := !b.mu.TryLock()
	if interrupt {
		b.stopped = true
		_ = b.reader.until(time.Unix(1, 0)) // a connection that is gone has no Read to end
	}
	b.gate.Unlock()
	if interrupt {
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	b.closed = true
	switch {
	case b.err == io.EOF: //nolint:errorlint // set bare, by finish alone
		return restNone
	case b.err != nil || interrupt || b.expect != nil || b.chunks == nil && b.left > b.lim.DrainBytes:
		return restStuck
	default:
		return restSome
	}
}

// drain reads what is left of a body after end said restSome, within the bounds of [Limits], and reports whether it came to
// the end.
func (b *body) drain(scratch []byte) (whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = time.Now().Add(b.lim.Drain)
	for left := b.lim.DrainBytes; left > 0; {
		n, err := b.read(scratch)
		left -= int64(n)
		if err != nil {
			return err == io.EOF //nolint:errorlint // read returns it bare
		}
	}
	return false
}
