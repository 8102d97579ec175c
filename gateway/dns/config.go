package dns

import (
	"log/slog"
	"net/netip"
	"time"

	"gatewayd/gateway/routes"
)

// Policy is what the server asks of a bottle's current plan.
type Policy interface {
	// Resolve tells whether name (canonical) is in the plan, and by which rule.
	Resolve(name string) (routes.NameRule, bool)
	// Check returns nil when a guest may be told addr; allowPrivate is the rule's.
	Check(addr netip.Addr, allowPrivate bool) error
}

// PacketConn is the UDP side of a bottle's resolver. src is the guest, dst is the address that the guest called, which need
// not be the gateway's own; replies go from dst to src. Close makes a blocked ReadFrom return an error with net.ErrClosed in it.
type PacketConn interface {
	ReadFrom(b []byte) (n int, src, dst netip.AddrPort, err error)
	WriteTo(b []byte, src, dst netip.AddrPort) (int, error)
	Close() error
}

// Config is what a Server is made of. A number that is zero or less means its default.
type Config struct {
	// Bottle is the bottle's name, for events.
	Bottle string
	// Policy returns the bottle's current plan; called once per query. nil, and a nil result, deny every name.
	Policy func() Policy
	// Upstream answers for names of the plan. nil makes them SERVFAIL.
	Upstream *Resolver
	// Pins take what the guest is told, before it is told. nil makes every planned name SERVFAIL.
	Pins *Pins
	// Pinned, when set, is called after Pins took an answer and before the guest gets it: the place to write a kernel map. ttl
	// is what the guest is told, without the grace of Pins. An error becomes SERVFAIL. It may be called from many goroutines.
	Pinned func(name string, addrs []netip.Addr, ttl time.Duration) error
	// Inspect, when set, sees each name that only a wildcard allows before anything is asked upstream, and the labels that the
	// wildcard stands for. An error refuses the name and is told in an event of kind Leak. It may be called from many goroutines.
	Inspect func(name, labels string) error
	// Block is what names outside the plan resolve to; an address that is not IPv4, the zero Addr too, makes them NXDOMAIN.
	Block netip.Addr
	// Answered is what names resolve to that the gateway answers for by itself, and for which nothing is asked upstream; an
	// address that is not IPv4, the zero Addr too, makes them SERVFAIL.
	Answered netip.Addr
	// QueriesPerSecond is the bottle's sustained rate of queries (default 100). What is over is dropped.
	QueriesPerSecond float64
	// Burst is how many queries may come at once (default 400).
	Burst int
	// NewNamesPerMinute is how many names not asked lately may be asked under wildcards (default 120). What is over is REFUSED.
	NewNamesPerMinute int
	// Concurrent is how many UDP queries may wait for upstream at a time (default 32). What is over is dropped.
	Concurrent int
	// TCPConns is how many TCP connections may be open at a time (default 16). What is over is closed.
	TCPConns int
	// Event, when set, hears of what was denied or failed: bounded in rate, repetitions as a count. It must not block, and may
	// be called from many goroutines.
	Event func(Event)
	// Log gets what an operator must know; nil discards.
	Log *slog.Logger
}

// withDefaults returns the configuration with the zero fields filled in.
func (c Config) withDefaults() Config {
	orDefault := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if c.QueriesPerSecond <= 0 {
		c.QueriesPerSecond = 100
	}
	orDefault(&c.Burst, 400)
	orDefault(&c.NewNamesPerMinute, 120)
	orDefault(&c.Concurrent, 32)
	orDefault(&c.TCPConns, 16)
	if c.Event == nil {
		c.Event = func(Event) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Block = c.Block.Unmap(); !c.Block.Is4() {
		c.Block = netip.Addr{}
	}
	c.Answered = c.Answered.Unmap()
	return c
}
