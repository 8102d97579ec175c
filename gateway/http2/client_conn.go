package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// ClientConn is the client's half of one HTTP/2 connection. One goroutine reads it, and has to itself what comes first; mu guards what
// it shares with those of the requests, which write their own heads and bodies and wait at that lock for what comes.
type ClientConn struct {
	client *Client
	lim    *ClientLimits
	net    net.Conn
	gone   func() // called once, when it takes no further request
	told   bool   // it was

	reader  reader
	greeted bool // the server's first SETTINGS came
	head    headReader
	parts   int // CONTINUATION frames of the head that has begun
	data    clientData
	stirred []*call // of which something came that was not said yet

	lastRead atomic.Int64 // when the server said something, in Unix nanoseconds

	mu       sync.Mutex
	calls    map[uint32]*call // that are open
	next     uint32           // id of the next
	reserved int              // requests that are about to begin
	most     int              // that the server takes at once
	settled  bool             // it has said how many

	send       int64 // window towards the server
	sendStream int64 // initial window of each stream towards it
	starved    int   // requests that wait for the window of the connection
	receive    int   // what the server may still send
	consumed   int   // what was taken of that and not yet given back

	out     out
	encoder encoder

	err     error // why nothing more can be read or written; nil as long as it can
	leaving bool  // it takes no further request
	timer   *time.Timer
	due     time.Time // of timer
	idle    time.Time // since when there is no request
	asked   time.Time // when the server was asked whether it is there
}

// Streams that a server is taken to allow: until it has said so, and if it then says nothing of it.
const (
	firstStreams = 100
	manyStreams  = 1000
)

// NewConn returns the client's half of conn, over which nothing was said yet, and has another goroutine read it until it is at its end
// and close it. gone is called once, without a lock, when it takes no further request.
func (c *Client) NewConn(conn net.Conn, gone func()) *ClientConn {
	now := time.Now()
	cc := &ClientConn{
		client: c, lim: &c.lim, net: conn, gone: gone, reader: newReader(conn, &c.reads),
		calls: map[uint32]*call{}, next: 1, most: firstStreams,
		send: initialWindow, sendStream: initialWindow, receive: c.lim.ConnWindow,
		idle: now, due: now.Add(min(c.lim.Idle, c.lim.Ping)),
	}
	cc.lastRead.Store(now.UnixNano())
	cc.head.pool = &c.fields
	cc.head.decoder = hpack.NewDecoder(headerTable, cc.head.field)
	cc.head.decoder.SetMaxStringLength(c.lim.HeadBytes)
	cc.encoder.pool = &c.writes
	cc.out.start(cc, &cc.mu, conn, &cc.encoder, c.lim.Head)
	cc.mu.Lock()
	defer cc.mu.Unlock()
	cc.greet()
	cc.timer = time.AfterFunc(time.Until(cc.due), cc.look)
	go cc.serve()
	return cc
}

// greet puts what a client begins with into the buffer, to leave with the first request. mu is held.
func (c *ClientConn) greet() {
	var p []byte
	for _, s := range []struct {
		id    uint16
		value int
	}{
		{settingPush, 0}, {settingWindow, c.lim.StreamWindow}, {settingHeadList, c.lim.HeadBytes}, {settingTable, headerTable},
	} {
		p = appendSetting(p, s.id, uint32(s.value))
	}
	c.out.control(append(appendFrame([]byte(preface), len(p), kindSettings, 0, 0), p...))
	if more := c.lim.ConnWindow - initialWindow; more > 0 {
		c.out.control(appendNumber(nil, kindWindow, 0, uint32(more)))
	}
	c.out.urgent = false
}

// serve reads until the connection is at its end, and ends it.
func (c *ClientConn) serve() {
	var err error
	for err == nil {
		err = c.parse()
		c.stir()
		if err == nil {
			err = c.await()
		}
	}
	c.end(err)
}

// await reads on after what has come was parsed.
func (c *ClientConn) await() error {
	c.mu.Lock()
	c.out.flushControl()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.reader.await()
	if err := c.reader.fill(c.wanted()); err != nil {
		return err
	}
	c.lastRead.Store(time.Now().UnixNano())
	return nil
}

// wanted is how much has to come before anything can be done, 0 if nothing has begun.
func (c *ClientConn) wanted() int {
	have := c.reader.buffered()
	switch {
	case c.data.left > 0:
		return c.data.left
	case len(have) >= frameHead:
		return frameHead + parseFrame(have).length - len(have)
	case len(have) > 0:
		return frameHead - len(have)
	}
	return 0
}

// parse goes over everything that has come, as far as it is whole.
func (c *ClientConn) parse() error {
	for {
		if c.data.left > 0 {
			n := min(len(c.reader.buffered()), c.data.left)
			if n == 0 {
				return nil
			}
			if err := c.settle(c.piece(c.reader.use(n))); err != nil {
				return err
			}
			continue
		}
		if len(c.reader.buffered()) < frameHead {
			return nil
		}
		f := parseFrame(c.reader.buffered())
		if f.length > maxFrame {
			return connError{codeFrameSize, "a frame is larger than was offered"}
		}
		var err error
		if f.kind == kindData && !f.has(flagPadded) && c.greeted && c.head.stream == 0 {
			c.reader.use(frameHead)
			err = c.openData(f, f.length)
		} else {
			if len(c.reader.buffered()) < frameHead+f.length {
				return nil
			}
			c.reader.use(frameHead)
			err = c.frame(f, c.reader.use(f.length))
		}
		if err = c.settle(err); err != nil {
			return err
		}
	}
}

