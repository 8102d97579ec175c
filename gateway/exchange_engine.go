package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// Bounds of one HTTP/2 connection of a guest (RFC 9113 section 10.5). golang.org/x/net/http2 bounds by these, and by limits of
// its own, what one connection holds: a head with all its CONTINUATION frames, handlers of streams that were reset, control
// frames that wait to be written. What a bottle does over time and over all its connections is bounded by its [Budget].
const (
	h2Streams        = 100              // requests at once
	h2FrameBytes     = 16 << 10         // the smallest that may be offered
	h2StreamWindow   = 256 << 10        // request body bytes of one stream that wait for the upstream
	h2ConnWindow     = 1 << 20          // the same over all streams
	h2HeaderTable    = 4 << 10          // HPACK tables
	h2Idle           = 3 * time.Minute  // without a request, a connection ends after this long
	h2Ping           = 30 * time.Second // after this long without a frame, the guest is asked whether it is there
	h2PingWait       = 15 * time.Second // and has this long to answer
	h2Write          = 5 * time.Minute  // without progress of a write, of the connection's or of one stream's
	deliveryBuffer   = 64 << 10         // bytes of a response body under way
	websocketMessage = 16 << 10         // bytes of a WebSocket message under way
)

// engine serves HTTP on connections of guests. One serves all bottles: it holds buffers and limits, and no plan.
type engine struct {
	h1       *http1.Server
	h2       *http2.Server
	base     *http.Server // limits that http2.Server takes from there
	bodies   *bytePool
	messages *bytePool
	masks    maskPool
	wires    gwtls.WireBuffers
	body     http1.Limits  // what http1.Limits says of bodies, for those over HTTP/2
	idle     time.Duration // how long an HTTP/2 connection may have no request
	stall    time.Duration // how long a guest may leave a write of one stream waiting
	rest     time.Duration // how long a body that nobody reads is taken after the answer
}

// newEngine returns an engine that logs defects to log.
func newEngine(log *slog.Logger) *engine {
	e := &engine{idle: h2Idle, stall: h2Write, rest: h2Rest, bodies: newBytePool(deliveryBuffer), messages: newBytePool(websocketMessage + frameHead)}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sessionOf(r.Context()).ServeHTTP(w, r) })
	e.h1 = &http1.Server{Handler: serve, Log: log, ErrorBody: func(ctx context.Context, err *http1.ProtocolError) (string, []byte) {
		return sessionOf(ctx).refused(err)
	}}
	e.h2 = &http2.Server{
		MaxConcurrentStreams:         h2Streams,
		MaxReadFrameSize:             h2FrameBytes,
		MaxUploadBufferPerStream:     h2StreamWindow,
		MaxUploadBufferPerConnection: h2ConnWindow,
		MaxDecoderHeaderTableSize:    h2HeaderTable,
		MaxEncoderHeaderTableSize:    h2HeaderTable,
		ReadIdleTimeout:              h2Ping,
		PingTimeout:                  h2PingWait,
	}
	e.base = &http.Server{
		MaxHeaderBytes: http1.DefaultHeadBytes,
		Handler:        serve,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // what a guest does wrong is no defect
	}
	if err := http2.ConfigureServer(e.base, e.h2); err != nil { // makes a shutdown of base one of h2's connections
		log.Error("HTTP/2 connections will not be told of a stop", "error", err) // it fails only for cipher suites, of which base has none
	}
	return e
}

// drain lets every HTTP/2 connection end after the requests that are under way on it: GOAWAY (RFC 9113 section 6.8). It does
// not block. Connections over HTTP/1.1 are told by their session's closing.
func (e *engine) drain() {
	_ = e.base.Shutdown(context.Background()) // base has no listener and no connection of its own to wait for
}

// sessionKey is the context key of the session that a request belongs to.
type sessionKey struct{}

// sessionOf returns the session in ctx. It is there in every context that serve makes.
func sessionOf(ctx context.Context) *session { return ctx.Value(sessionKey{}).(*session) }

// serve serves s on conn until the connection ends or ctx does. It closes conn.
func (e *engine) serve(ctx context.Context, conn net.Conn, s *session) {
	ctx = context.WithValue(ctx, sessionKey{}, s)
	if secure, ok := conn.(*tls.Conn); ok && s.h2 {
		s.frames = newH2Conn(secure, s.meter, s.over, e.idle, e.bodies)
		defer s.frames.done()
		e.serveH2(ctx, s.closing, s.frames)
		return
	}
	_ = e.h1.Serve(ctx, s.closing, conn) // the flow's record tells how it ended, and refusals have records of their own
}

// serveH2 is serve for a connection that agreed on HTTP/2. One that comes after drain is closed.
func (e *engine) serveH2(ctx, closing context.Context, conn *h2Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if closing.Err() == nil {
		e.h2.ServeConn(conn, &http2.ServeConnOpts{Context: ctx, BaseConfig: e.base, Handler: e.base.Handler})
	}
	conn.Close()
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
