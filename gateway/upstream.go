package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// Bounds of one upstream pool.
const (
	maxIdlePerHost       = 32      // unused connections kept for one host
	maxConnsPerHost      = 512     // connections to one host at once; a request beyond it waits
	maxResponseHeadBytes = 1 << 20 // a response head larger than this is refused
	upstreamPing         = 30 * time.Second
	upstreamPingWait     = 15 * time.Second
)

// poolIdentity is what keeps connections apart: two requests share a pool of one bottle only if they go by the same
// route and with the same credential, so that nothing that an upstream ties to a connection crosses over.
type poolIdentity struct {
	pattern      string
	port         uint16
	protocol     routes.Protocol
	allowPrivate bool
	credential   string // the reference, never the value
}

// poolKey is a pool and the protocols that it offers to the upstream.
type poolKey struct {
	poolIdentity
	h2 bool
}

// identify returns the identity of the pool that requests on r use.
func identify(r *routes.Route) poolIdentity {
	id := poolIdentity{pattern: r.Host, port: r.Port, protocol: r.Protocol, allowPrivate: r.AllowPrivate}
	if r.Auth != nil {
		id.credential = string(r.Auth.Scheme) + " " + r.Auth.Secret.String()
	}
	return id
}

// upstream carries the requests of one bottle to the hosts that its plan names. Pools are never shared between bottles.
type upstream struct {
	dial  *dialer
	roots *gwtls.Roots
	waits Deadlines

	mu    sync.Mutex
	pools map[poolKey]*http.Transport
}

// newUpstream returns an upstream without connections. roots may be nil, which trusts nobody.
func newUpstream(d *dialer, roots *gwtls.Roots, waits Deadlines) *upstream {
	return &upstream{dial: d, roots: roots, waits: waits, pools: map[poolKey]*http.Transport{}}
}

// RoundTrip sends req to host by route and returns the response, whose body the caller closes. host is the canonical
// name that was decided on; the guest's address plays no part. req is not changed: its URL keeps path and query, while
// scheme, authority and Host are set from host and route. HTTP/2 is offered to the upstream if req.ProtoMajor is 2 (the
// guest speaks it), HTTP/1.1 otherwise. Redirects are returned as they are; bodies are not decompressed; a 101 response
// has an io.ReadWriteCloser as its body; 1xx responses are seen through httptrace.
//
// It blocks until the response's head, for at most the deadlines of the package or the request's context. A request of
// which any byte was sent is sent again only if its method is idempotent and the pooled connection had been closed by
// the server (RFC 9110 section 9.2.2). Errors are *UpstreamError.
func (u *upstream) RoundTrip(route *routes.Route, host string, req *http.Request) (*http.Response, error) {
	if route == nil {
		return nil, &UpstreamError{ReasonUpstreamExchange, host, errors.New("no route")}
	}
	out := req.WithContext(req.Context()) // shallow copy
	out.RequestURI = ""
	out.Host = authority(host, route)
	target := url.URL{}
	if req.URL != nil {
		target = *req.URL
	}
	target.Scheme = "https"
	if route.Protocol == routes.HTTP {
		target.Scheme = "http"
	}
	target.User, target.Fragment, target.RawFragment = nil, "", ""
	target.Host = net.JoinHostPort(host, strconv.Itoa(int(route.Port)))
	out.URL = &target
	if _, ok := req.Header["User-Agent"]; !ok {
		out.Header = maps.Clone(req.Header)
		if out.Header == nil {
			out.Header = http.Header{}
		}
		out.Header["User-Agent"] = nil // net/http would add one of its own
	}
	resp, err := u.pool(route, req.ProtoMajor == 2).RoundTrip(out)
	if err != nil {
		var ue *UpstreamError
		if errors.As(err, &ue) {
			return nil, ue
		}
		return nil, &UpstreamError{ReasonUpstreamExchange, host, err}
	}
	return resp, nil
}

