package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// conn is one guest connection while Serve runs. One goroutine reads it, and has to itself what comes first; mu guards what it
// shares with those of the requests.
type conn struct {
	server  *Server
	lim     *Limits
	net     net.Conn
	remote  string
	account Account
	ctx     context.Context // whose values those of requests have
	stops   [2]func() bool  // of what waits for the end of a context

	reader  reader
	greeted bool // the first SETTINGS came
	head    headReader
	data    dataReader
	partial bool // a frame or a head has begun and not ended
	whole   bool // one has ended since that was looked at

	lastRead atomic.Int64 // when the guest said something, in Unix nanoseconds
	handlers sync.WaitGroup

	mu       sync.Mutex
	streams  map[uint32]*stream
	maxID    uint32              // the last stream that the guest opened
	active   []*stream           // whose handlers run
	over     bool                // their contexts have ended, and so have those of others that begin
	late     [lateStreams]uint32 // streams that the gateway has reset
	lateNext int

	send       int64 // window towards the guest
	sendStream int64 // initial window of each stream towards it
	starved    int   // streams that wait for the window of the connection
	receive    int   // what the guest may still send
	consumed   int   // what was taken of that and not yet given back

	lead  lead
	roles sync.Cond // who reads has changed, or whether the connection goes on
	pace  pace

	out     out
	encoder encoder
	credit  int // bytes of bodies, either way, that no frame was let pass for

	err      error // why nothing more can be read or written; nil as long as it can
	flooded  bool
	leaving  bool // GOAWAY was sent: no further stream
	left     bool // and no stream is left
	acked    bool // our settings
	timer    *time.Timer
	due      time.Time // of timer
	idle     time.Time // since when there is no request
	begun    time.Time // when what is partial began, zero if nothing is
	asked    time.Time // when the guest was asked whether it is there
	finished bool      // end has begun
}

// newConn returns a connection whose peer has been told nothing.
func newConn(s *Server, nc net.Conn, account Account) *conn {
	c := &conn{
		server: s, lim: &s.limits, net: nc, remote: nc.RemoteAddr().String(), account: account,
		reader:  newReader(nc, &s.reads),
		streams: map[uint32]*stream{},
		send:    initialWindow, sendStream: initialWindow, receive: s.limits.ConnWindow,
	}
	c.head.pool = &s.fields
	c.head.decoder = hpack.NewDecoder(headerTable, c.head.field)
	c.head.decoder.SetMaxStringLength(s.limits.HeadBytes)
	c.roles.L = &c.mu
	c.encoder.pool = &s.writes
	c.out.start(c, &c.mu, nc, &c.encoder, s.limits.Write)
	return c
}

// serve greets the guest, and reads until the connection is at its end.
func (c *conn) serve() {
	err := c.start()
	for err == nil {
		if err = c.parse(); err != nil {
			break
		}
		if err = c.serveNext(); err != nil {
			break
		}
		err = c.await()
	}
	c.finish(err)
}

// start greets the guest and reads what its side of the connection begins with.
func (c *conn) start() error {
	c.mu.Lock()
	c.greet()
	c.startTimer()
	c.mu.Unlock()
	return c.readPreface()
}

// greet puts what the server begins with into the buffer: SETTINGS, and the window of the connection. mu is held.
func (c *conn) greet() {
	var p []byte
	for _, s := range []struct {
		id    uint16
		value int
	}{
		{settingFrame, maxFrame},
		{settingStreams, c.lim.Streams},
		{settingHeadList, c.lim.HeadBytes},
		{settingTable, headerTable},
		{settingConnect, 1},
		{settingWindow, c.lim.StreamWindow},
	} {
		p = appendSetting(p, s.id, uint32(s.value))
	}
	c.out.control(append(appendFrame(nil, len(p), kindSettings, 0, 0), p...))
	if more := c.lim.ConnWindow - initialWindow; more > 0 {
		c.out.control(appendNumber(nil, kindWindow, 0, uint32(more)))
	}
	c.out.flush()
}

