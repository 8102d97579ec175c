package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"gatewayd/gateway/routes"
)

const (
	h2FrameHead = 9   // bytes of a frame's head (RFC 9113 section 4.1)
	h2FrameFare = 256 // bytes of bodies that pay for one frame without any: clients send two WINDOW_UPDATE for some kilobytes
)

// h2Conn is a guest's HTTP/2 connection. It counts the frames that pass, and ends reading with ENHANCE_YOUR_CALM when the
// bottle has sent more of those that only cost than it may (RFC 9113 section 10.5). It changes no byte.
type h2Conn struct {
	*tls.Conn
	meter *meter
	over  func(routes.Reason)

	in, out frameWalk
	batch   *writeBatch
	preface int          // bytes of the client's that have passed
	paid    atomic.Int64 // bytes of bodies, either way, that no frame was let pass for
	flood   atomic.Bool

	served   atomic.Int64 // requests that came to the gateway
	answered int64        // of them, those whose response has ended; written with frames

	idle   time.Duration
	mu     sync.Mutex
	timer  *time.Timer // runs while there is no request
	active int         // requests
	closed bool        // the connection has ended
}

// newH2Conn returns conn with the bottle's account, and over for what that does not allow. Without a request for as long as
// idle, it ends in order: http2.Server's own timer keeps connections that ended with streams open in memory until it fires. The
// caller calls done when the connection has ended.
func newH2Conn(conn *tls.Conn, m *meter, over func(routes.Reason), idle time.Duration, pool *bytePool) *h2Conn {
	c := &h2Conn{Conn: conn, meter: m, over: over, idle: idle, batch: newWriteBatch(conn, pool)}
	c.timer = time.AfterFunc(idle, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }) // a closed connection needs none
	return c
}

// began notes that there is a request.
func (c *h2Conn) began() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
	c.timer.Stop()
}

// ended notes that a request is over.
func (c *h2Conn) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active--; c.active == 0 && !c.closed {
		c.timer.Reset(c.idle)
	}
}

// done stops the timer for good.
func (c *h2Conn) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.timer.Stop()
}

// goesOn tells whether reading goes on after the timer has ended it: a request came meanwhile.
func (c *h2Conn) goesOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active > 0 && c.Conn.SetReadDeadline(time.Time{}) == nil
}

// Read is [net.Conn].Read.
func (c *h2Conn) Read(p []byte) (int, error) {
	if c.flood.Load() {
		return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	n, err := c.Conn.Read(p)
	for n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if !c.goesOn() {
			return 0, http2.ConnectionError(http2.ErrCodeNo)
		}
		n, err = c.Conn.Read(p)
	}
	rest := p[:n]
	skip := min(len(rest), len(http2.ClientPreface)-c.preface)
	c.preface += skip
	c.in.walk(rest[skip:], c.received)
	return n, err
}

// Write is [net.Conn].Write, but that p leaves after it has returned.
func (c *h2Conn) Write(p []byte) (int, error) {
	c.out.walk(p, c.sent)
	return c.batch.Write(p)
}

// Close is [net.Conn].Close, after what was written has left, or some time.
func (c *h2Conn) Close() error {
	c.batch.close()
	return c.Conn.Close()
}

// received accounts for a frame of the guest's.
func (c *h2Conn) received(kind http2.FrameType, flags http2.Flags, length int) {
	switch kind {
	case http2.FrameHeaders: // a request, which has a record and a budget of its own
	case http2.FrameRSTStream:
		c.charge(c.meter.resets.Allow())
	case http2.FrameData:
		if length == 0 && flags.Has(http2.FlagDataEndStream) {
			return
		}
		c.paid.Add(int64(length))
		c.fare()
	default:
		c.fare()
	}
}

// sent accounts for a frame of the gateway's. A guest can have it reset streams, by what it sends on them.
func (c *h2Conn) sent(kind http2.FrameType, flags http2.Flags, length int) {
	switch kind {
	case http2.FrameData:
		c.paid.Add(int64(length))
		c.answer(flags)
	case http2.FrameHeaders:
		c.answer(flags)
	case http2.FrameRSTStream:
		c.charge(c.meter.resets.Allow())
	}
}

