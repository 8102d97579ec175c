package http1

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

// connection is one guest connection while Serve runs.
type connection struct {
	server  *Server
	handler http.Handler
	ctx     context.Context    // that Serve was given
	cancel  context.CancelFunc // ends the context of the requests
	stops   [2]func() bool     // of what waits for the end of a context
	conn    net.Conn
	remote  string // RemoteAddr in words
	reader  reader
	watch   *watch
	model   *http.Request                    // with what all requests have in common
	goesOn  func(conn net.Conn, rest []byte) // goes on with the connection when the handler has returned; nil for the server
	rest    []byte                           // for goesOn
	writeBy time.Time                        // the write deadline that is set
	closing closing
}

// serve serves one request after the other. It returns nil when a response was the connection's last.
func (c *connection) serve() error {
	for more := true; more; {
		err := c.await()
		if err == nil {
			more, err = c.next()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// next serves the request of which something has come. more reports whether the connection can take another.
//
//go:noinline
func (c *connection) next() (more bool, err error) {
	t := c.server.turns.get()
	if err := c.reader.readHead(&c.server.limits, &t.head); err != nil {
		var protocol *ProtocolError
		if errors.As(err, &protocol) {
			c.refuse(c.ctx, protocol)
		}
		return false, err
	}
	return c.exchange(t)
}

// modelRequest makes what all requests of a connection have in common.
func modelRequest(ctx context.Context, remote string) *http.Request {
	return (&http.Request{ProtoMajor: 1, RemoteAddr: remote, Body: http.NoBody}).WithContext(ctx)
}

// exchange serves the request whose head is in t. more reports whether the connection can take another. A body may be read by
// another goroutine than the handler's, which may come to its end later; else nobody but the handler has seen any of t, and it is
// used again.
func (c *connection) exchange(t *turn) (more bool, err error) {
	w := c.newResponse(t)
	r, b := c.newRequest(t, w)
	w.body = b
	c.watch.begin(b == nil)

	aborted := c.handle(w, r)

	left := c.watch.end()
	if aborted {
		c.goesOn = nil
	}
	if c.goesOn != nil {
		return false, nil
	}
	body := restNone
	if b != nil {
		body = b.end()
	}
	if aborted {
		w.abort()
		return false, nil
	}
	if body == restStuck {
		w.keep = false // said in the head, if that was not sent yet
	}
	more = w.finish()
	if left || w.err != nil {
		return false, w.err
	}
	if more && body == restSome {
		more = c.drain(b)
	}
	if !more {
		c.linger()
	}
	if b == nil {
		c.server.turns.put(t)
	}
	return more, nil
}

// handle runs the handler and reports whether the response is to be cut off.
func (c *connection) handle(w *response, r *http.Request) (aborted bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		aborted = true
		if v != http.ErrAbortHandler && c.server.Log != nil { //nolint:errorlint // the sentinel is compared as net/http does
			c.server.Log.Error("serve request: handler panicked", "panic", v, "method", r.Method)
		}
	}()
	c.handler.ServeHTTP(w, r)
	return false
}

// newResponse makes the writer for the request whose head is in t, which is its memory.
func (c *connection) newResponse(t *turn) *response {
	w := &t.response
	w.owner, w.conn, w.lim, w.pool = c, c.conn, &c.server.limits, &c.server.writes
	w.method, w.minor, w.keep = t.head.method, t.head.minor, !t.head.close
	return w
}

// protocols are the versions by their minor number.
var protocols = [...]string{"HTTP/1.0", "HTTP/1.1"}

// newRequest makes the request that the handler sees, whose memory t is, and its body, nil if it has none.
func (c *connection) newRequest(t *turn, w *response) (*http.Request, *body) {
	h, r := &t.head, &t.request
	*r = *c.model
	r.Method, r.URL, r.RequestURI, r.Host = h.method, h.url, h.target, h.host
	r.Proto, r.ProtoMinor = protocols[h.minor], h.minor
	r.Header, r.Close = h.header, h.close
	var b *body
	if h.framing.chunked || h.framing.length > 0 {
		r.ContentLength = h.framing.length
		if h.framing.chunked {
			r.ContentLength, r.TransferEncoding, r.Trailer = -1, []string{"chunked"}, h.trailer
		}
		b = newBody(&c.reader, &c.server.limits, h.framing, h.trailer)
		b.onEnd = c.watch.bodyEnded
		if h.expect {
			b.expect, w.awaits = w.sendContinue, b.awaitsContinue
		}
		r.Body = b
	}
	return r, b
}

// drain brings the reader to the end of the body if that is near. The response has been sent.
func (c *connection) drain(b *body) (whole bool) {
	scratch := c.server.writes.get()
	defer c.server.writes.put(scratch)
	return b.drain(*scratch)
}

// refuse answers a request that was refused. The connection ends afterwards.
func (c *connection) refuse(ctx context.Context, err *ProtocolError) {
	contentType, content := "text/plain; charset=utf-8", []byte(err.Error()+"\n")
	if c.server.ErrorBody != nil {
		contentType, content = c.server.ErrorBody(ctx, err)
	}
	w := c.newResponse(&turn{head: head{minor: 1, close: true}})
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	w.WriteHeader(err.Status)
	w.Write(content) //nolint:errcheck // finish writes, and there is nobody to tell
	w.finish()
	c.linger()
}

// closeWriter is a connection that can end its sending side alone, as TCP and TLS connections can.
type closeWriter interface{ CloseWrite() error }

// linger ends the sending side and reads on for a moment, so that the guest reads the response before it learns of the
// end: bytes that come to a closed socket make the kernel send a reset, which discards what the guest had not read yet
// (RFC 9112 section 9.6).
func (c *connection) linger() {
	half, ok := c.conn.(closeWriter)
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.conn.SetReadDeadline(time.Now().Add(c.server.limits.Drain)) != nil {
		return
	}
	scratch := c.server.reads.get()
	defer c.server.reads.put(scratch)
	for { // however much comes: only the time is bounded, since a reset would discard the response
		if _, err := c.conn.Read(*scratch); err != nil {
			return
		}
	}
}

// discard gives the buffer back with whatever is in it.
func (b *reader) discard() {
	b.r = b.w
	b.release()
}
