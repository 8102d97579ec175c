package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	gwtls "gatewayd/gateway/tls"
)

// errSpeaksH1 says that a server that was offered HTTP/2 chose HTTP/1.1. Nothing was sent.
var errSpeaksH1 = errors.New("the server speaks HTTP/1.1")

// h2Pool carries requests of guests that speak HTTP/2 to a server that does too. Which version a server speaks is known once
// a connection to it was made; one that chose HTTP/1.1 is the HTTP/1.1 pool's.
//
// It is the [http2.ClientConnPool] of its transport, which sends a request anew that a server says it has not looked at: after a
// GOAWAY that does not cover it, or REFUSED_STREAM (RFC 9113 section 8.7), if none of its body was sent.
type h2Pool struct {
	pool      *upstreamPool
	tls       *tls.Config // of all connections
	transport *http2.Transport
	speaksH1  atomic.Bool

	mu      sync.Mutex          // never held while u.mu is taken
	conns   []*http2.ClientConn // that may take a request, if they have room for one
	dialing *h2Dial             // nil if there is none
}

// h2Dial is a connection that is being made, for all requests that wait for one.
type h2Dial struct {
	done chan struct{}
	err  error
}

// newH2Pool returns the HTTP/2 side of p. Its transport has no proxy, no compression of its own and no cookie or redirect
// logic, and it makes no connections.
func newH2Pool(p *upstreamPool) *h2Pool {
	h := &h2Pool{pool: p, tls: p.u.tlsConfig(p.key, alpnH2, alpnH1)}
	waits := p.u.waits
	base := &http.Transport{ // limits that http2.Transport takes from there
		DisableCompression:     true,
		IdleConnTimeout:        waits.UpstreamIdle,
		ResponseHeaderTimeout:  waits.UpstreamHeader,
		ExpectContinueTimeout:  waits.Continue,
		MaxResponseHeaderBytes: maxResponseHeadBytes,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: waits.UpstreamPing, PingTimeout: waits.UpstreamPingWait,
			MaxReceiveBufferPerStream: upstreamStreamWindow, MaxReceiveBufferPerConnection: upstreamConnWindow,
		},
	}
	var err error
	if h.transport, err = http2.ConfigureTransports(base); err != nil { // it fails only for a transport that speaks HTTP/2 already
		h.transport = &http2.Transport{}
		h.speaksH1.Store(true)
	}
	h.transport.ConnPool = h
	return h
}

// GetClientConn is [http2.ClientConnPool].GetClientConn. Requests that find no room share one dial.
func (h *h2Pool) GetClientConn(req *http.Request, _ string) (*http2.ClientConn, error) {
	for {
		c, d := h.reserve()
		if c != nil {
			return c, nil
		}
		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-req.Context().Done():
			return nil, &UpstreamError{ReasonUpstreamDial, h.pool.key.host, req.Context().Err()}
		}
	}
}

// reserve returns a connection with room kept for a request, or the dial to wait for, begun if there was none.
func (h *h2Pool) reserve() (*http2.ClientConn, *h2Dial) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		if c.ReserveNewRequest() {
			return c, nil
		}
	}
	if h.dialing == nil {
		d := &h2Dial{done: make(chan struct{})}
		h.dialing = d
		go h.connect(d)
	}
	return nil, h.dialing
}

// connect makes the connection of d, and tells those who wait.
func (h *h2Pool) connect(d *h2Dial) {
	c, err := h.dial(h.pool.u.ctx)
	h.mu.Lock()
	if h.dialing, d.err = nil, err; err == nil {
		h.conns = append(h.conns, c)
	}
	h.mu.Unlock()
	close(d.done)
	if err == nil && h.pool.u.ctx.Err() != nil {
		h.close() // else who waits for it has it, and it ends by being idle
	}
}

// MarkDead is [http2.ClientConnPool].MarkDead.
func (h *h2Pool) MarkDead(c *http2.ClientConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(o *http2.ClientConn) bool { return o == c })
}

// dial waits for room, connects and offers both versions.
func (h *h2Pool) dial(ctx context.Context) (*http2.ClientConn, error) {
	if h.speaksH1.Load() {
		return nil, errSpeaksH1
	}
	p := h.pool
	if err := p.takeH2(ctx); err != nil {
		return nil, err
	}
	raw, err := p.u.connect(ctx, p.key)
	if err != nil {
		p.u.uncountH2(p)
		return nil, err
	}
	wire, err := gwtls.NewWire(raw, &p.u.buffers, true, nil, nil, nil)
	if err != nil {
		reset(raw)
		p.u.uncountH2(p)
		return nil, &UpstreamError{ReasonUpstreamDial, p.key.host, err}
	}
	counted := &h2Wire{Wire: wire, pool: p}
	conn, err := p.u.handshake(ctx, h.tls, raw, counted)
	if err != nil {
		counted.Close()
		return nil, err
	}
	if conn.ConnectionState().NegotiatedProtocol != alpnH2 {
		h.speaksH1.Store(true)
		counted.turn()
		p.newConn(conn, wire).release(true)
		return nil, errSpeaksH1
	}
	c, err := h.transport.NewClientConn(conn)
	if err != nil {
		counted.Close()
		return nil, &UpstreamError{ReasonUpstreamExchange, p.key.host, err}
	}
	return c, nil
}

