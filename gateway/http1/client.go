package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [ClientLimits]: what a server may ask of one exchange before it is given up.
const (
	// DefaultResponseHeadBytes bounds a response's head, from the status line to the empty line.
	DefaultResponseHeadBytes = 1 << 20
	// DefaultResponseFields bounds the number of field lines in one head.
	DefaultResponseFields = 1000
	// DefaultInterim bounds how many interim responses may come before the final one.
	DefaultInterim = 32
	// DefaultResponseHead is how long a final response's head may take from the end of its request, and one write of the request.
	DefaultResponseHead = 15 * time.Minute
	// DefaultContinue is the wait for 100 Continue before a body is sent all the same (RFC 9110 section 10.1.1).
	DefaultContinue = time.Second
	// settle is how long a connection whose response is whole may still be sending the request's body before it is given up.
	settle = 50 * time.Millisecond
)

// ClientLimits bounds what one exchange with a server may cost. A zero or negative field means its default, so that no bound
// can be turned off. Sizes are in bytes.
type ClientLimits struct {
	HeadBytes, Fields, Interim int
	Head, Continue             time.Duration
}

// withDefaults returns l with every unset field at its default.
func (l ClientLimits) withDefaults() ClientLimits {
	set := func(field *int, value int) {
		if *field <= 0 {
			*field = value
		}
	}
	set(&l.HeadBytes, DefaultResponseHeadBytes)
	set(&l.Fields, DefaultResponseFields)
	set(&l.Interim, DefaultInterim)
	if l.Head <= 0 {
		l.Head = DefaultResponseHead
	}
	if l.Continue <= 0 {
		l.Continue = DefaultContinue
	}
	return l
}

// Client makes the client's half of HTTP/1.1 connections, which share its buffers. It dials nothing and keeps nothing: which
// connection carries a request is for its caller to say.
type Client struct {
	lim    ClientLimits
	body   Limits // bounds of chunked bodies
	reads  buffers
	writes buffers
}

// NewClient returns a Client with the limits.
func NewClient(lim ClientLimits) *Client {
	return &Client{
		lim: lim.withDefaults(), body: Limits{}.withDefaults(),
		reads: buffers{size: recordBuffer}, writes: buffers{size: writeBuffer},
	}
}

// Request is what [ClientConn.RoundTrip] sends. The head is written as it is given: whoever makes it vouches for it.
type Request struct {
	Method, Target, Host string
	// Header is sent without Host, Content-Length, Transfer-Encoding and Trailer, which are written by what the fields here say.
	Header http.Header
	// Body is the content, nil if there is none; Length its length, -1 if that is not known. Unless it is Near, it is read by
	// another goroutine than the caller's, which may go on after the response has ended. An error other than [io.EOF] ends the connection, so
	// that what was sent does not look whole.
	Body   io.Reader
	Length int64
	// Near says that reading Body waits for nobody and that it is small: then the caller's goroutine reads and sends it.
	Near    bool
	Trailer http.Header // filled when Body ends; its keys are announced
	// Interim, if not nil, is told of each 1xx response but 100 and 101, before RoundTrip returns. It does not keep the header.
	Interim interface {
		Interim(status int, header http.Header)
	}
	// Answer, if not nil, is where the response is put, in place of memory of its own.
	Answer *Answer
}

// LostError says that the connection ended without a byte of a response: the server may have closed it before it saw the
// request. A request that is safe to repeat may be sent again on another connection (RFC 9110 section 9.2.2).
type LostError struct{ Err error }