// readPreface reads what a client's connection begins with.
func (c *conn) readPreface() error {
	c.setPartial(true)
	for len(c.reader.buffered()) < len(preface) {
		if err := c.fill(); err != nil {
			return err
		}
	}
	if string(c.reader.use(len(preface))) != preface {
		return connError{codeProtocol, "the connection does not begin as one of HTTP/2 does"}
	}
	return nil
}

// await reads on after what has come was parsed.
func (c *conn) await() error {
	if err := c.settleDown(); err != nil {
		return err
	}
	c.reader.await()
	return c.fill()
}

// settleDown lets control frames leave and notes what has begun, before the connection is read again.
func (c *conn) settleDown() error {
	if c.whole {
		c.whole = false
		c.setPartial(false) // what has begun now began after that
	}
	c.setPartial(len(c.reader.buffered()) > 0 || c.head.stream != 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.flushControl()
	if c.lead.recall {
		return errRecalled
	}
	return c.err
}

// fill reads from the connection. A read deadline is only ever set to end that.
func (c *conn) fill() error {
	err := c.reader.fill(c.wanted())
	if err == nil {
		c.lastRead.Store(time.Now().UnixNano())
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.lead.recall && errors.Is(err, os.ErrDeadlineExceeded):
		return errRecalled
	case c.left || errors.Is(err, io.EOF):
		return errLeft
	case c.err != nil:
		return c.err
	}
	return err
}

// wanted is how much has to come before anything can be done, 0 if nothing has begun.
func (c *conn) wanted() int {
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

// setPartial notes whether a frame or head has begun and not ended.
func (c *conn) setPartial(partial bool) {
	if c.partial == partial {
		return
	}
	c.partial = partial
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = time.Time{}
	if partial {
		c.begun = time.Now()
		c.wakeBy(c.begun.Add(c.lim.Head))
	}
}

// parse goes over everything that has come, as far as it is whole.
func (c *conn) parse() error {
	for {
		if c.pace.owed.Load() > 0 && c.lead.next == nil { // a request that has come is served first
			if err := c.settleUp(); err != nil {
				return err
			}
		}
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
		if f.kind == kindData && !f.has(flagPadded) && c.greeted && c.head.stream == 0 {
			c.reader.use(frameHead)
			if err := c.settle(c.beginData(f)); err != nil {
				return err
			}
			c.whole = true
			continue
		}
		if len(c.reader.buffered()) < frameHead+f.length {
			return nil
		}
		c.reader.use(frameHead)
		if err := c.settle(c.frame(f, c.reader.use(f.length))); err != nil {
			return err
		}
		c.whole = c.whole || c.head.stream == 0
	}
}

// settle resets a stream that has an error, and returns any other.
func (c *conn) settle(err error) error {
	if err == nil {
		return nil
	}
	var broken streamError
	if !errors.As(err, &broken) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resetByID(broken)
	return c.err
}

// end says its last words and tears down what is left. why is what serve returned.
func (c *conn) end(why error) {
	c.mu.Lock()
	if c.finished {
		c.mu.Unlock()
		return
	}
	c.finished = true
	c.reader.release()
	c.timer.Stop()
	if c.lead.timer != nil {
		c.lead.timer.Stop()
	}
	var broke connError
	flooded := c.flooded
	switch {
	case flooded:
		c.goAway(codeEnhanceYourCalm)
	case errors.As(why, &broke):
		c.goAway(broke.code)
	case !errors.Is(why, errLeft):
		c.out.err = why // nothing can be written either
	}
	orderly := c.left || broke.code != codeNo && !flooded
	c.fail(ErrConnEnded)
	c.out.last(c.lim.Linger)
	c.mu.Unlock()
	if orderly {
		c.linger()
	}
	c.net.Close() //nolint:errcheck // it is at its end either way
}

// linger ends the sending side and reads on for a moment: bytes that come to a closed socket make the kernel send a reset, which
// discards what the guest had not read yet.
func (c *conn) linger() {
	half, ok := c.net.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.net.SetReadDeadline(time.Now().Add(c.lim.Linger)) != nil {
		return
	}
	scratch := c.server.reads.get(readBuffer)
	defer c.server.reads.put(scratch)
	for left := lingerBytes; left > 0; {
		n, err := c.net.Read(*scratch)
		if err != nil {
			return
		}
		left -= n
	}
}
