package http2

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// stream is one request and its response. The connection's lock guards it, but for the request and the response, which are the
// handler's.
type stream struct {
	c       *conn
	id      uint32
	request http.Request
	life    life // the request's context
	place   int  // in conn.active
	resp    response

	// Of what the guest sends.
	remoteClosed bool
	declared     int64 // content-length, -1 if there is none
	got          int64 // of the body
	receive      int   // window
	consumed     int   // what was taken of it and not yet given back
	body         body
	bodyErr      error // what reading ends with behind what is there
	bodyClosed   bool  // nobody reads any more
	trailer      http.Header
	arrived      sync.Cond // something changed for who reads
	expects      bool      // the guest waits for 100 Continue
	readPast     bool      // the read deadline has passed
	readTimer    *time.Timer
	readBy       time.Time

	// Of what it is sent.
	send        int64     // window
	wake        sync.Cond // something changed for who writes
	stalls      bool      // a write waits for a window, and must not for ever
	headSent    bool      // of the final response
	localClosed bool
	batch       uint32 // of the buffer that its last frame went into
	flagAt      int    // where the flags of that frame are
	err         error  // why nothing more can be read or written
}

// open begins a stream with a copy of r, and the handler of that request. mu is held.
func (c *conn) open(id uint32, r *http.Request, open bool) {
	st := &stream{c: c, id: id, declared: -1, send: c.sendStream, receive: c.lim.StreamWindow, remoteClosed: !open}
	st.arrived.L, st.wake.L = &c.mu, &c.mu
	st.life.Context = c.ctx
	st.request = *r.WithContext(&st.life)
	r = &st.request
	r.RemoteAddr = c.remote
	if hasContinue(r.Header["Expect"]) {
		delete(r.Header, "Expect")
		st.expects = open
	}
	if open {
		st.declared = r.ContentLength
		r.Body = (*requestBody)(st)
	}
	st.resp.st, st.resp.length = st, -1
	c.streams[id] = st
	c.enter(st)
	c.handlers.Add(1)
	if !open && c.leads() {
		c.lead.next = st
		return
	}
	go st.run()
}

// run serves the request.
func (st *stream) run() {
	defer st.c.handlers.Done()
	st.finish(st.handle())
}

// handle runs the handler and reports whether the stream is to be reset.
func (st *stream) handle() (aborted bool) {
	s := st.c.server
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		aborted = true
		if v != http.ErrAbortHandler && s.Log != nil { //nolint:errorlint // the sentinel is compared as net/http does
			s.Log.Error("serve request: handler panicked", "panic", v, "method", st.request.Method)
		}
	}()
	s.Handler.ServeHTTP(&st.resp, &st.request)
	return false
}

// finish ends the stream after its handler.
func (st *stream) finish(aborted bool) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	st.closeBody()
	if st.readTimer != nil {
		st.readTimer.Stop()
	}
	switch {
	case st.err != nil:
	case aborted || !st.resp.finish():
		st.reset(codeInternal)
	case !st.remoteClosed:
		st.reset(codeNo) // the guest need not send the rest (RFC 9113 section 8.1)
	}
	st.remove()
	c.exit(st)
	if len(c.active) == 0 {
		c.idle = time.Now()
		c.wakeBy(c.idle.Add(c.lim.Idle))
	}
	if len(c.active) > 0 {
		c.out.flushSoon()
	} else {
		c.out.flush()
	}
	c.leaveIfDone()
}

// remove takes the stream from the open ones. mu is held.
func (st *stream) remove() {
	if st.c.streams[st.id] == st {
		delete(st.c.streams, st.id)
	}
}

// remoteEnd notes that the guest sends nothing more. mu is held.
func (st *stream) remoteEnd() error {
	st.remoteClosed = true
	st.arrived.Broadcast()
	if st.declared >= 0 && st.got != st.declared {
		st.bodyErr = errLength
		return streamError{st.id, codeProtocol, "less DATA than content-length"}
	}
	if st.localClosed {
		st.remove()
	}
	return nil
}

// break_ ends the stream: nothing more can be read or written. mu is held.
func (st *stream) break_(err error) {
	if st.err == nil {
		st.err = err
	}
	st.remove()
	st.life.end()
	st.arrived.Broadcast()
	st.wake.Broadcast()
}

// reset resets the stream. mu is held.
func (st *stream) reset(why code) { st.c.resetByID(streamError{st.id, why, ""}) }

// resetByID resets a stream, which may be none that is open. mu is held.
func (c *conn) resetByID(e streamError) {
	c.out.control(appendNumber(nil, kindReset, e.stream, uint32(e.code)))
	c.late[c.lateNext%lateStreams] = e.stream
	c.lateNext++
	if st := c.streams[e.stream]; st != nil {
		st.break_(ErrStreamReset)
	}
	c.owe(c.account.Reset())
}

// isLate reports whether the gateway has reset the stream itself, so that the guest may not know yet. mu is held.
func (c *conn) isLate(id uint32) bool {
	for _, late := range c.late {
		if late == id {
			return true
		}
	}
	return false
}

// refuse answers a head that is none of a request, without the handler. mu is held.
func (c *conn) refuse(id uint32, open bool, status int, why string) error {
	c.account.Refused()
	h := http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Content-Length": {strconv.Itoa(len(why) + 1)}}
	c.encoder.head(status, h, nil, c.server.date())
	p := appendFrame(c.encoder.frames(nil, id, 0), len(why)+1, kindData, flagEndStream, id)
	if c.out.control(append(append(p, why...), '\n')); open {
		c.resetByID(streamError{id, codeNo, why})
	} else {
		c.owe(c.account.Reset())
	}
	return c.err
}
