package gateway

import (
	"errors"
	"log/slog"
	"net/netip"

	"gatewayd/gateway/dns"
	"gatewayd/gateway/routes"
)

// dnsConfig returns what the bottle's name server is made of.
func (b *bottle) dnsConfig() dns.Config {
	c := dns.Config{
		Bottle:   b.name,
		Policy:   func() dns.Policy { return namePolicy{b.current(), b} },
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

// inspectName refuses a name under a wildcard that carries a token, with the finding.
func (b *bottle) inspectName(name, _ string) error {
	if found := b.current().nameLeak(name); found != "" {
		return errors.New(found)
	}
	return nil
}

// namePolicy is what the name server may ask of a plan.
type namePolicy struct {
	s *snapshot
	b *bottle
}

// Resolve tells whether name is in the plan. For a bottle that is cut off none is that it can make up.
func (p namePolicy) Resolve(name string) (routes.NameRule, bool) {
	rule, ok := p.s.table.Resolve(name)
	if ok && rule.Wildcard && p.b.isTripped() {
		return routes.NameRule{}, false
	}
	return rule, ok
}

// Check tells whether a guest may be told addr.
func (p namePolicy) Check(addr netip.Addr, allowPrivate bool) error {
	return p.b.g.checkAddr(addr, allowPrivate)
}

// nameEvent turns what the name server reports into a record. A name that carries a token goes into none, also where it would
// have left for nobody.
func (b *bottle) nameEvent(e dns.Event) {
	s := b.current()
	r := Record{
		Time: e.Time.UTC(), Type: RecordDNS, ID: newID("d-"), Bottle: b.name, Plan: s.digest,
		Host: e.Name, Lane: LaneNone, Reason: routes.Reason("dns_" + e.Kind.String()), Error: e.Detail,
		Method: e.Type, Count: e.Count,
	}
	_, planned := s.table.Resolve(e.Name)
	switch {
	case e.Kind == dns.Leak:
		r.Reason, r.Host, r.Finding, r.Error = ReasonLeak, "", e.Detail, ""
	case s.nameLeak(e.Name) != "":
		r.Host = ""
	case planned && e.Kind == dns.Denied: // see namePolicy
		r.Reason, r.Error = ReasonTripped, ""
	}
	b.record(&r)
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
