package http2

import (
	"context"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// call is one request and its response. The connection's lock guards it.
type call struct {
	c    *ClientConn
	id   uint32
	head bool // the request's method is HEAD

	live lifetime    // the request's context, if it is one, else
	stop func() bool // takes its hold off the call

	// Of what the server sends.
	interims     []interim
	said         int            // how many there were
	saidBytes    int            // and their size
	resp         *http.Response // nil until its head has come
	headBy       time.Time      // by when it has to, zero while the request is being sent
	remoteClosed bool
	declared     int64 // content-length, -1 if there is none
	got          int64 // of the body
	receive      int   // window
	consumed     int   // what was taken of it and not yet given back
	body         body
	closed       bool // nobody reads any more
	trailer      http.Header
	arrived      sync.Cond // something changed for who waits for a response
	stirred      bool      // which it is told soon

	// Of what it is sent.
	send        int64     // window
	wake        sync.Cond // something changed for who writes
	stalls      bool      // a piece of the body waits for a window, and must not for ever
	proceeds    bool      // the server wants the body, or has been waited for
	localClosed bool
	deaf        bool   // the server takes no more of the body
	batch       uint32 // of the buffer that its last frame went into
	flagAt      int    // where the flags of that frame are

	unseen bool  // err says that the server has not looked at it
	err    error // why nothing more can be read or written
}

// interim is a 1xx response.
type interim struct {
	status int
	header http.Header
}

// RoundTrip sends a request for which Reserve has kept room, and returns the response's head. The exchange goes on until the response's
// body was read to its end or closed, which the caller must do. ctx ends it, even while the body is read.
//
// Errors are *[UnseenError], [ErrCanceled], [ErrHeadTimeout], [ErrWindowShut], that of the request's body, or the connection's.
func (c *ClientConn) RoundTrip(ctx context.Context, req *Request) (*http.Response, error) {
	st, err := c.begin(req)
	if err != nil {
		return nil, &UnseenError{err}
	}
	st.endWith(ctx)
	switch expects := hasContinue(req.Header["Expect"]); {
	case req.Body == nil:
	case req.Near && !expects:
		st.sendBody(req, false)
	default:
		go st.sendBody(req, expects)
	}
	return st.await(req)
}

// begin opens a stream with the request's head.
func (c *ClientConn) begin(req *Request) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.out.await()
	c.reserved--
	if err != nil {
		return nil, err
	}
	if c.leaving || c.next > maxWindow { // ids have as many bits
		c.leave()
		return nil, errLeaving
	}
	st := &call{
		c: c, id: c.next, head: req.Method == http.MethodHead, declared: -1,
		send: c.sendStream, receive: c.lim.StreamWindow, localClosed: req.Body == nil,
	}
	st.arrived.L, st.wake.L = &c.mu, &c.mu
	c.next += 2
	c.calls[st.id] = st
	if c.consumed >= sparedWindow {
		c.giveAllBack()
	}
	c.encoder.request(req)
	if req.Body == nil {
		c.out.head(st.id, flagEndStream)
		st.whole()
	} else {
		st.batch, st.flagAt = c.out.batch, len(c.out.buf)+4
		c.out.head(st.id, 0)
	}
	switch {
	case req.Body != nil && req.Near:
	case len(c.calls) > 1:
		c.out.flushTogether()
	default:
		c.out.flush()
	}
	return st, nil
}

// whole notes that the request was sent, from when on its response has its time. mu is held.
func (st *call) whole() {
	st.localClosed = true
	st.headBy = time.Now().Add(st.c.lim.Head)
	st.c.wakeBy(st.headBy)
	st.removeIfDone()
}

// endWith has the call end when ctx does.
func (st *call) endWith(ctx context.Context) {
	if l, ok := ctx.(lifetime); ok {
		st.live = l
		l.Enter(st)
		return
	}
	if ctx.Done() != nil {
		st.stop = context.AfterFunc(ctx, st.Close)
	}
}

// Close gives the call up.
func (st *call) Close() {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.giveUp()
}

// giveUp is Close with mu held.
func (st *call) giveUp() {
	if st.err == nil && !(st.remoteClosed && st.localClosed) {
		st.reset(codeCancel, ErrCanceled)
		st.c.out.flush()
	}
}

// letGo takes the context's hold off the call.
func (st *call) letGo() {
	switch {
	case st.live != nil:
		st.live.Leave(st)
	case st.stop != nil:
		st.stop()
	}
}

