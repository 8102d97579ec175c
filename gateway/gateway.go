// Package gateway is one host's gateway for its bottles: it owns their listeners, takes each TCP connection of a guest,
// decides it by the bottle's plan, carries it by a lane, and writes one record for it.
//
// What a bottle may do comes in as a table of routes, and nothing here knows where it came from. Whatever is not
// allowed by a route is refused, whatever fails is refused, and the zero value of every decision refuses.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
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
	sockets  Sockets
	engine   *engine
	feed     *Feed
	selves   *selfAddrs
	own      func(netip.Addr) bool               // isOwn, but in tests whose internet is on loopback
	links    atomic.Pointer[map[netip.Addr]bool] // addresses of every capture link, both ends

	applying sync.Mutex // held by Apply and Shutdown

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
		sockets:  o.Sockets,
		feed:     newFeed(),
		bottles:  map[string]*bottle{},
	}
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

// Apply makes the running bottles what desired says: each one's listeners are opened before its link is, a running
// bottle gets its new plan by one atomic swap, and a bottle that is not in desired is shut, link first. A plan that
// cannot be used leaves the bottle with the plan it has, or not running if it has none; every such error is in the
// returned one, and the other bottles are applied all the same. Apply(ctx, nil) shuts every bottle. It blocks while
// links are set up and removed bottles' flows end.
func (g *Gateway) Apply(ctx context.Context, desired []Bottle) error {
	g.applying.Lock()
	defer g.applying.Unlock()
	if g.isStopped() {
		return ErrStopped
	}
	if err := g.canApply(desired); err != nil {
		return fmt.Errorf("apply bottles: %w", err)
	}
	g.learnLinks(desired)
	var errs []error
	next := map[string]*bottle{}
	for _, d := range desired {
		b, err := g.applyBottle(ctx, d)
		if err != nil {
			errs = append(errs, err)
		}
		if b != nil {
			next[b.name] = b
		}
	}
	if err := g.setLinks(ctx, next); err != nil {
		errs = append(errs, err)
	}
	g.mu.Lock()
	old := g.bottles
	g.bottles = next
	g.mu.Unlock()
	for name, b := range old {
		if next[name] != b {
			b.shut()
		}
	}
	g.learnLinks(nil)
	return errors.Join(errs...)
}

// canApply says what keeps Apply from beginning at all.
func (g *Gateway) canApply(desired []Bottle) error {
	if g.redirect == nil {
		return errors.New("no redirect was given")
	}
	if _, ok := g.audit.(ReadyRecorder); g.required && !ok {
		return errors.New("records are required, but nothing takes them")
	}
	seen := map[string]bool{}
	for _, d := range desired {
		if seen[d.Name] {
			return fmt.Errorf("bottle %s is named twice", d.Name)
		}
		seen[d.Name] = true
	}
	return nil
}

// applyBottle brings one bottle to its desired state, short of its link, and returns the bottle that is to run; nil if
// none can.
func (g *Gateway) applyBottle(ctx context.Context, d Bottle) (*bottle, error) {
	g.mu.RLock()
	old := g.bottles[d.Name]
	g.mu.RUnlock()
	var inForce *snapshot
	if old != nil {
		inForce = old.current()
	}
	var s *snapshot
	err := d.validate()
	if err == nil {
		s, err = newSnapshot(d, inForce)
	}
	if err != nil {
		err = fmt.Errorf("apply bottle %s: %w", d.Name, err)
		g.metrics.planFailed(d.Name)
		if old != nil {
			old.setProblem(err.Error())
		}
		return old, err
	}
	if old != nil && sameLink(old.link, d.Link) && old.denied == d.DeniedDNS {
		old.swap(s)
		old.setProblem("")
		return old, nil
	}
	if old != nil {
		old.shut() // its sockets may be on the addresses that the new one needs; until they are open again, all is dropped
	}
	b := g.newBottle(d, s)
	if err := b.start(ctx); err != nil {
		b.cancel()
		return nil, fmt.Errorf("apply bottle %s: %w", d.Name, err)
	}
	return b, nil
}

// sameLink tells whether two links are the same in every field.
func sameLink(a, b redirect.Link) bool {
	am, bm := a.MAC, b.MAC
	a.MAC, b.MAC = nil, nil
	return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) && slices.Equal(am, bm)
}

