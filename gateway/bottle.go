package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gatewayd/gateway/dns"
	"gatewayd/gateway/formats"
	"gatewayd/gateway/inject"
	"gatewayd/gateway/pipelock"
	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
)

// How names outside the plan are answered, as [Bottle].DeniedDNS.
const (
	DeniedBlock    = "block"    // with BlockAddress, so that the client meets an explanation
	DeniedNXDomain = "nxdomain" // with NXDOMAIN
)

// blockAddress is what a name outside the plan resolves to: an address of TEST-NET-1 (RFC 5737), which nobody has. A
// connection to it is captured like any other, refused by its name and explained; were it ever to leave the host, it
// would reach nothing.
var blockAddress = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// Bottle is the desired state of one bottle.
type Bottle struct {
	Name         string                  // unique among the bottles of a gateway
	Link         redirect.Link           // its capture link; Link.Bottle must be Name
	Table        *routes.Table           // what it may do; never nil
	PlanDigest   string                  // goes into every record
	CA           *gwtls.CA               // makes its leaves; nil means that nothing can be intercepted or explained
	DeniedDNS    string                  // DeniedBlock (also "") or DeniedNXDomain
	Answerers    map[string]http.Handler // by Route.Answer
	Trip         int                     // blocked leaks that cut the bottle off; 0 is no end
	Formats      *formats.Set            // what tokens look like that must not leave; nil looks for none
	CanaryTokens []pipelock.Token        // tokens that may go to their homes only, besides the dummies of the routes
	Secrets      []inject.Held           // secrets of the host that must not leave, besides those of the routes
}

// validate says what keeps b from being run at all.
func (b Bottle) validate() error {
	switch {
	case b.Name == "":
		return errors.New("validate bottle: it has no name")
	case b.Table == nil:
		return fmt.Errorf("validate bottle %s: it has no route table", b.Name)
	case b.Link.Bottle != b.Name:
		return fmt.Errorf("validate bottle %s: its link is of bottle %q", b.Name, b.Link.Bottle)
	case b.Trip < 0:
		return fmt.Errorf("validate bottle %s: it may not be cut off after %d leaks", b.Name, b.Trip)
	case b.DeniedDNS != "" && b.DeniedDNS != DeniedBlock && b.DeniedDNS != DeniedNXDomain:
		return fmt.Errorf("validate bottle %s: denied names %q: write %s or %s", b.Name, b.DeniedDNS, DeniedBlock, DeniedNXDomain)
	}
	return b.Link.Validate()
}

// BottleInfo is the state of one bottle.
type BottleInfo struct {
	Name   string        `json:"name"`
	Plan   string        `json:"plan"`
	Link   redirect.Link `json:"link"`
	Routes int           `json:"routes"`
	Flows  int           `json:"flows"`
	Pins   int           `json:"pins"`
	Since  time.Time     `json:"since"`
	// Up says that the link is attached and up; LinkError says why not.
	Up        bool   `json:"up"`
	LinkError string `json:"link_error,omitempty"`
	// PlanError is why the newest plan was not taken; the one named by Plan is in force.
	PlanError string `json:"plan_error,omitempty"`
	// CutOff says that the bottle tried too often to leak: everything of it is denied until [Gateway.Release].
	CutOff bool `json:"cut_off,omitempty"`
}

// bottle is one running bottle: its sockets, its plan and its flows.
type bottle struct {
	g      *Gateway
	name   string
	link   redirect.Link
	denied string
	log    *slog.Logger
	since  time.Time

	plan   atomic.Pointer[snapshot]
	engine *engine
	pins   *dns.Pins
	dial   *dialer
	up     *upstream
	meter  *meter
	trip   trip
	ring   *Ring

	ctx    context.Context // ends when the bottle is shut
	cancel context.CancelFunc
	taking context.Context // ends when the bottle takes no new flow and no new request; before ctx, or with it
	stop   context.CancelFunc
	served sync.WaitGroup // accept loops, name servers
	flown  sync.WaitGroup // flows
	swept  sync.WaitGroup // sweeper

	listens bool // its socket for flows was opened; guarded by Gateway.applying

	fastMu   sync.Mutex               // orders what the kernel is told of pins and plans
	fastNot  map[netip.Addr]time.Time // until when the relay serves an address that the fast path refused
	recalled bool                     // what an earlier process told is among pins; guarded by fastMu
	known    chan struct{}            // closed when recalled is set

	lost atomic.Bool // a listener ended by itself: the next Apply makes the bottle anew

	mu      sync.Mutex
	flows   map[*flow]struct{}
	problem string // why the newest plan was not taken
	over    map[routes.Reason]excess
}

// newBottle returns the bottle of b with the plan s, not yet serving.
func (g *Gateway) newBottle(b Bottle, s *snapshot) *bottle {
	log := g.log.With(slog.String("bottle", b.Name))
	ctx, cancel := context.WithCancel(context.Background())
	taking, stop := context.WithCancel(ctx)
	n := &bottle{
		g: g, name: b.Name, link: b.Link, denied: b.DeniedDNS, log: log, since: time.Now(),
		engine: g.engine,
		pins:   dns.NewPins(dns.Limits{}),
		dial:   &dialer{names: g.names, check: g.checkAddr, waits: g.waits},
		meter:  newMeter(g.budget),
		ring:   NewRing(ringSize),
		ctx:    ctx, cancel: cancel,
		taking: taking, stop: stop,
		flows:   map[*flow]struct{}{},
		fastNot: map[netip.Addr]time.Time{},
		known:   make(chan struct{}),
		over:    map[routes.Reason]excess{},
	}
	n.up = newUpstream(n.dial, g.roots, g.waits, defaultBounds)
	n.plan.Store(s)
	n.trip.tripped.Store(g.trips != nil && g.trips.Tripped(b.Name))
	return n
}

