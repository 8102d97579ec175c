package gateway

import (
	"cmp"
	"slices"

	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
)

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
		out = append(out, b.fastFlows()...)
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
	fast := g.countFast()
	var out []BottleInfo
	for _, b := range g.running() {
		out = append(out, b.info(links[b.name], fast[b.name]))
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
