package gateway

import (
	"fmt"
	"log/slog"
	"net/netip"

	"gatewayd/gateway/dns"
	"gatewayd/gateway/routes"
)

// dnsConfig returns what the bottle's name server is made of.
func (b *bottle) dnsConfig() dns.Config {
	c := dns.Config{
		Bottle:   b.name,
		Policy:   func() dns.Policy { return namePolicy{b.current(), b.g} },
		Upstream: b.g.resolver,
		Pins:     b.pins,
		Inspect:  b.inspectName,
		Pinned:   b.pinFast,
		Event:    b.nameEvent,
		Answered: blockAddress,
		Log:      b.log,
	}
	if b.denied != DeniedNXDomain {
		c.Block = blockAddress
	}
	return c
}

// inspectName refuses a name under a wildcard that carries a token.
func (b *bottle) inspectName(name, _ string) error {
	if found := b.current().nameLeak(name); found != "" {
		return fmt.Errorf("the name carries a token: %s", found)
	}
	return nil
}

// namePolicy is what the name server may ask of a plan.
type namePolicy struct {
	s *snapshot
	g *Gateway
}

// Resolve tells whether name is in the plan.
func (p namePolicy) Resolve(name string) (routes.NameRule, bool) { return p.s.table.Resolve(name) }

// Check tells whether a guest may be told addr.
func (p namePolicy) Check(addr netip.Addr, allowPrivate bool) error {
	return p.g.checkAddr(addr, allowPrivate)
}

// nameEvent turns what the name server reports into a record.
func (b *bottle) nameEvent(e dns.Event) {
	b.record(Record{
		Time: e.Time.UTC(), Type: RecordDNS, ID: newID("d-"), Bottle: b.name, Plan: b.current().digest,
		Host: e.Name, Lane: LaneNone, Reason: routes.Reason("dns_" + e.Kind.String()), Error: e.Detail,
		Method: e.Type, Count: e.Count,
	})
}

// serveNames runs one name server until the bottle is shut. If it ends before, the bottle's names fail closed: nothing
// resolves and nothing new is pinned.
func (b *bottle) serveNames(network string, serve func() error) {
	if err := serve(); err != nil && b.taking.Err() == nil {
		b.lost.Store(true)
		b.g.metrics.listenerLost(b.name, "dns_"+network)
		b.log.Error("name server ended; names of this bottle fail until it is applied again", slog.String("network", network), slog.Any("error", err))
	}
}