// current returns the plan in force. Load it once for each decision.
func (b *bottle) current() *snapshot { return b.plan.Load() }

// swap puts s in force and ends the flows that it no longer allows.
func (b *bottle) swap(s *snapshot) {
	b.plan.Store(s)
	b.up.keep(s)
	b.revoke(s)
}

// start opens the bottle's sockets for names and begins to answer. On error nothing is left open.
func (b *bottle) start(ctx context.Context) error {
	addr := netip.AddrPortFrom(b.link.Gateway, b.link.DNSPort)
	tcp, err := b.g.sockets.ListenTCP(ctx, addr)
	if err != nil {
		return fmt.Errorf("listen for names of bottle %s: %w", b.name, err)
	}
	udp, err := b.g.sockets.ListenUDP(ctx, addr)
	if err != nil {
		tcp.Close()
		return fmt.Errorf("listen for names of bottle %s: %w", b.name, err)
	}
	server := dns.NewServer(b.dnsConfig())
	b.served.Go(func() { b.serveNames("tcp", func() error { return server.ServeTCP(b.taking, tcp) }) })
	b.served.Go(func() { b.serveNames("udp", func() error { return server.ServeUDP(b.taking, udp) }) })
	b.swept.Go(b.sweepLoop)
	return nil
}

// listen opens the bottle's socket for flows, once, and begins to take them. The kernel drops every new connection of the bottle
// until then, those to pinned addresses too.
func (b *bottle) listen(ctx context.Context) error {
	if b.listens {
		return nil
	}
	l, err := b.g.sockets.ListenTCP(ctx, netip.AddrPortFrom(b.link.Gateway, b.link.InterceptPort))
	if err != nil {
		return fmt.Errorf("listen for flows of bottle %s: %w", b.name, err)
	}
	b.listens = true
	b.served.Go(func() { b.accept(l) })
	return nil
}

// record takes out of r what must not be in a record, and hands it to everything that takes records. It does not block, and
// keeps nothing of r but copies.
func (b *bottle) record(r *Record) {
	if r.Reason == ReasonLeak {
		b.leaked()
	}
	b.current().known.redact(r)
	b.ring.put(r)
	b.g.publish(r)
}

// publish hands r to everything that takes the records of all bottles. It does not block.
func (g *Gateway) publish(r *Record) {
	g.metrics.record(r)
	g.feed.publish(r)
	if g.audit != nil {
		g.audit.Record(*r)
	}
}

// sweepLoop looks after relayed flows until the bottle is shut.
func (b *bottle) sweepLoop() {
	tick := time.NewTicker(b.g.waits.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case now := <-tick.C:
			for _, f := range b.open() {
				f.sweep(now, b.g.waits.RelayIdle, b.g.waits.HalfCloseIdle)
			}
		}
	}
}

// open returns the flows that are open now.
func (b *bottle) open() []*flow {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]*flow, 0, len(b.flows))
	for f := range b.flows {
		out = append(out, f)
	}
	return out
}

// drain closes the sockets, and lets every flow end with what is under way on it: idle connections end at once, requests,
// WebSocket connections and relays when they are over. It blocks until all have ended or ctx has, and returns how many are left.
func (b *bottle) drain(ctx context.Context) int {
	b.stop()
	done := make(chan struct{})
	go func() { // until shut, if need be
		defer close(done)
		b.served.Wait() // no flow begins after it
		for _, f := range b.open() {
			f.abortUndecided()
		}
		b.flown.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return len(b.open())
}

// shut closes the sockets, ends every flow and waits for them, for as long as Drain. The bottle is of no use after it.
func (b *bottle) shut() {
	b.cancel()
	done := make(chan struct{})
	go func() {
		b.served.Wait()
		b.swept.Wait()
		b.flown.Wait()
		close(done)
	}()
	timer := time.NewTimer(b.g.waits.Drain)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		b.log.Warn("flows are slow to end", slog.Int("flows", len(b.open())))
	}
	b.up.close()
}

// info returns the bottle's state; link is what is known of its link, and fast how many flows the kernel carries for it.
func (b *bottle) info(link redirect.LinkStatus, fast int) BottleInfo {
	s := b.current()
	b.mu.Lock()
	defer b.mu.Unlock()
	i := BottleInfo{
		Name: b.name, Plan: s.digest, Link: b.link, Routes: len(s.table.Routes()), Flows: len(b.flows) + fast,
		Pins: len(b.pins.Snapshot()), Since: b.since, Up: link.Up, PlanError: b.problem, CutOff: b.isTripped(),
	}
	if link.Err != nil {
		i.LinkError = link.Err.Error()
	}
	return i
}

// setProblem notes why the newest plan was not taken, or "" that it was.
func (b *bottle) setProblem(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problem = s
}
