package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"gatewayd/gateway/http1"
	gwtls "gatewayd/gateway/tls"
)

// upstreamPool holds the connections of one key: those over HTTP/1.1 itself, those over HTTP/2 by h2.
type upstreamPool struct {
	u         *upstream
	key       poolKey
	authority string      // the Host of requests
	tls       *tls.Config // of all connections that offer HTTP/1.1 alone; nil without TLS
	h2        *h2Pool     // likewise

	// Guarded by u.mu.
	idle    []*upstreamConn // the last one used is the last
	open    int             // connections, those being made and those over HTTP/2 included
	retired bool            // no route uses it any more: nothing is kept
}

// upstreamConn is an HTTP/1.1 connection of a pool.
type upstreamConn struct {
	pool   *upstreamPool
	http   *http1.ClientConn
	wire   *gwtls.Wire
	remote netip.AddrPort
	since  time.Time // unused since then
}

// roundTrip sends req over HTTP/1.1.
func (p *upstreamPool) roundTrip(req *http.Request, on observer) (*http.Response, error) {
	out := p.request(req, on)
	for {
		c, err := p.take(req.Context())
		if err != nil {
			return nil, err
		}
		on.connected(c.remote)
		again := c.http.Used()
		resp, err := c.http.RoundTrip(req.Context(), out)
		if errors.Is(err, http1.ErrStale) && req.Context().Err() == nil {
			on.connected(netip.AddrPort{})
			continue
		}
		if err == nil || !again || !repeatable(out) || !lost(err) || req.Context().Err() != nil {
			return resp, err
		}
	}
}

// lost reports whether a connection ended without a byte of a response, by the server's doing.
func lost(err error) bool {
	var l *http1.LostError
	var timeout net.Error
	return errors.As(err, &l) && !errors.Is(err, http1.ErrAborted) && !(errors.As(err, &timeout) && timeout.Timeout())
}

// repeatable reports whether a request may be sent twice: it is safe (RFC 9110 section 9.2.1) and has no body.
func repeatable(req *http1.Request) bool {
	return req.Body == nil && (req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == http.MethodOptions)
}

// request makes what is sent of req.
func (p *upstreamPool) request(req *http.Request, on observer) *http1.Request {
	out, answer := on.memory()
	*out = http1.Request{
		Method: req.Method, Target: target(req.URL), Host: p.authority,
		Header: req.Header, Length: req.ContentLength, Trailer: req.Trailer, Interim: on, Answer: answer,
	}
	if req.Body != nil && req.Body != http.NoBody {
		out.Body = io.Reader(req.Body)
		if n, ok := req.Body.(interface{ Near() bool }); ok {
			out.Near = n.Near()
		}
	} else {
		out.Length = 0
	}
	return out
}

// target is the request target of u in origin-form or the asterisk, byte for byte what u was made of.
func target(u *url.URL) string {
	path := u.Opaque
	if path == "" {
		path = u.EscapedPath()
	}
	if path == "" {
		path = "/"
	}
	if u.RawQuery != "" || u.ForceQuery {
		path += "?" + u.RawQuery
	}
	return path
}

// take returns a connection for one exchange: an idle one, else a new one. It waits while the bottle has as many as it may.
func (p *upstreamPool) take(ctx context.Context) (*upstreamConn, error) {
	var until time.Time
	for {
		c, wait, err := p.try()
		switch {
		case err != nil:
			return nil, err
		case c != nil:
			return c, nil
		case wait == nil:
			return p.make(ctx)
		}
		if err := p.wait(ctx, wait, &until); err != nil {
			return nil, err
		}
	}
}

// try returns an idle connection, or the channel to wait on for one, or neither: then there is room for a new one, which is
// counted already.
func (p *upstreamPool) try() (c *upstreamConn, wait <-chan struct{}, err error) {
	u := p.u
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(p.idle); n > 0 {
		c = p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		return c, nil, nil
	}
	wait, err = u.room(p, false)
	return nil, wait, err
}

// room counts a connection of p that is to be made, or returns the channel to wait on until there may be room for it. u.mu is
// held.
func (u *upstream) room(p *upstreamPool, h2 bool) (wait <-chan struct{}, err error) {
	if p.open < u.bounds.perHost && (!h2 || u.openH2 < u.bounds.h2) && (u.open < u.bounds.perBottle || u.giveUpIdle()) {
		p.open++
		u.open++
		if h2 {
			u.openH2++
		}
		return nil, nil
	}
	if u.waiting >= u.bounds.waiting {
		return nil, &UpstreamError{ReasonUpstreamDial, p.key.host, fmt.Errorf("%d requests wait for a connection already", u.waiting)}
	}
	u.waiting++
	return u.freed, nil
}