// setLinks asks for the links of exactly these bottles.
func (g *Gateway) setLinks(ctx context.Context, next map[string]*bottle) error {
	var c redirect.Config
	for _, b := range next {
		c.Links = append(c.Links, b.link)
	}
	slices.SortFunc(c.Links, func(a, b redirect.Link) int { return cmp.Compare(a.Bottle, b.Bottle) })
	status, err := g.redirect.Set(ctx, c)
	if err != nil {
		return fmt.Errorf("set capture links: %w", err)
	}
	for _, l := range status.Links {
		if l.Err != nil {
			g.log.Warn("capture link stays shut", slog.String("bottle", l.Link.Bottle), slog.String("link", l.Link.Name), slog.Any("error", l.Err))
		}
	}
	return nil
}

// Shutdown ends every flow and closes every listener. The capture links are left as they are, which means shut: without
// a listener the kernel drops new connections. It waits for flows until ctx ends or their drain time is over.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.applying.Lock()
	defer g.applying.Unlock()
	g.mu.Lock()
	g.stopped = true
	bottles := g.bottles
	g.bottles = map[string]*bottle{}
	g.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, b := range bottles {
			wg.Go(b.shut)
		}
		wg.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shut down: %w", ctx.Err())
	}
}

// isStopped tells whether Shutdown was called.
func (g *Gateway) isStopped() bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.stopped
}

// auditReady tells whether a new flow may begin as far as its record is concerned.
func (g *Gateway) auditReady() bool {
	if !g.required {
		return true
	}
	r, ok := g.audit.(ReadyRecorder)
	return ok && r.Ready()
}

// running returns the bottles, by name.
func (g *Gateway) running() []*bottle {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := make([]*bottle, 0, len(g.bottles))
	for _, b := range g.bottles {
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b *bottle) int { return cmp.Compare(a.name, b.name) })
	return out
}

// Flows returns the open flows of all bottles, oldest first. The caller owns the slice.
func (g *Gateway) Flows() []FlowInfo {
	var out []FlowInfo
	for _, b := range g.running() {
		for _, f := range b.open() {
			out = append(out, f.info())
		}
	}
	slices.SortFunc(out, func(a, b FlowInfo) int { return a.Since.Compare(b.Since) })
	return out
}

// Bottles returns the state of all bottles, by name. The caller owns the slice.
func (g *Gateway) Bottles() []BottleInfo {
	links := map[string]redirect.LinkStatus{}
	if g.redirect != nil {
		for _, l := range g.redirect.Status().Links {
			links[l.Link.Bottle] = l
		}
	}
	var out []BottleInfo
	for _, b := range g.running() {
		out = append(out, b.info(links[b.name]))
	}
	return out
}

// Table returns the routes in force of a bottle and the digest of their plan, and false if there is no such bottle.
func (g *Gateway) Table(name string) (*routes.Table, string, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	b := g.bottles[name]
	if b == nil {
		return nil, "", false
	}
	s := b.current()
	return s.table, s.digest, true
}

// Find returns the record with this id, of a flow (f-…), a request (r-…), a name (d-…) or an event (e-…), if it is
// among the last few thousand of its bottle.
func (g *Gateway) Find(id string) (Record, bool) {
	for _, b := range g.running() {
		if r, ok := b.ring.Find(id); ok {
			return r, true
		}
	}
	return Record{}, false
}

// Recent returns up to n of the newest records of a bottle, oldest first; "" means all bottles.
func (g *Gateway) Recent(name string, n int) []Record {
	var out []Record
	for _, b := range g.running() {
		if name == "" || name == b.name {
			out = append(out, b.ring.Recent(n)...)
		}
	}
	slices.SortStableFunc(out, func(a, b Record) int { return a.Time.Compare(b.Time) })
	return out[max(0, len(out)-n):]
}

// Subscribe returns a subscription to every record from now on, with room for buffer records that were not yet
// received. What finds no room is dropped for this subscriber and counted. The caller must Close it.
func (g *Gateway) Subscribe(buffer int) *Subscription { return g.feed.subscribe(buffer) }