// authority is the Host of a request to host: with the port unless it is the scheme's own (RFC 9110 section 4.2).
func authority(host string, route *routes.Route) string {
	if route.Protocol == routes.HTTP && route.Port == 80 || route.Protocol != routes.HTTP && route.Port == 443 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(route.Port)))
}

// pool returns the transport for requests on route, made at its first use.
func (u *upstream) pool(route *routes.Route, h2 bool) *http.Transport {
	key := poolKey{identify(route), h2 && route.Protocol != routes.HTTP}
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.pools[key]
	if t == nil {
		t = u.newTransport(key)
		u.pools[key] = t
	}
	return t
}

// newTransport returns the transport of one pool. It has no proxy, no compression of its own and no cookie or redirect
// logic; its only way out is the guarded dialer.
func (u *upstream) newTransport(key poolKey) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(key.h2)
	t := &http.Transport{
		DisableCompression:     true,
		Protocols:              protocols,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxConnsPerHost:        maxConnsPerHost,
		IdleConnTimeout:        u.waits.UpstreamIdle,
		ResponseHeaderTimeout:  u.waits.UpstreamHeader,
		TLSHandshakeTimeout:    u.waits.UpstreamHandshake,
		ExpectContinueTimeout:  u.waits.Continue,
		MaxResponseHeaderBytes: maxResponseHeadBytes,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: upstreamPing, PingTimeout: upstreamPingWait},
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return u.dialPlain(ctx, key, addr)
		},
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return u.dialTLS(ctx, key, addr)
		},
	}
	return t
}

// dialPlain connects without TLS, for routes of protocol http only: any other pool that asks for it is a defect.
func (u *upstream) dialPlain(ctx context.Context, key poolKey, addr string) (net.Conn, error) {
	if key.protocol != routes.HTTP {
		return nil, &UpstreamError{ReasonUpstreamDial, addr, errors.New("plain connection on a route that is not http")}
	}
	return u.connect(ctx, key, addr)
}

// connect dials addr, a name and a port, through the guard.
func (u *upstream) connect(ctx context.Context, key poolKey, addr string) (*net.TCPConn, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &UpstreamError{ReasonUpstreamDial, addr, err}
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, &UpstreamError{ReasonUpstreamDial, addr, err}
	}
	return u.dial.dialName(ctx, host, uint16(port), key.allowPrivate)
}

// dialTLS connects and verifies: chain and name of the upstream, always, before a byte of a request goes out.
func (u *upstream) dialTLS(ctx context.Context, key poolKey, addr string) (net.Conn, error) {
	raw, err := u.connect(ctx, key, addr)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(addr) // connect has split it already
	alpn := []string{alpnH1}
	if key.h2 {
		alpn = []string{alpnH2, alpnH1}
	}
	conn := tls.Client(raw, gwtls.UpstreamConfig(u.roots, host, alpn))
	hctx, cancel := context.WithTimeout(ctx, u.waits.UpstreamHandshake)
	defer cancel()
	if err := conn.HandshakeContext(hctx); err != nil {
		reset(raw)
		return nil, &UpstreamError{ReasonUpstreamTLS, host, err}
	}
	return conn, nil
}

// keep closes what no route of the plan in force can use any more: the idle connections of pools that are not in s, and
// the pools themselves. Requests under way go on.
func (u *upstream) keep(s *snapshot) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, t := range u.pools {
		if !s.poolKeys[key.poolIdentity] {
			t.CloseIdleConnections()
			delete(u.pools, key)
		}
	}
}

// close closes every idle connection. Those in use close with their requests.
func (u *upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, t := range u.pools {
		t.CloseIdleConnections()
		delete(u.pools, key)
	}
}

// remoteOf returns the address behind an upstream connection, for a record; the zero value if it is none.
func remoteOf(c net.Conn) netip.AddrPort {
	if c == nil {
		return netip.AddrPort{}
	}
	return addrPortOf(c.RemoteAddr())
}