// Error returns what ended the connection.
func (e *LostError) Error() string {
	return fmt.Sprintf("connection lost before a response: %v", e.Err)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// ErrAborted is the end of an exchange by its own side: its context ended, or its request's body broke off.
var ErrAborted = errors.New("exchange given up")

// ClientConn is the client's half of one HTTP/1.1 connection. It carries one exchange at a time; it is the caller's again when
// release was called.
type ClientConn struct {
	client *Client
	conn   net.Conn
	raw    io.Closer // what aborting closes: the transport beneath, which does not wait for a peer
	ahead  ahead     // raw, if it can tell
	asker  asker     // raw, if it can look and wait
	reader reader
	// release is called when an exchange is over, once for each; reusable says that the connection can take another one.
	release func(reusable bool)

	used    bool         // it has carried an exchange
	asked   *Request     // without a body, to be sent
	say     func() error // sends it; made once
	writeBy time.Time    // the write deadline that is set
	aborted atomic.Bool

	waiting  sync.Mutex // guards the two below: the wait for the head begins when the request was sent, by whoever sent it
	readBy   time.Time  // the read deadline that is set
	answered bool       // the final head has come

	live    lifetime    // the exchange's context, if it is one, else
	stop    func() bool // takes its hold off the exchange
	sending *sending    // of the request's body, nil if there is none
	closed  sync.Once   // ends an upgraded connection
}

// NewConn returns the client's half of conn, over which nothing was said yet, for good. raw is closed, from any goroutine, to
// end an exchange; it may be conn itself. If it has methods Whole() bool and Buffered() int, they tell whether a read of conn
// has all that it needs, and how much is there; then a body's pieces are read together as far as they are there. release is called when an exchange is over, by the goroutine that ended it; if
// the connection cannot be used again, it has been closed.
func (c *Client) NewConn(conn net.Conn, raw io.Closer, release func(reusable bool)) *ClientConn {
	cc := &ClientConn{client: c, conn: conn, raw: raw, reader: newReader(conn, &c.reads), release: release}
	cc.ahead, _ = raw.(ahead)
	cc.asker, _ = raw.(asker)
	cc.say = cc.sayAsked
	return cc
}

// ahead is a transport that can tell whether another piece, such as a TLS record, has come whole, so that a read does not
// block, and how many bytes have come.
type ahead interface {
	Whole() bool
	Buffered() int
}

// asker is a transport that can tell whether the peer has said nothing that was not read (Quiet), and that can look for that, call say
// and wait for an answer in one (Ask): asked reports whether it called say.
type asker interface {
	Quiet() bool
	Ask(say func() error) (asked bool, err error)
}

// ErrStale says that nothing was sent: the server has closed the connection since its last exchange, or has said something that was not
// asked for. The request may be sent on another connection.
var ErrStale = errors.New("connection is of no use any more")

// Used reports whether the connection has carried an exchange.
func (c *ClientConn) Used() bool { return c.used }

// Close ends the connection. It may be called from any goroutine, and during an exchange, which then fails.
func (c *ClientConn) Close() {
	c.aborted.Store(true)
	c.raw.Close() //nolint:errcheck // it is at its end either way
}

// RoundTrip sends a request and returns the response's head. The exchange goes on until the response's body was read to its end
// or closed, which the caller must do; then, or before an error is returned, release is called. ctx ends the exchange, even
// while the body is read. A 101 response has an [io.ReadWriteCloser] as its body, and the connection is that one's.
//
// Errors are [ErrStale], *[LostError], *[ProtocolError] for a response that breaks the protocol, ErrAborted, or the connection's.
func (c *ClientConn) RoundTrip(ctx context.Context, req *Request) (*http.Response, error) {
	c.endWith(ctx)
	c.answered = false
	err := c.begin(req)
	var resp *http.Response
	if err == nil {
		resp, err = c.receive(req)
	}
	if err != nil {
		if c.sending != nil {
			c.sending.answer(false)
		}
		aborted := c.aborted.Load()
		c.end(false)
		if aborted {
			return nil, errors.Join(ErrAborted, err)
		}
		return nil, err
	}
	return resp, nil
}

// endWith has the exchange end when ctx does.
func (c *ClientConn) endWith(ctx context.Context) {
	if c.live = liveOf(ctx); c.live != nil {
		c.live.Enter(c)
		return
	}
	if ctx.Done() != nil {
		c.stop = context.AfterFunc(ctx, c.Close)
	}
}

// letGo takes back what endWith did, and reports whether the context has not ended.
func (c *ClientConn) letGo() (before bool) {
	before = true
	switch {
	case c.live != nil:
		before = c.live.Leave(c)
	case c.stop != nil:
		before = c.stop()
	}
	c.live, c.stop = nil, nil
	return before
}

// begin sends the request, or has its body sent while the response is awaited. A connection that was used before is looked at first.
func (c *ClientConn) begin(req *Request) error {
	again := c.used && c.asker != nil // a new server may say something at once, such as TLS's tickets
	c.used = true
	if req.Body == nil {
		return c.ask(req, again)
	}
	if again && !c.asker.Quiet() {
		return ErrStale
	}
	lent := c.client.writes.get()
	head := appendRequestHead((*lent)[:0], req)
	c.sending = newSending(hasToken(req.Header["Expect"], "100-continue"))
	if req.Near && !c.sending.expects {
		c.send(req, lent, head, c.sending)
	} else {
		go c.send(req, lent, head, c.sending)
	}
	return nil
}

// ask sends a request without a body. Where again says so, it is the wait for the answer that looks and sends.
func (c *ClientConn) ask(req *Request, again bool) error {
	if err := c.awaitHead(); err != nil {
		return err
	}
	c.asked = req
	if !again {
		return c.sayAsked()
	}
	asked, err := c.asker.Ask(c.say)
	var lost *LostError
	switch {
	case !asked:
		return ErrStale
	case err == nil, isTimeout(err), errors.As(err, &lost):
		return err
	}
	return &LostError{err}
}

// sayAsked writes the head that is the request to ask. It holds its buffer no longer.
func (c *ClientConn) sayAsked() error {
	lent := c.client.writes.get()
	defer c.client.writes.put(lent)
	head := appendRequestHead((*lent)[:0], c.asked)
	c.asked = nil
	if err := c.write(head); err != nil {
		return &LostError{err}
	}
	return nil
}

// write writes p within its deadline.
func (c *ClientConn) write(p []byte) error {
	if by, due := Deadline(c.writeBy, c.client.lim.Head); due {
		if err := c.conn.SetWriteDeadline(by); err != nil {
			return err
		}
		c.writeBy = by
	}
	return writeAll(c.conn, p)
}

// awaitHead begins the time that the response's head may take.
func (c *ClientConn) awaitHead() error {
	c.waiting.Lock()
	defer c.waiting.Unlock()
	if c.answered {
		return nil
	}
	by, due := Deadline(c.readBy, c.client.lim.Head)
	if !due {
		return nil
	}
	c.readBy = by
	return c.conn.SetReadDeadline(by)
}

// headCame ends that time. The deadline stays until it is met, or is good for the next exchange.
func (c *ClientConn) headCame() {
	c.waiting.Lock()
	defer c.waiting.Unlock()
	c.answered = true
}

// patient takes the read deadline away, for a body that may take any time.
func (c *ClientConn) patient() error {
	c.waiting.Lock()
	defer c.waiting.Unlock()
	c.readBy = time.Time{}
	return c.conn.SetReadDeadline(c.readBy)
}

// Deadline returns when a wait that begins now has to end, and whether what is set is another time than that. One that is set
// and less than a sixteenth too early is left alone: setting it anew costs as much as a small record does.
func Deadline(set time.Time, wait time.Duration) (by time.Time, due bool) {
	by = time.Now().Add(wait)
	early := by.Sub(set)
	return by, early < 0 || early > wait/16
}

// end ends the exchange. A connection that is not reusable is closed.
func (c *ClientConn) end(reusable bool) {
	if !c.letGo() {
		reusable = false // its context has ended, and closes it
	}
	if s := c.sending; s != nil {
		reusable = s.settled(reusable) && reusable
		c.sending = nil
	}
	if c.aborted.Load() || c.reader.buffered() > 0 {
		reusable = false // what follows a response that nobody asked for is not the next one's
	}
	c.reader.discard()
	if !reusable {
		c.Close()
	}
	c.release(reusable)
}
