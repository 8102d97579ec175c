// Package http1 serves HTTP/1.1 and HTTP/1.0 on one connection for a guest that is not trusted (RFC 9110, RFC 9112).
//
// It differs from a general server in three ways. It is strict: where the RFCs allow two readings of a request, or leave
// robustness to the recipient, the request is refused with a [ProtocolError] and the connection ends, so that nobody behind
// the gateway can read another request than the gateway judged. It is lean: one goroutine serves a connection, and an idle
// connection holds no buffers. And it is full duplex: a handler may read the request's body and write the response at once,
// and neither is ever held whole.
//
// Requests are given to an [http.Handler] as net/http would give them, so that the same handler serves HTTP/2.
package http1

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// Server serves connections. Its fields are set before the first call of Serve and not changed afterwards; it may serve any
// number of connections at once, which share its buffers.
type Server struct {
	// Handler answers every request that is well-formed. The ResponseWriter that it is given also implements
	// [http.Flusher], FlushError and Handover(next func(conn net.Conn, rest []byte)) error; interim responses are sent by WriteHeader(1xx). A handler that panics
	// with [http.ErrAbortHandler] ends the connection, so that the guest sees an incomplete response; any other panic does
	// the same and is logged. It must not use writer, request or body after it returned, their memory being another request's then,
	// but another goroutine may still be in a Read of the body: that Read then ends with [ErrBodyClosed].
	Handler http.Handler
	// Limits bounds what a connection may cost. The zero value means the defaults.
	Limits Limits
	// Log takes panics of the handler. Nil means none is logged.
	Log *slog.Logger
	// ErrorBody, which may be nil, makes the content of the response to a request that was refused, and may take a note of
	// the refusal: it is called once for each, with the context that Serve was given.
	ErrorBody func(ctx context.Context, err *ProtocolError) (contentType string, body []byte)

	once   sync.Once
	limits Limits
	reads  buffers
	writes buffers
	turns  turns
}

// start sets up what the fields imply.
func (s *Server) start() {
	s.limits = s.Limits.withDefaults()
	s.reads.size = recordBuffer
	s.writes.size = writeBuffer
}

// Serve serves conn until the guest leaves, a request asks for an end, ctx ends, or a request is refused, and closes it;
// but if a handler hands the connection over, it is that function's, and Serve returns when the function does. When closing ends,
// the connection takes no further request: it is closed at once if it waits for one, else after the one that is served.
//
// Serve returns nil if the connection ended between requests or was handed over, a *[ProtocolError] if a request was refused,
// and else what ended the connection. The context of the requests is derived from ctx and ends with the connection: when
// Serve returns, or before if the guest leaves.
func (s *Server) Serve(ctx, closing context.Context, conn net.Conn) error {
	return s.Begin(ctx, closing, conn, s.Handler).Serve()
}

// Serving is a connection that is about to be served.
type Serving interface {
	// Serve does what [Server.Serve] does. It is called once.
	Serve() error
}

// Begin is the first part of Serve, with h in place of the server's Handler. What it returns has to be served. It is apart so that its
// arguments are not on the stack of every idle connection, which the runtime halves only while less than a quarter of it is in use; nor
// are the frames of forget and ended, and of what serve and await call.
//
//go:noinline
func (s *Server) Begin(ctx, closing context.Context, conn net.Conn, h http.Handler) Serving {
	s.once.Do(s.start)
	c := &connection{server: s, handler: h, ctx: ctx, conn: conn}
	c.closing.told = closing
	c.remote = c.conn.RemoteAddr().String()
	live, cancel := newLiveContext(c.ctx)
	c.cancel = cancel
	c.model = modelRequest(live, c.remote)
	c.reader = newReader(c.conn, &s.reads)
	c.watch = newWatch(&c.reader, s.limits.Watch)
	c.watch.cancel = cancel
	c.stops[0] = context.AfterFunc(c.ctx, c.cutOff)
	c.stops[1] = context.AfterFunc(c.closing.told, c.close)
	return c
}

// Serve is [Serving].Serve.
func (c *connection) Serve() error {
	defer c.forget()
	return c.ended(c.goOn(c.serve()))
}

// goOn has the function go on with the connection that was given it, if one was. It returns err, which ended serving.
//
//go:noinline
func (c *connection) goOn(err error) error {
	if c.goesOn != nil {
		c.goesOn(c.conn, c.takeRest())
	}
	return err
}

// cutOff ends the connection and what goes on under it, when its context does.
func (c *connection) cutOff() {
	c.cancel()
	c.conn.Close() //nolint:errcheck // it is at its end either way
}

// forget has the contexts that Begin was given forget the connection, and ends its own.
//
//go:noinline
func (c *connection) forget() {
	c.cancel()
	for _, stop := range c.stops {
		stop()
	}
}

// ended closes the connection that err ended, unless it was handed over, and says what Serve returns for it.
//
//go:noinline
func (c *connection) ended(err error) error {
	c.watch.stop()
	c.reader.discard()
	if c.goesOn == nil {
		c.conn.Close() //nolint:errcheck // it is at its end either way
	}
	return served(err, c.ctx.Err() != nil)
}

// served is what Serve returns for what ended the connection; over says that it was to end.
func served(err error, over bool) error {
	var protocol *ProtocolError
	switch {
	case errors.As(err, &protocol):
		return protocol
	case err == nil, over, errors.Is(err, errGuestLeft):
		return nil
	default:
		return fmt.Errorf("serve connection: %w", err)
	}
}