// await waits for the response's head.
func (st *call) await(req *Request) (*http.Response, error) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(st.interims) > 0:
			first := st.interims[0]
			st.interims = st.interims[1:]
			if req.Interim != nil {
				c.mu.Unlock()
				req.Interim.Interim(first.status, first.header)
				c.mu.Lock()
			}
		case st.resp != nil:
			return st.resp, nil
		case st.err != nil:
			st.letGo()
			if st.unseen && req.Body == nil {
				return nil, &UnseenError{st.err}
			}
			return nil, st.err
		default:
			st.arrived.Wait()
		}
	}
}

// reset resets the stream. mu is held.
func (st *call) reset(why code, err error) {
	if st.c.calls[st.id] == st {
		st.c.out.control(appendNumber(nil, kindReset, st.id, uint32(why)))
	}
	st.break_(err)
}

// break_ ends the call: nothing more can be read or written. mu is held.
func (st *call) break_(err error) {
	if st.err == nil {
		st.err = err
	}
	st.remove()
	st.arrived.Broadcast()
	st.wake.Broadcast()
}

// remove takes the call from the open ones. mu is held.
func (st *call) remove() {
	c := st.c
	if c.calls[st.id] != st {
		return
	}
	delete(c.calls, st.id)
	if len(c.calls) == 0 {
		c.idle = time.Now()
		c.wakeBy(c.idle.Add(c.lim.Idle))
		c.leaveIfDone()
	}
}

// removeIfDone does so if both sides have said all. mu is held.
func (st *call) removeIfDone() {
	if st.localClosed && st.remoteClosed {
		st.remove()
	}
}

// responseBody is a call as its response's body.
type responseBody call

// Read is [io.Reader].Read.
func (b *responseBody) Read(p []byte) (int, error) {
	st := (*call)(b)
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case st.closed:
			return 0, ErrBodyClosed
		case st.body.size > 0 && len(p) > 0:
			n := st.body.pop(p, &c.client.bodies)
			c.giveBack(n)
			st.giveBack(n)
			if c.out.urgent {
				c.out.flush()
			}
			if st.body.size == 0 && st.remoteClosed {
				return n, st.ended()
			}
			return n, nil
		case st.remoteClosed:
			return 0, st.ended()
		case st.err != nil:
			return 0, st.err
		case len(p) == 0:
			return 0, nil
		default:
			st.arrived.Wait()
		}
	}
}

// ended is what reading a whole body ends with. mu is held.
func (st *call) ended() error {
	if st.trailer != nil {
		if st.resp.Trailer == nil {
			st.resp.Trailer = http.Header{}
		}
		maps.Copy(st.resp.Trailer, st.trailer)
		st.trailer = nil
	}
	st.finish()
	return io.EOF
}

// finish ends the call with its response: nobody is there any more for whom the request would go on. mu is held.
func (st *call) finish() {
	st.letGo()
	if !st.deaf {
		st.giveUp()
	}
}

// Close ends the reading, and the exchange if it is not over. What is left of the body is dropped.
func (b *responseBody) Close() error {
	st := (*call)(b)
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.closed {
		return nil
	}
	st.closed = true
	c.giveBack(st.body.drop(&c.client.bodies))
	st.finish()
	return nil
}

// Buffered returns how much of the body has come and was not read.
func (b *responseBody) Buffered() int {
	st := (*call)(b)
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.body.size
}

// giveBack returns n bytes of the connection's window to the server, some time. mu is held.
func (c *ClientConn) giveBack(n int) {
	if c.consumed += n; c.consumed >= c.lim.ConnWindow/4 {
		c.giveAllBack()
	}
}

// sparedWindow is how much of the connection's window is given back along with a request, so that none begins with much less than all.
const sparedWindow = 4 << 10

// giveAllBack returns to the server what was taken. mu is held.
func (c *ClientConn) giveAllBack() {
	c.out.control(appendNumber(nil, kindWindow, 0, uint32(c.consumed)))
	c.receive += c.consumed
	c.consumed = 0
}

// giveBack returns n bytes of the stream's window to the server, some time, if it may send more. mu is held.
func (st *call) giveBack(n int) {
	if st.remoteClosed || st.err != nil {
		return
	}
	if st.consumed += n; st.consumed >= st.c.lim.StreamWindow/4 {
		st.c.out.control(appendNumber(nil, kindWindow, st.id, uint32(st.consumed)))
		st.receive += st.consumed
		st.consumed = 0
	}
}
