package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"gatewayd/gateway/http1"
	"gatewayd/gateway/http2"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// Bounds of one bottle's upstream connections.
const (
	maxIdlePerHost       = 32      // unused connections over HTTP/1.1 kept for one host
	maxConnsPerHost      = 512     // connections to one host at once; a request beyond it waits
	maxConnsPerBottle    = 1024    // connections at once, over all hosts
	maxH2PerBottle       = 32      // of these, connections over HTTP/2, each with up to upstreamConnWindow of memory
	maxWaiting           = 1024    // requests at once that wait for a connection; one beyond it fails
	maxPools             = 256     // pools that are kept without a connection in use
	maxSessions          = 64      // TLS sessions that can be resumed
	maxResponseHeadBytes = 1 << 20 // a response head larger than this is refused
)

// What a server may send over HTTP/2 before the guest takes it (RFC 9113 section 5.2). A stream's window bounds its rate too, to
// one window in a round trip, so it is not the smallest that does.
const (
	upstreamStreamWindow = 1 << 20 // response body bytes of one stream that wait for the guest
	upstreamConnWindow   = 8 << 20 // the same over all streams of one connection
)

// upstreamBounds are the counts above, as one bottle has them.
type upstreamBounds struct {
	idlePerHost, perHost, perBottle, h2 int
	waiting, pools, sessions            int
}

// defaultBounds are those of every bottle.
var defaultBounds = upstreamBounds{
	idlePerHost: maxIdlePerHost, perHost: maxConnsPerHost, perBottle: maxConnsPerBottle, h2: maxH2PerBottle,
	waiting: maxWaiting, pools: maxPools, sessions: maxSessions,
}

// poolIdentity is what keeps connections apart: two requests share a pool of one bottle only if they go by the same
// route and with the same credential, so that nothing that an upstream ties to a connection crosses over.
type poolIdentity struct {
	pattern      string
	port         uint16
	protocol     routes.Protocol
	allowPrivate bool
	credential   string // the reference, never the value
}

// poolKey is a pool's identity and the one host that its connections were verified for.
type poolKey struct {
	poolIdentity
	host string
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
	dial     *dialer
	roots    *gwtls.Roots
	waits    Deadlines
	bounds   upstreamBounds
	client   *http1.Client
	clientH2 *http2.Client
	buffers  gwtls.WireBuffers
	sessions tls.ClientSessionCache // of all pools, each under names of its own
	ctx      context.Context        // ends with the bottle
	cancel   context.CancelFunc

	mu      sync.Mutex
	shut    bool
	pools   map[poolKey]*upstreamPool
	routes  map[routeHost]*upstreamPool // pools by what they were asked for; emptied with a new plan
	open    int                         // connections, those being made included
	openH2  int                         // of these, those over HTTP/2
	waiting int                         // requests that wait for one
	freed   chan struct{}               // closed when there may be one
	sweeper *time.Timer                 // looks after idle connections while there are any
}

// routeHost is what a request asks a pool for.
type routeHost struct {
	route *routes.Route
	host  string
}

// newUpstream returns an upstream without connections. roots may be nil, which trusts nobody. The caller closes it.
func newUpstream(d *dialer, roots *gwtls.Roots, waits Deadlines, bounds upstreamBounds) *upstream {
	ctx, cancel := context.WithCancel(context.Background())
	return &upstream{
		dial: d, roots: roots, waits: waits, bounds: bounds, ctx: ctx, cancel: cancel,
		client: http1.NewClient(http1.ClientLimits{
			HeadBytes: maxResponseHeadBytes, Head: waits.UpstreamHeader, Continue: waits.Continue,
		}),
		clientH2: http2.NewClient(http2.ClientLimits{
			HeadBytes: maxResponseHeadBytes, StreamWindow: upstreamStreamWindow, ConnWindow: upstreamConnWindow,
			Head: waits.UpstreamHeader, Continue: waits.Continue, Idle: waits.UpstreamIdle, Ping: waits.UpstreamPing, PingWait: waits.UpstreamPingWait,
		}),
		sessions: tls.NewLRUClientSessionCache(bounds.sessions),
		pools:    map[poolKey]*upstreamPool{},
		routes:   map[routeHost]*upstreamPool{},
		freed:    make(chan struct{}),
	}
}