// answer accounts for the end of a response. One that is beyond the requests which came to the gateway is http2.Server's own, to a
// head that is too large or breaks HTTP: it is recorded, and costs the guest as much as a reset. Requests that were reset, or are
// under way, can hide as many of them.
func (c *h2Conn) answer(flags http2.Flags) {
	if !flags.Has(http2.FlagDataEndStream) { // the same as that of HEADERS
		return
	}
	if c.answered < c.served.Load() {
		c.answered++
		return
	}
	c.over(ReasonH2Head)
	c.charge(c.meter.resets.Allow())
}

// fare pays for a frame with bytes that were moved, or else from the bottle's budget.
func (c *h2Conn) fare() {
	if c.paid.Load() >= h2FrameFare {
		c.paid.Add(-h2FrameFare) // frames of the guest alone are paid for, and one goroutine reads them
		return
	}
	c.charge(c.meter.frames.Allow())
}

// charge ends the connection if the bottle's budget did not allow a frame.
func (c *h2Conn) charge(allowed bool) {
	if !allowed && !c.flood.Swap(true) {
		c.over(ReasonH2Flood)
	}
}

// frameWalk follows the frames in one direction of an HTTP/2 connection, in pieces of any size.
type frameWalk struct {
	head [h2FrameHead]byte
	have int // bytes of head
	left int // bytes of the payload that are to come
}

// walk goes over p and tells seen of each frame whose head ends in it.
func (w *frameWalk) walk(p []byte, seen func(kind http2.FrameType, flags http2.Flags, length int)) {
	for len(p) > 0 {
		if w.left > 0 {
			n := min(w.left, len(p))
			w.left -= n
			p = p[n:]
			continue
		}
		n := copy(w.head[w.have:], p)
		w.have += n
		p = p[n:]
		if w.have == h2FrameHead {
			w.have = 0
			w.left = int(w.head[0])<<16 | int(w.head[1])<<8 | int(w.head[2])
			seen(http2.FrameType(w.head[3]), http2.Flags(w.head[4]), w.left)
		}
	}
}

// stallWatch is a response over HTTP/2 whose stream is reset when the guest does not let a write go on for too long: without
// window a write waits, and asking whether the guest is there does not help, for it is.
type stallWatch struct {
	http.ResponseWriter
	ctx   context.Context // of the stream
	limit time.Duration
	timer *time.Timer

	mu   sync.Mutex
	over bool // the handler has returned
}

// newStallWatch returns w, the response on a stream that ends with ctx, with a limit for each write. The caller calls end when
// its handler returns.
func newStallWatch(ctx context.Context, w http.ResponseWriter, limit time.Duration) *stallWatch {
	return &stallWatch{ResponseWriter: w, ctx: ctx, limit: limit}
}

// Write is [http.ResponseWriter].Write.
func (s *stallWatch) Write(p []byte) (int, error) {
	defer s.begin().Stop()
	return s.ResponseWriter.Write(p)
}

// FlushError is [http.ResponseController].Flush.
func (s *stallWatch) FlushError() error {
	defer s.begin().Stop()
	return http.NewResponseController(s.ResponseWriter).Flush()
}

// Unwrap lets [http.ResponseController] reach the writer below.
func (s *stallWatch) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// begin starts the time of one write.
func (s *stallWatch) begin() *time.Timer {
	if s.timer == nil {
		s.timer = time.AfterFunc(s.limit, s.reset)
	} else {
		s.timer.Reset(s.limit)
	}
	return s.timer
}

// reset ends the stream.
func (s *stallWatch) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		_ = http.NewResponseController(s.ResponseWriter).SetWriteDeadline(time.Unix(1, 0)) // the stream may be over
	}
}

// end gives what is left to be written the same time, and makes a late timer do nothing.
func (s *stallWatch) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.ctx.Err() != nil {
		return // a timer would outlive the stream
	}
	_ = http.NewResponseController(s.ResponseWriter).SetWriteDeadline(time.Now().Add(s.limit))
}