// settle resets a stream that has an error, and returns any other.
func (c *ClientConn) settle(err error) error {
	var broken streamError
	if err == nil || !errors.As(err, &broken) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.calls[broken.stream]; st != nil {
		st.reset(broken.code, broken)
	} else {
		c.out.control(appendNumber(nil, kindReset, broken.stream, uint32(broken.code)))
	}
	return c.err
}

// stir wakes who waits for something that has come: once for all that came together.
func (c *ClientConn) stir() {
	c.mu.Lock()
	for i, st := range c.stirred {
		c.stirred[i] = nil
		st.stirred = false
		st.arrived.Broadcast()
	}
	c.stirred = c.stirred[:0]
	gone := (c.leaving || c.err != nil) && !c.told
	c.told = c.told || gone
	c.mu.Unlock()
	if gone {
		c.gone()
	}
}

// stirs has who waits for st be woken soon. It is for the goroutine that reads. mu is held.
func (c *ClientConn) stirs(st *call) {
	if !st.stirred {
		st.stirred = true
		c.stirred = append(c.stirred, st)
	}
}

// Reserve keeps room for a request, and reports whether there is any. RoundTrip uses it.
func (c *ClientConn) Reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.leaving || len(c.calls)+c.reserved >= c.most {
		return false
	}
	c.reserved++
	return true
}

// Over reports whether the connection takes no further request.
func (c *ClientConn) Over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving || c.err != nil
}

// Idle reports whether nothing is under way, or about to be.
func (c *ClientConn) Idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls) == 0 && c.reserved == 0
}

// Retire has the connection take no further request, and end with what is under way. It does not block.
func (c *ClientConn) Retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave()
}

// Close ends the connection and whatever is under way. It does not wait for that.
func (c *ClientConn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandon(ErrConnEnded)
}

// leave lets no further request begin. mu is held.
func (c *ClientConn) leave() {
	c.leaving = true
	c.leaveIfDone()
}

// leaveIfDone ends the connection if it is to end and nothing is under way. mu is held.
func (c *ClientConn) leaveIfDone() {
	if c.leaving && len(c.calls) == 0 && c.err == nil {
		c.abandon(errLeft)
	}
}

// broken reports why nothing more is to be said, nil as long as it is. mu is held.
func (c *ClientConn) broken() error { return c.err }

// flood ends the connection since its server has the gateway say too much. mu is held.
func (c *ClientConn) flood() {
	c.abandon(connError{codeEnhanceYourCalm, "the server asks for more answers than it takes"})
}

// abandon ends whatever is under way: nothing more can be read or written. The goroutine that reads sees to the rest. mu is held.
func (c *ClientConn) abandon(err error) {
	c.fail(err)
	_ = c.net.SetReadDeadline(time.Unix(1, 0)) // on a closed connection the read fails as well
}

// fail ends every request. mu is held.
func (c *ClientConn) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	for _, st := range c.calls {
		st.break_(c.err)
	}
	c.out.room.Broadcast()
}

// end says the last words and closes the connection. why is what ended the reading.
func (c *ClientConn) end(why error) {
	c.mu.Lock()
	if c.err != nil {
		why = c.err
	} else if errors.Is(why, io.EOF) {
		why = io.ErrUnexpectedEOF
	}
	c.timer.Stop()
	c.reader.release()
	var broke connError
	if errors.As(why, &broke) && c.out.err == nil {
		p := appendFrame(nil, 8, kindGoAway, 0, 0)
		c.out.control(append(p, 0, 0, 0, 0, 0, 0, 0, byte(broke.code)))
	}
	c.fail(why)
	c.out.last(DefaultLinger)
	c.mu.Unlock()
	c.stir()
	c.net.Close() //nolint:errcheck // it is at its end either way
}

// wakeBy makes sure that look runs by then. mu is held.
func (c *ClientConn) wakeBy(by time.Time) {
	if by.Before(c.due) && c.err == nil {
		c.due = by
		c.timer.Reset(time.Until(by))
	}
}

// look sees to what has waited for too long, and to when it is to look again.
func (c *ClientConn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now, said := time.Now(), time.Unix(0, c.lastRead.Load())
	next := said.Add(c.lim.Ping)
	if c.asked.After(said) {
		next = c.asked.Add(c.lim.PingWait)
	}
	idle := c.idle.Add(c.lim.Idle)
	unused := len(c.calls) == 0 && c.reserved == 0
	switch {
	case unused && !now.Before(idle):
		c.leave()
		return
	case c.asked.After(said) && !now.Before(next):
		c.abandon(timeoutError("the server does not answer"))
		return
	case !now.Before(next):
		c.asked = now
		next = now.Add(min(c.lim.Ping, c.lim.PingWait))
		c.out.control(append(appendFrame(nil, 8, kindPing, 0, 0), "gatewayd"...))
	}
	for _, st := range c.calls {
		switch {
		case st.headBy.IsZero() || st.resp != nil:
		case !now.Before(st.headBy):
			st.reset(codeCancel, ErrHeadTimeout)
		case st.headBy.Before(next):
			next = st.headBy
		}
	}
	if unused && idle.Before(next) {
		next = idle
	}
	c.due = next
	c.timer.Reset(time.Until(next))
	c.out.flush()
}

// lifetime is a context that is told what is to end with it, as that of a stream is.
type lifetime interface {
	context.Context
	Enter(c ender)
	Leave(c ender) (before bool)
}