// wait waits for what room returned, until the time of a dial is over, which began with the first wait.
func (p *upstreamPool) wait(ctx context.Context, freed <-chan struct{}, until *time.Time) error {
	defer p.u.waited()
	if until.IsZero() {
		*until = time.Now().Add(p.u.waits.Dial)
	}
	p.u.giveUpIdleH2()
	t := time.NewTimer(time.Until(*until))
	defer t.Stop()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return &UpstreamError{ReasonUpstreamDial, p.key.host, ctx.Err()}
	case <-t.C:
		return &UpstreamError{ReasonUpstreamDial, p.key.host, fmt.Errorf("as many connections are in use as may be: %w", context.DeadlineExceeded)}
	}
}

// giveUpIdle closes an idle connection of some pool to make room. u.mu is held.
func (u *upstream) giveUpIdle() bool {
	for _, p := range u.pools {
		if len(p.idle) > 0 {
			c := p.idle[0]
			p.idle = slices.Delete(p.idle, 0, 1)
			u.uncount(p)
			c.http.Close()
			return true
		}
	}
	return false
}

// waited takes back what room counted for a request that waited.
func (u *upstream) waited() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waiting--
}

// uncount notes that a connection of p is gone. u.mu is held.
func (u *upstream) uncount(p *upstreamPool) {
	p.open--
	u.open--
	u.wake()
}

// wake lets whoever waits for a connection look again. u.mu is held.
func (u *upstream) wake() {
	if u.waiting > 0 {
		close(u.freed)
		u.freed = make(chan struct{})
	}
}

// make makes the connection that try made room for.
func (p *upstreamPool) make(ctx context.Context) (*upstreamConn, error) {
	c, err := p.dial(ctx)
	if err != nil {
		p.u.mu.Lock()
		defer p.u.mu.Unlock()
		p.u.uncount(p)
		return nil, err
	}
	return c, nil
}

// dial connects, with TLS unless the route is of protocol http.
func (p *upstreamPool) dial(ctx context.Context) (*upstreamConn, error) {
	raw, err := p.u.connect(ctx, p.key)
	if err != nil {
		return nil, err
	}
	encrypted := p.tls != nil
	wire, err := gwtls.NewWire(raw, &p.u.buffers, encrypted, nil, nil, nil)
	if err != nil {
		reset(raw)
		return nil, &UpstreamError{ReasonUpstreamDial, p.key.host, err}
	}
	if !encrypted {
		return p.newConn(wire, wire), nil
	}
	conn, err := p.u.handshake(ctx, p.tls, raw, wire)
	if err != nil {
		return nil, err
	}
	return p.newConn(conn, wire), nil
}

// newConn returns the pool's connection over conn, which is wire or TLS over it.
func (p *upstreamPool) newConn(conn net.Conn, wire *gwtls.Wire) *upstreamConn {
	c := &upstreamConn{pool: p, wire: wire, remote: addrPortOf(wire.RemoteAddr())}
	c.http = p.u.client.NewConn(conn, wire, c.release)
	return c
}

// release takes the connection back after an exchange.
func (c *upstreamConn) release(reusable bool) {
	p, u := c.pool, c.pool.u
	u.mu.Lock()
	defer u.mu.Unlock()
	if !reusable || p.retired || len(p.idle) >= u.bounds.idlePerHost {
		u.uncount(p)
		if reusable {
			c.http.Close()
		}
		return
	}
	c.since = time.Now()
	p.idle = append(p.idle, c)
	u.wake()
	if u.sweeper == nil {
		u.sweeper = time.AfterFunc(u.waits.UpstreamIdle/2, u.sweep)
	}
}

// sweep closes idle connections that have been so for long or that the server has closed.
func (u *upstream) sweep() {
	u.mu.Lock()
	defer u.mu.Unlock()
	before := time.Now().Add(-u.waits.UpstreamIdle)
	any := false
	for _, p := range u.pools {
		p.idle = slices.DeleteFunc(p.idle, func(c *upstreamConn) bool {
			over := c.since.Before(before) || !c.wire.Quiet()
			if over {
				c.http.Close()
				u.uncount(p)
			}
			return over
		})
		any = any || len(p.idle) > 0
	}
	if u.sweeper = nil; any && !u.shut {
		u.sweeper = time.AfterFunc(u.waits.UpstreamIdle/2, u.sweep)
	}
}

// retire closes what is idle and lets nothing be kept.
func (p *upstreamPool) retire() {
	p.u.mu.Lock()
	idle := p.idle
	p.idle, p.retired = nil, true
	for range idle {
		p.u.uncount(p)
	}
	p.u.mu.Unlock()
	for _, c := range idle {
		c.http.Close()
	}
	if p.h2 != nil {
		p.h2.retire()
	}
}
