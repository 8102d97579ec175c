package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gatewayd/gateway/http2"
	gwtls "gatewayd/gateway/tls"
)

// errSpeaksH1 says that a server that was offered HTTP/2 chose HTTP/1.1. Nothing was sent.
var errSpeaksH1 = errors.New("the server speaks HTTP/1.1")

// h2Pool carries requests of guests that speak HTTP/2 to a server that does too. Which version a server speaks is known once
// a connection to it was made; one that chose HTTP/1.1 is the HTTP/1.1 pool's.
//
// Which connection takes a request is for it to say, and the connections are those of package http2.
type h2Pool struct {
	pool     *upstreamPool
	tls      *tls.Config // of all connections
	client   *http2.Client
	speaksH1 atomic.Bool

	mu      sync.Mutex // never held while u.mu is taken, nor taken while a connection's is held
	conns   []*h2Conn  // that may take a request, if they have room for one
	dialing *h2Dial    // nil if there is none
}

// h2Conn is a connection of a pool.
type h2Conn struct {
	*http2.ClientConn
	remote netip.AddrPort
}

// h2Dial is a connection that is being made, for all requests that wait for one.
type h2Dial struct {
	done chan struct{}
	err  error
}

// newH2Pool returns the HTTP/2 side of p.
func newH2Pool(p *upstreamPool) *h2Pool {
	return &h2Pool{pool: p, tls: p.u.tlsConfig(p.key, alpnH2, alpnH1), client: p.u.clientH2}
}

// take returns a connection with room kept for a request. Requests that find no room share one dial.
func (h *h2Pool) take(ctx context.Context) (*h2Conn, error) {
	for range maxDials {
		if h.speaksH1.Load() {
			return nil, errSpeaksH1
		}
		c, d := h.reserve()
		if c != nil {
			return c, nil
		}
		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-ctx.Done():
			return nil, &UpstreamError{ReasonUpstreamDial, h.pool.key.host, ctx.Err()}
		}
	}
	return nil, &UpstreamError{ReasonUpstreamExchange, h.pool.key.host, errors.New("other requests, or the server, took each connection that was made")}
}

// maxDials is for how many connections a request waits one after another.
const maxDials = 100

// reserve returns a connection with room kept for a request, or the dial to wait for, begun if there was none.
func (h *h2Pool) reserve() (*h2Conn, *h2Dial) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		if c.Reserve() {
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
	if err == nil && c.Over() { // else it is forgotten after it was put there
		err = &UpstreamError{ReasonUpstreamExchange, h.pool.key.host, errors.New("the server has ended the connection at once")}
	}
	if h.dialing, d.err = nil, err; err == nil {
		h.conns = append(h.conns, c)
	}
	h.mu.Unlock()
	close(d.done)
	if err == nil && h.pool.u.ctx.Err() != nil {
		h.close() // else who waits for it has it, and it ends by being idle
	}
}

// forget takes a connection out that takes no further request.
func (h *h2Pool) forget(c *h2Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(o *h2Conn) bool { return o == c })
}

// dial waits for room, connects and offers both versions.
func (h *h2Pool) dial(ctx context.Context) (*h2Conn, error) {
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
	c := &h2Conn{remote: addrPortOf(conn.RemoteAddr())}
	c.ClientConn = h.client.NewConn(conn, func() { h.forget(c) })
	return c, nil
}

// roundTrip sends req over HTTP/2, or returns errSpeaksH1 having sent nothing. It sends anew what the server says it has not looked at:
// after a GOAWAY that does not cover it, or REFUSED_STREAM (RFC 9113 section 8.7), if it has no body.
func (h *h2Pool) roundTrip(req *http.Request, on observer) (*http.Response, error) {
	out := h.request(req, on)
	for try := 0; ; try++ {
		c, err := h.take(req.Context())
		if err != nil {
			return nil, err
		}
		on.connected(c.remote)
		resp, err := c.RoundTrip(req.Context(), out)
		var unseen *http2.UnseenError
		if err == nil || !errors.As(err, &unseen) || try >= maxTries || !backOff(req.Context(), try) {
			return resp, err
		}
	}
}

// maxTries is how often a request is sent anew that servers do not look at.
const maxTries = 6

// backOff waits before a request is sent anew, the first time for no time at all, and reports whether the context has not ended.
func backOff(ctx context.Context, try int) bool {
	if try == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(time.Second << (try - 1))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// request makes what is sent of req.
func (h *h2Pool) request(req *http.Request, on observer) *http2.Request {
	out := &http2.Request{
		Method: req.Method, Scheme: "https", Authority: h.pool.authority, Path: target(req.URL),
		Header: req.Header, Length: req.ContentLength, Trailer: req.Trailer, Interim: on,
	}
	if req.Body == nil || req.Body == http.NoBody {
		out.Length = 0
		return out
	}
	out.Body = req.Body
	if n, ok := req.Body.(interface{ Near() bool }); ok {
		out.Near = n.Near()
	}
	return out
}

// retire gives the connections no further request. Each ends with what is under way on it.
func (h *h2Pool) retire() {
	for _, c := range h.drop() {
		c.Retire()
	}
}

// close ends the connections, whatever is under way on them.
func (h *h2Pool) close() {
	for _, c := range h.drop() {
		c.Close()
	}
}

// drop returns the connections, which the pool has no longer.
func (h *h2Pool) drop() []*h2Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := h.conns
	h.conns = nil
	return conns
}

// giveUp ends an idle connection, if there is one.
func (h *h2Pool) giveUp() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.conns, func(c *h2Conn) bool { return c.Idle() })
	if i >= 0 {
		h.conns[i].Retire() // a request that was faster goes on
		h.conns = slices.Delete(h.conns, i, i+1)
	}
	return i >= 0
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