// RoundTrip sends req to host by route and returns the response, whose body the caller closes. host is the canonical
// name that was decided on; the guest's address plays no part. req's URL gives path and query alone: scheme, authority and
// Host are set from host and route. HTTP/2 is offered to the upstream if req.ProtoMajor is 2 (the guest speaks it),
// HTTP/1.1 otherwise. Redirects are returned as they are; bodies are not decompressed; a 101 response has an
// io.ReadWriteCloser as its body. on is told of connection and interim responses.
//
// It blocks until the response's head, for at most the deadlines of the package or the request's context. A request of
// which any byte was sent is sent again only if it is safe and has no body, and the connection had been used before and
// ended without a byte of a response (RFC 9110 section 9.2.2). Errors are *UpstreamError.
func (u *upstream) RoundTrip(route *routes.Route, host string, req *http.Request, on observer) (*http.Response, error) {
	if route == nil {
		return nil, &UpstreamError{ReasonUpstreamExchange, host, errors.New("no route")}
	}
	p, err := u.pool(route, host)
	if err != nil {
		return nil, err
	}
	var resp *http.Response
	if req.ProtoMajor == 2 && p.h2 != nil {
		resp, err = p.h2.roundTrip(req, on)
		if errors.Is(err, errSpeaksH1) {
			resp, err = p.roundTrip(req, on)
		}
	} else {
		resp, err = p.roundTrip(req, on)
	}
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

// pool returns the pool for requests to host on route, made at its first use.
func (u *upstream) pool(route *routes.Route, host string) (*upstreamPool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.routes[routeHost{route, host}]; p != nil {
		return p, nil
	}
	if u.shut {
		return nil, &UpstreamError{ReasonUpstreamExchange, host, errors.New("the bottle was shut")}
	}
	key := poolKey{identify(route), host}
	p := u.pools[key]
	if p == nil {
		u.boundPools()
		p = &upstreamPool{u: u, key: key, authority: authority(host, route)}
		if route.Protocol != routes.HTTP {
			p.tls = u.tlsConfig(key, alpnH1)
			p.h2 = newH2Pool(p)
		}
		u.pools[key] = p
	}
	u.routes[routeHost{route, host}] = p
	return p, nil
}

// boundPools drops the pools without connections when there are many, as a guest may ask for any name under a wildcard. A request
// may have one of them in hand: what it connects is its own alone. u.mu is held.
func (u *upstream) boundPools() {
	if len(u.pools) < u.bounds.pools {
		return
	}
	clear(u.routes)
	for key, p := range u.pools {
		if p.open == 0 {
			p.retired = true
			delete(u.pools, key)
		}
	}
}

// connect dials the host of key through the guard.
func (u *upstream) connect(ctx context.Context, key poolKey) (*net.TCPConn, error) {
	return u.dial.dialName(ctx, key.host, key.port, key.allowPrivate)
}

// tlsConfig returns the configuration of the connections of key that offer alpn.
func (u *upstream) tlsConfig(key poolKey, alpn ...string) *tls.Config {
	config := gwtls.UpstreamConfig(u.roots, key.host, alpn)
	config.ClientSessionCache = &poolSessions{u.sessions, key.sessionPrefix()}
	config.DynamicRecordSizingDisabled = true
	return config
}

// handshake makes TLS by config on raw and verifies chain and name of the upstream, always, before a byte of a request goes out.
// On an error raw has been closed.
func (u *upstream) handshake(ctx context.Context, config *tls.Config, raw *net.TCPConn, wire net.Conn) (*tls.Conn, error) {
	conn := tls.Client(wire, config)
	hctx, cancel := context.WithTimeout(ctx, u.waits.UpstreamHandshake)
	defer cancel()
	if err := conn.HandshakeContext(hctx); err != nil {
		reset(raw)
		return nil, &UpstreamError{ReasonUpstreamTLS, config.ServerName, err}
	}
	return conn, nil
}

// sessionPrefix sets the sessions of one pool apart from those of another for the same host.
func (k poolKey) sessionPrefix() string {
	return strings.Join([]string{k.pattern, strconv.Itoa(int(k.port)), k.credential, ""}, "\x00")
}

// poolSessions is one pool's part of a cache of TLS sessions.
type poolSessions struct {
	all    tls.ClientSessionCache
	prefix string
}

// Get is [tls.ClientSessionCache].Get.
func (s *poolSessions) Get(name string) (*tls.ClientSessionState, bool) {
	return s.all.Get(s.prefix + name)
}

// Put is [tls.ClientSessionCache].Put.
func (s *poolSessions) Put(name string, state *tls.ClientSessionState) {
	s.all.Put(s.prefix+name, state)
}

// keep closes what no route of the plan in force can use any more: the idle connections of pools that are not in s, and
// the pools themselves. Requests under way go on.
func (u *upstream) keep(s *snapshot) {
	u.mu.Lock()
	clear(u.routes)
	var gone []*upstreamPool
	for key, p := range u.pools {
		if !s.poolKeys[key.poolIdentity] {
			delete(u.pools, key)
			gone = append(gone, p)
		}
	}
	u.mu.Unlock()
	for _, p := range gone {
		p.retire()
	}
}

// close closes every idle connection over HTTP/1.1 and all over HTTP/2. The others close with their requests, and nothing new
// begins.
func (u *upstream) close() {
	u.cancel()
	u.mu.Lock()
	u.shut = true
	clear(u.routes)
	pools := u.pools
	u.pools = map[poolKey]*upstreamPool{}
	if u.sweeper != nil {
		u.sweeper.Stop()
	}
	u.mu.Unlock()
	for _, p := range pools {
		if p.h2 != nil {
			p.h2.close()
		}
		p.retire()
	}
}

// remoteOf returns the address behind an upstream connection, for a record; the zero value if it is none.
func remoteOf(c net.Conn) netip.AddrPort {
	if c == nil {
		return netip.AddrPort{}
	}
	return addrPortOf(c.RemoteAddr())
}