// roundTrip sends req over HTTP/2, or returns errSpeaksH1 having sent nothing.
func (h *h2Pool) roundTrip(req *http.Request, on observer) (*http.Response, error) {
	if h.speaksH1.Load() {
		return nil, errSpeaksH1
	}
	ctx, trace, body := req.Context(), traceFor(on), req.Body
	if body != nil && body != http.NoBody {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx) // ends with req's, at the latest
		sending := &h2Sending{ReadCloser: body, wait: h.pool.u.waits.UpstreamHeader, cancel: cancel}
		trace.WroteRequest = func(httptrace.WroteRequestInfo) { sending.stop(true) }
		body = sending
	}
	out := req.WithContext(httptrace.WithClientTrace(ctx, trace)) // a shallow copy
	out.Body = body
	out.RequestURI = ""
	out.Host = h.pool.authority
	target := url.URL{}
	if req.URL != nil {
		target = *req.URL
	}
	target.Scheme = "https"
	target.User, target.Fragment, target.RawFragment = nil, "", ""
	target.Host = net.JoinHostPort(h.pool.key.host, strconv.Itoa(int(h.pool.key.port)))
	out.URL = &target
	if _, ok := req.Header["User-Agent"]; !ok {
		out.Header = req.Header.Clone()
		if out.Header == nil {
			out.Header = http.Header{}
		}
		out.Header["User-Agent"] = nil // net/http would add one of its own
	}
	resp, err := h.transport.RoundTrip(out)
	if err != nil && errors.Is(context.Cause(ctx), errWindowShut) {
		return nil, errWindowShut
	}
	return resp, err
}

// traceFor lets net/http tell an observer what happens.
func traceFor(on observer) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { on.connected(remoteOf(info.Conn)) },
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			on.Interim(status, http.Header(header))
			return nil
		},
	}
}

// retire gives the connections no further request. Each ends with what is under way on it.
func (h *h2Pool) retire() {
	for _, c := range h.take() {
		c.SetDoNotReuse()
		go closeIdle(c)
	}
}

// close ends the connections, whatever is under way on them.
func (h *h2Pool) close() {
	var closed sync.WaitGroup
	for _, c := range h.take() {
		closed.Go(func() { _ = c.Close() }) // it is at its end either way
	}
	closed.Wait()
}

// take returns the connections, which the pool has no longer.
func (h *h2Pool) take() []*http2.ClientConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := h.conns
	h.conns = nil
	return conns
}

// closeIdle closes a connection that takes no further request if nothing is under way on it. It may block on what the server
// does not read.
func closeIdle(c *http2.ClientConn) {
	if idle(c) {
		_ = c.Close() // it is at its end either way
	}
}

// idle tells whether nothing is under way on c.
func idle(c *http2.ClientConn) bool {
	s := c.State()
	return s.StreamsActive == 0 && s.StreamsReserved == 0 && s.StreamsPending == 0
}

// giveUp closes an idle connection, if there is one.
func (h *h2Pool) giveUp() bool {
	h.mu.Lock()
	conns := slices.Clone(h.conns)
	h.mu.Unlock()
	for _, c := range conns {
		if idle(c) {
			c.SetDoNotReuse() // a request that was faster goes on
			h.MarkDead(c)
			closeIdle(c)
			return true
		}
	}
	return false
}

// giveUpIdleH2 has an idle connection over HTTP/2 closed to make room. It does not block.
func (u *upstream) giveUpIdleH2() {
	u.mu.Lock()
	defer u.mu.Unlock()
	var pools []*h2Pool
	for _, p := range u.pools {
		if p.h2 != nil && p.open > 0 {
			pools = append(pools, p.h2)
		}
	}
	go slices.ContainsFunc(pools, (*h2Pool).giveUp)
}

// takeH2 counts a connection over HTTP/2 that is to be made, when there is room for it.
func (p *upstreamPool) takeH2(ctx context.Context) error {
	for until := (time.Time{}); ; {
		p.u.mu.Lock()
		freed, err := p.u.room(p, true)
		p.u.mu.Unlock()
		if freed == nil {
			return err
		}
		if err := p.wait(ctx, freed, &until); err != nil {
			return err
		}
	}
}

// uncountH2 notes that a connection of p over HTTP/2 is gone.
func (u *upstream) uncountH2(p *upstreamPool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.openH2--
	u.uncount(p)
}

// h2Wire is a connection that counts among those over HTTP/2 until it is closed.
type h2Wire struct {
	*gwtls.Wire
	pool *upstreamPool
	over atomic.Bool
}

// Close is [net.Conn].Close.
func (w *h2Wire) Close() error {
	if !w.over.Swap(true) {
		w.pool.u.uncountH2(w.pool)
	}
	return w.Wire.Close()
}

// turn makes it a connection over HTTP/1.1, whose end is for its pool to count.
func (w *h2Wire) turn() {
	w.over.Store(true)
	w.pool.u.mu.Lock()
	defer w.pool.u.mu.Unlock()
	w.pool.u.openH2--
	w.pool.u.wake()
}
