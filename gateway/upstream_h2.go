package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"sync/atomic"

	gwtls "gatewayd/gateway/tls"
)

// errSpeaksH1 says that a server that was offered HTTP/2 chose HTTP/1.1. Nothing was sent.
var errSpeaksH1 = errors.New("the server speaks HTTP/1.1")

// h2Pool carries requests of guests that speak HTTP/2 to a server that does too. Which version a server speaks is known once
// a connection to it was made; one that chose HTTP/1.1 is the HTTP/1.1 pool's.
type h2Pool struct {
	pool      *upstreamPool
	transport *http.Transport
	speaksH1  atomic.Bool
}

// newH2Pool returns the HTTP/2 side of p. Its transport has no proxy, no compression of its own and no cookie or redirect
// logic; its only way out is the guarded dialer.
func newH2Pool(p *upstreamPool) *h2Pool {
	h := &h2Pool{pool: p}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	waits := p.u.waits
	h.transport = &http.Transport{
		DisableCompression:     true,
		Protocols:              protocols,
		MaxConnsPerHost:        maxConnsPerHost,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        waits.UpstreamIdle,
		ResponseHeaderTimeout:  waits.UpstreamHeader,
		TLSHandshakeTimeout:    waits.UpstreamHandshake,
		ExpectContinueTimeout:  waits.Continue,
		MaxResponseHeaderBytes: maxResponseHeadBytes,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: upstreamPing, PingTimeout: upstreamPingWait},
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("plain connection on a route that is not http")
		},
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return h.dial(ctx) },
	}
	return h
}

// dial connects and offers both versions.
func (h *h2Pool) dial(ctx context.Context) (net.Conn, error) {
	if h.speaksH1.Load() {
		return nil, errSpeaksH1
	}
	p := h.pool
	raw, err := p.u.connect(ctx, p.key)
	if err != nil {
		return nil, err
	}
	wire, err := gwtls.NewWire(raw, &p.u.buffers, true, nil, nil, nil)
	if err != nil {
		reset(raw)
		return nil, &UpstreamError{ReasonUpstreamDial, p.key.host, err}
	}
	conn, err := p.u.handshake(ctx, p.key, raw, wire, alpnH2, alpnH1)
	if err != nil {
		return nil, err
	}
	if conn.ConnectionState().NegotiatedProtocol != alpnH2 {
		h.speaksH1.Store(true)
		p.adopt(conn, wire)
		return nil, errSpeaksH1
	}
	return conn, nil
}

// roundTrip sends req over HTTP/2, or returns errSpeaksH1 having sent nothing.
func (h *h2Pool) roundTrip(req *http.Request, on observer) (*http.Response, error) {
	if h.speaksH1.Load() {
		return nil, errSpeaksH1
	}
	out := req.WithContext(httptrace.WithClientTrace(req.Context(), traceFor(on))) // a shallow copy
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
	return h.transport.RoundTrip(out)
}

// traceFor lets net/http tell an observer what happens.
func traceFor(on observer) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { on.connected(remoteOf(info.Conn)) },
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			on.interim(status, http.Header(header))
			return nil
		},
	}
}
