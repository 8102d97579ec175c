// Package http2 serves HTTP/2 on one connection for a guest that is not trusted (RFC 9113), and has a client's half for servers that
// are not either ([Client]).
//
// The server differs from a general one in three ways. It is strict: what golang.org/x/net/http2 refuses, it refuses, and a request
// whose length is not what it said as well. It is lean: one goroutine reads a connection and parses all that has come at once, each
// request has a goroutine of its own that reads its body and writes its response, none waits for another but for a lock, and an
// idle connection holds no buffer. And it counts: frames that only cost are charged to an account that the caller keeps.
//
// Heads are decoded by golang.org/x/net/http2/hpack (RFC 7541), and encoded without a dynamic table. Requests are given to an
// [http.Handler] as net/http would give them, so that the same handler serves HTTP/1.1.
package http2

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server serves connections. Its fields are set before the first call of Serve and not changed afterwards; it may serve any
// number of connections at once, which share its buffers.
type Server struct {
	// Handler answers every request that is well-formed. The ResponseWriter that it is given also implements [http.Flusher],
	// FlushError and SetReadDeadline; interim responses are sent by WriteHeader(1xx). A handler that panics with
	// [http.ErrAbortHandler] has its stream reset; any other panic does the same and is logged. Reading the body and writing the
	// response may be done by two goroutines at once. The handler must use neither after it returned, but another goroutine may
	// still be in a Read of the body: that Read then ends with [ErrBodyClosed]. Of a request over TLS that says so in its scheme, the
	// field TLS is not nil and says no more.
	Handler http.Handler
	// Limits bounds what a connection may cost. The zero value means the defaults.
	Limits Limits
	// Log takes panics of the handler. Nil means none is logged.
	Log *slog.Logger

	once   sync.Once
	limits Limits
	reads  buffers
	writes buffers
	bodies buffers
	fields sync.Pool
	dates  dates
}

// Account is what a guest pays with for what only costs, whether it can or not. Its methods are called with locks held, and must not
// block.
type Account interface {
	// Frame charges a frame that carries nothing and that no bytes of bodies pay for. It returns how long its connection is to wait
	// before it reads on.
	Frame() time.Duration
	// Reset charges a stream that either side resets, or a head that is no request. It returns how long the connection is to wait
	// before it reads on.
	Reset() time.Duration
	// Left charges a stream that its connection leaves unfinished.
	Left()
	// Refused notes a head that is answered without the handler, since it is too large or breaks HTTP.
	Refused()
	// Flooded notes that the connection ends because the guest could not pay for too long, or took none of what it asked for.
	Flooded()
}

// start sets up what the fields imply.
func (s *Server) start() {
	s.limits = s.Limits.withDefaults()
	s.reads.small, s.reads.large = smallBuffer, readBuffer
	s.writes.small, s.writes.large = smallBuffer, writeBuffer
	s.bodies.small, s.bodies.large = smallBuffer, bodyBuffer
}

// Serve serves conn until the guest leaves, breaks the protocol or cannot pay, or ctx ends, and closes it. When closing ends, the
// connection takes no further request, says so (GOAWAY), and is closed after those that are served. Serve returns when the last
// handler has; the contexts of requests are derived from ctx, and end with their streams.
func (s *Server) Serve(ctx, closing context.Context, conn net.Conn, account Account) {
	c := s.begin(ctx, closing, conn, account)
	defer c.forget()
	c.serve()
}

// begin returns a connection that ends with ctx and closing. It is a function of its own so that its frame is not on the stack of
// every connection, as are those below.
//
//go:noinline
func (s *Server) begin(ctx, closing context.Context, nc net.Conn, account Account) *conn {
	s.once.Do(s.start)
	c := newConn(s, nc, account)
	c.ctx = ctx
	c.stops[0] = context.AfterFunc(ctx, c.cutOff)
	c.stops[1] = context.AfterFunc(closing, c.drain)
	return c
}

// finish ends the connection and its requests. why is what ended the reading.
//
//go:noinline
func (c *conn) finish(why error) {
	c.endRequests()
	c.end(why)
	c.handlers.Wait()
	c.net.Close() //nolint:errcheck // it is at its end either way
}

// cutOff ends the connection at once, when its context does.
func (c *conn) cutOff() {
	c.endRequests()
	c.net.Close() //nolint:errcheck // it is at its end either way
}

// forget has the contexts that Serve was given forget the connection.
func (c *conn) forget() {
	for _, stop := range c.stops {
		stop()
	}
}
