package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"gatewayd/gateway/routes"
)

// Policy is what the server asks of a bottle's current plan.
type Policy interface {
	// Resolve tells whether name (canonical) is in the plan, and by which rule.
	Resolve(name string) (routes.NameRule, bool)
	// Check returns nil when a guest may be told addr.
	Check(addr netip.Addr, allowPrivate bool) error
}

// PacketConn is the UDP side of a bottle's resolver. src is the guest, dst is the address that the guest called, which need
// not be the gateway's own; replies go from dst to src.
type PacketConn interface {
	ReadFrom(b []byte) (n int, src, dst netip.AddrPort, err error)
	WriteTo(b []byte, src, dst netip.AddrPort) (int, error)
	Close() error
}

// Config is what a Server is made of. Policy, Upstream and Pins are required; a zero number means its default.
type Config struct {
	// Bottle is the bottle's name, for events.
	Bottle string
	// Policy returns the bottle's current plan; called once per query. A nil result denies every name.
	Policy func() Policy
	// Upstream answers for names of the plan.
	Upstream *Resolver
	// Pins take what the guest is told, before it is told.
	Pins *Pins
	// Pinned, when set, is called after Pins took an answer and before the guest gets it: the place to write a kernel map.
	// An error becomes SERVFAIL.
	Pinned func(name string, addrs []netip.Addr, ttl time.Duration) error
	// Inspect, when set, sees each name that only a wildcard allows before anything is asked upstream, with the labels that
	// the wildcard stands for. An error refuses the name and is reported.
	Inspect func(name, labels string) error
	// Block is what names outside the plan resolve to; the zero Addr makes them NXDOMAIN. Must be IPv4.
	Block netip.Addr
	// QueriesPerSecond is the bottle's sustained rate of queries (default 100). What is over is dropped.
	QueriesPerSecond float64
	// Burst is how many queries may come at once (default 400).
	Burst int
	// NewNamesPerMinute is how many names not seen lately may be asked under wildcards (default 120).
	NewNamesPerMinute int
	// TCPConns is how many TCP connections may be open at a time (default 32).
	TCPConns int
	// Event, when set, hears of denied and dropped queries: bounded in rate, coalesced. Must not block.
	Event func(Event)
	// Log gets what an operator must know; nil discards.
	Log *slog.Logger
}

// EventKind says what an Event reports.
type EventKind uint8

// The kinds of Event.
const (
	// Denied: a name outside the plan.
	Denied EventKind = iota + 1
	// Refused: a question that is never answered (type, class, name not canonical).
	Refused
	// Encoded: a name under a wildcard whose labels look like carried data, or that Inspect refused.
	Encoded
	// NewNames: the budget of new names under wildcards is used up.
	NewNames
	// Filtered: addresses of a planned name were private or special, and withheld.
	Filtered
	// Failed: the lookup or the pin failed.
	Failed
)

// String returns the kind as one lower-case word, fit for a metric label.
func (k EventKind) String() string {
	switch k {
	case Denied:
		return "denied"
	case Refused:
		return "refused"
	case Encoded:
		return "encoded"
	case NewNames:
		return "new_names"
	case Filtered:
		return "filtered"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// Event is one thing worth a record about a bottle's queries.
type Event struct {
	// Time is when the last of Count happened.
	Time time.Time
	// Bottle is Config.Bottle.
	Bottle string
	// Kind says what happened.
	Kind EventKind
	// Name is the canonical name asked for, or a quoted form of one that is not canonical.
	Name string
	// Type is the question's type as text: "A", "TXT", "TYPE65280".
	Type string
	// Detail says why, in words.
	Detail string
	// Count is how many such queries this event stands for, at least 1.
	Count uint64
}

// Server is the resolver of one bottle.
type Server struct{ cfg Config }

// NewServer returns a server for cfg. It starts nothing.
func NewServer(cfg Config) *Server { return &Server{cfg: cfg} }

// ServeUDP answers queries from c until ctx ends, then closes c, waits for the queries in hand, and returns nil; a failing c
// ends it earlier with that error.
func (s *Server) ServeUDP(ctx context.Context, c PacketConn) error {
	return errors.New("serve dns: not written")
}

// ServeTCP answers queries on connections accepted from l until ctx ends, then closes l and all connections, waits, and
// returns nil; a failing l ends it earlier with that error.
func (s *Server) ServeTCP(ctx context.Context, l net.Listener) error {
	return errors.New("serve dns: not written")
}

// Handle answers one message as over UDP; nil means that nothing is to be sent. It blocks while a lookup runs.
func (s *Server) Handle(msg []byte) (reply []byte) { return nil }
