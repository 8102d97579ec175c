// Package gateway is one host's gateway for its bottles: it owns their listeners, takes each TCP connection of a guest,
// decides it by the bottle's plan, carries it by a lane, and writes one record for it.
//
// What a bottle may do comes in as a table of routes, and nothing here knows where it came from. Whatever is not
// allowed by a route is refused, whatever fails is refused, and the zero value of every decision refuses.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gatewayd/gateway/dns"
	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// Redirector brings the guests' connections to the listeners. *redirect.Redirect satisfies it.
type Redirector interface {
	// Set makes the capture links what c says, and no others; a link that fails stays shut and is named in Status.
	Set(ctx context.Context, c redirect.Config) (redirect.Status, error)
	// Status is what the last Set or repair found.
	Status() redirect.Status
	// Counters are the kernel's counters of one bottle's link.
	Counters(bottle string) (redirect.Counters, error)
}

// Sockets opens the listeners. The zero Options use transparent sockets of the kernel; tests put in their own.
type Sockets interface {
	// ListenTCP listens on addr, which need not be an address of this host. What it accepts must be *net.TCPConn.
	ListenTCP(ctx context.Context, addr netip.AddrPort) (net.Listener, error)
	// ListenUDP listens on addr, likewise.
	ListenUDP(ctx context.Context, addr netip.AddrPort) (dns.PacketConn, error)
	// OriginalDst tells where the guest of an accepted connection wanted to go.
	OriginalDst(c *net.TCPConn) (netip.AddrPort, error)
}

// Options are the parts that a Gateway is made of.
type Options struct {
	Redirect      Redirector    // required
	Resolver      *dns.Resolver // asks upstream about names; nil resolves nothing
	Roots         *gwtls.Roots  // verifies upstreams; nil trusts none
	Guard         routes.Guard  // which upstream addresses may be dialled; this host's own are added to Self
	Audit         Recorder      // takes every record; may be nil
	AuditRequired bool          // refuse new flows while Audit is not ready; Audit must then be a ReadyRecorder
	Metrics       *Metrics      // nil makes one that nobody reads
	Log           *slog.Logger  // nil discards
	Deadlines     Deadlines     // zero fields have their defaults
	Budget        Budget        // per bottle; zero fields have their defaults
	Trips         TripStore     // remembers bottles that are cut off; nil forgets them with the process
	Sockets       Sockets       // nil opens transparent sockets
}

// Gateway runs bottles. Its methods may be called by many goroutines at once.
type Gateway struct {
	redirect Redirector
	resolver *dns.Resolver
	names    lookup
	roots    *gwtls.Roots
	guard    routes.Guard
	audit    Recorder
	required bool
	metrics  *Metrics
	log      *slog.Logger
	waits    Deadlines
	budget   Budget
	trips    TripStore
	sockets  Sockets
	engine   *engine
	feed     *Feed
	selves   *selfAddrs
	own      func(netip.Addr) bool               // isOwn, but in tests whose internet is on loopback
	links    atomic.Pointer[map[netip.Addr]bool] // addresses of every capture link, both ends

	memory   Memory             // redirect, if it is one; else nil
	fast     FastPath           // likewise
	fastStop context.CancelFunc // nil until the first Apply; guarded by applying
	fastRuns sync.WaitGroup

	applying sync.Mutex        // held by Apply and Shutdown
	shutSaid map[string]string // by bottle: why its link is shut, as last logged; guarded by applying

	mu      sync.RWMutex
	bottles map[string]*bottle
	stopped bool
}

// ErrStopped says that the gateway was shut down.
var ErrStopped = errors.New("gateway is shut down")

// New returns a gateway without bottles. It touches nothing of the machine.
func New(o Options) *Gateway {
	g := &Gateway{
		redirect: o.Redirect,
		resolver: o.Resolver,
		roots:    o.Roots,
		guard:    o.Guard,
		audit:    o.Audit,
		required: o.AuditRequired,
		metrics:  o.Metrics,
		log:      o.Log,
		waits:    o.Deadlines.withDefaults(),
		budget:   o.Budget.withDefaults(),
		trips:    o.Trips,
		sockets:  o.Sockets,
		feed:     newFeed(),
		bottles:  map[string]*bottle{},
	}
	g.memory, _ = o.Redirect.(Memory)
	g.fast, _ = o.Redirect.(FastPath)
	if o.Resolver != nil {
		g.names = o.Resolver
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.metrics == nil {
		g.metrics = NewMetrics()
	}
	if g.sockets == nil {
		g.sockets = transparent{}
	}
	g.selves = newSelfAddrs(g.waits.SelfRefresh)
	g.guard.Self = func(a netip.Addr) bool {
		return (*g.links.Load())[a] || g.selves.has(a) || o.Guard.Self != nil && o.Guard.Self(a)
	}
	g.own = g.isOwn
	g.engine = newEngine(g.log)
	g.links.Store(&map[netip.Addr]bool{})
	g.metrics.watch(g)
	return g
}

// transparent opens the kernel's transparent sockets.
type transparent struct{}

// ListenTCP listens by redirect.ListenTCP.
func (transparent) ListenTCP(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	l, err := redirect.ListenTCP(ctx, addr)
	if err != nil {
		return nil, err // not l: a nil *net.TCPListener in an interface is not nil
	}
	return l, nil
}

// ListenUDP listens by redirect.ListenUDP.
func (transparent) ListenUDP(ctx context.Context, addr netip.AddrPort) (dns.PacketConn, error) {
	c, err := redirect.ListenUDP(ctx, addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// OriginalDst is the accepted socket's own address: bpf_sk_assign gives the connection to the listener without
// changing the packet, so that the destination which the guest wrote is the local address (Linux, net/core/filter.c).
func (transparent) OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	ap := addrPortOf(c.LocalAddr())
	if !ap.IsValid() {
		return netip.AddrPort{}, fmt.Errorf("read original destination: socket has address %v", c.LocalAddr())
	}
	return ap, nil
}

// auditReady tells whether a new flow or request may begin as far as its record is concerned.
func (g *Gateway) auditReady() bool {
	if !g.required {
		return true
	}
	r, ok := g.audit.(ReadyRecorder)
	return ok && r.Ready()
}
