package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/http2"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// Buffers of bodies. What one connection of a guest may hold and ask for is bounded by the packages http1 and http2, and what a bottle
// does over time and over all its connections by its [Budget].
const (
	deliveryBuffer   = 64 << 10 // bytes of a response body under way, once the guest has taken so much as a piece
	websocketMessage = 16 << 10 // bytes of a WebSocket message under way, or of a body's first piece
)

// engine serves HTTP on connections of guests. One serves all bottles: it holds buffers and limits, and no plan.
type engine struct {
	h1     *http1.Server
	h2     *http2.Server
	bodies *bytePool
	pieces *bytePool
	masks  maskPool
	spare  exchangePool
	wires  gwtls.WireBuffers
	body   http1.Limits  // what http1.Limits says of bodies, for those over HTTP/2
	rest   time.Duration // how long a body that nobody reads is taken after the answer
}

// newEngine returns an engine that logs defects to log.
func newEngine(log *slog.Logger) *engine {
	e := &engine{rest: h2Rest, bodies: newBytePool(deliveryBuffer), pieces: newBytePool(websocketMessage + frameHead)}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sessionOf(r.Context()).ServeHTTP(w, r) })
	e.h1 = &http1.Server{Log: log, ErrorBody: func(ctx context.Context, err *http1.ProtocolError) (string, []byte) {
		return sessionOf(ctx).refused(err)
	}}
	e.h2 = &http2.Server{Handler: serve, Log: log}
	return e
}

// sessionKey is the context key of the session that a request belongs to.
type sessionKey struct{}

// sessionOf returns the session in ctx. It is there in every context that serve makes.
func sessionOf(ctx context.Context) *session { return ctx.Value(sessionKey{}).(*session) }

// serve serves s on conn until the connection ends or ctx does. It closes conn.
func (e *engine) serve(ctx context.Context, conn net.Conn, s *session) {
	if s.h2 {
		e.serveH2(ctx, conn, s)
		return
	}
	_ = e.begin(ctx, conn, s).Serve() // the flow's record tells how it ended, and refusals have records of their own
}

// begin is the first part of serve over HTTP/1.1. What is but arguments is no longer on the stack when the connection is idle.
//
//go:noinline
func (e *engine) begin(ctx context.Context, conn net.Conn, s *session) http1.Serving {
	return e.h1.Begin(context.WithValue(ctx, sessionKey{}, s), s.closing, conn, s)
}

// serveH2 is serve over HTTP/2.
func (e *engine) serveH2(ctx context.Context, conn net.Conn, s *session) {
	e.h2.Serve(context.WithValue(ctx, sessionKey{}, s), s.closing, conn, (*h2Account)(s))
}

// serveIntercept answers the requests on a connection whose flow is intercepted. It blocks until the connection ends, and
// closes it. The handshake is complete.
func (f *flow) serveIntercept(ctx context.Context, conn *tls.Conn) {
	f.b.engine.serve(ctx, conn, f.session(nil))
}

// serveDenied answers every request on a connection whose flow is denied with the reason, v. It blocks and closes as
// serveIntercept does.
func (f *flow) serveDenied(ctx context.Context, conn *tls.Conn, v *routes.Verdict) {
	f.b.engine.serve(ctx, conn, f.session(v))
}

// servePlain answers the requests on a connection without TLS, where each names its host itself. It blocks and closes as
// serveIntercept does.
func (f *flow) servePlain(ctx context.Context, conn net.Conn) {
	f.b.engine.serve(ctx, conn, f.session(nil))
}
