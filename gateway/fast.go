package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
)

// Why a flow on the fast path was refused, beyond what the other lanes have words for.
const (
	ReasonFastName   routes.Reason = "fast_name"     // a name that was not resolved to this address, or does not pass through
	ReasonFastEarly  routes.Reason = "fast_early"    // TLS early data, behind which another hello could hide; the relay takes it
	ReasonFastChange routes.Reason = "fast_changed"  // other bytes where a judged hello was
	ReasonFastOption routes.Reason = "fast_option"   // urgent data or a TCP option that could make the upstream see other bytes
	ReasonPeerReset  routes.Reason = "reset"         // either side reset the connection
	ReasonReplaced   routes.Reason = "replaced"      // a new connection took the same addresses and ports
	ReasonFastLost   routes.Reason = "fast_lost"     // connection tracking has forgotten how the flow was translated
	ReasonFastSplit  routes.Reason = "fast_no_hello" // no hello in one TLS record; the relay takes others
)

// fastWithdrawn is how long an address stays with the relay after the fast path refused a connection to it, or had no answer
// for one.
const fastWithdrawn = 10 * time.Minute

// fastCollect is how often flows that are over are looked for.
const fastCollect = time.Second

// FastPath is a Redirector that lets the kernel carry passed-through flows by itself. *redirect.Redirect satisfies it.
type FastPath interface {
	// SetFast makes pins all that the bottle's new connections may be to addr.
	SetFast(bottle string, addr netip.Addr, pins []redirect.FastPin) error
	// RevokeFast cuts the flows, and withdraws the pins, for which keep is false.
	RevokeFast(bottle string, keep func(name string, port uint16) bool) error
	// FastFlows are the bottle's open flows.
	FastFlows(bottle string) ([]redirect.FastFlow, error)
	// CountFast is how many flows are open, by bottle.
	CountFast() (map[string]int, error)
	// CollectFast ends flows that are over.
	CollectFast() error
	// FastEvents hands over each flow that is over, until ctx ends.
	FastEvents(ctx context.Context, handle func(redirect.FastEvent)) error
}

// startFast begins to look after the fast path, once, if the redirect has one.
func (g *Gateway) startFast() {
	if g.fast == nil || g.fastStop != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.fastStop = cancel
	g.fastRuns.Go(func() {
		if err := g.fast.FastEvents(ctx, g.fastOver); err != nil {
			g.log.Error("flows of the fast path are not recorded", slog.Any("error", err))
		}
	})
	g.fastRuns.Go(func() { g.collectFast(ctx) })
}

// stopFast ends what startFast began. The kernel's flows go on.
func (g *Gateway) stopFast() {
	if g.fastStop != nil {
		g.fastStop()
		g.fastRuns.Wait()
	}
}

// collectFast has flows that are over collected until ctx ends. While records are required and cannot be taken, no new
// flow may take the fast path either.
func (g *Gateway) collectFast(ctx context.Context) {
	tick := time.NewTicker(fastCollect)
	defer tick.Stop()
	ready := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := g.fast.CollectFast(); err != nil {
			g.log.Error("flows of the fast path are not collected", slog.Any("error", err))
		}
		if now := g.auditReady(); now != ready {
			ready = now
			for _, b := range g.running() {
				b.refreshFast()
			}
		}
	}
}

// pinFast lets new connections to addrs take the fast path, if everything that the bottle knows of them allows it. What
// does not work is no failure: the relay serves such connections.
func (b *bottle) pinFast(_ string, addrs []netip.Addr, _ time.Duration) error {
	b.fastMu.Lock()
	defer b.fastMu.Unlock()
	b.recall()
	for _, a := range addrs {
		b.setFast(a)
	}
	return nil
}

// refreshFast makes the kernel's permissions what the plan in force says: flows to names that no longer pass through are
// cut before it returns, the others go on.
func (b *bottle) refreshFast() {
	b.fastMu.Lock()
	defer b.fastMu.Unlock()
	b.recall()
	if b.g.fast == nil {
		return
	}
	s := b.current()
	err := b.g.fast.RevokeFast(b.name, func(name string, port uint16) bool {
		return !b.isTripped() && s.table.DecideFlow(name, port, routes.HTTPS).Decision == routes.Passthrough
	})
	if err != nil && !errors.Is(err, redirect.ErrUnknownBottle) {
		b.log.Error("flows of the fast path were not judged by the new plan", slog.Any("error", err))
	}
	for _, a := range b.pins.Addrs() {
		b.setFast(a)
	}
}

// setFast tells the kernel what may be called at addr, and remembers what that hangs on. The caller holds fastMu.
func (b *bottle) setFast(addr netip.Addr) {
	b.remember(addr)
	if b.g.fast == nil {
		return
	}
	if err := b.g.fast.SetFast(b.name, addr, b.fastPins(addr)); err != nil {
		b.log.Debug("the relay serves an address", slog.String("address", addr.String()), slog.Any("error", err))
		if err := b.g.fast.SetFast(b.name, addr, nil); err != nil && !errors.Is(err, redirect.ErrUnknownBottle) {
			b.log.Error("a pin was not withdrawn", slog.String("address", addr.String()), slog.Any("error", err))
		}
	}
}

// fastPins returns what may be called at addr without a proxy. An address at which a name lives that does not pass
// through has none: clients reuse a connection for every name at its address (RFC 9113 section 9.1.1).
func (b *bottle) fastPins(addr netip.Addr) []redirect.FastPin {
	if !b.recalled || b.isTripped() || time.Now().Before(b.fastNot[addr]) || !b.g.auditReady() || b.g.checkAddr(addr, false) != nil {
		return nil
	}
	s, names := b.current(), b.pins.At(addr)
	var out []redirect.FastPin
	for port := range s.httpsPorts {
		pins := make([]redirect.FastPin, 0, len(names))
		for _, n := range names {
			v := s.table.DecideFlow(n.Name, port, routes.HTTPS)
			if v.Decision == routes.Passthrough {
				pins = append(pins, redirect.FastPin{Name: n.Name, Port: port, For: time.Until(n.Expires)})
			}
		}
		if len(pins) == len(names) {
			out = append(out, pins...)
		}
	}
	return out
}

// withdrawFast leaves addr to the relay for a while.
func (b *bottle) withdrawFast(addr netip.Addr) {
	b.fastMu.Lock()
	defer b.fastMu.Unlock()
	now := time.Now()
	for a, until := range b.fastNot {
		if now.After(until) {
			delete(b.fastNot, a)
		}
	}
	b.fastNot[addr] = now.Add(fastWithdrawn)
	b.setFast(addr)
}

// fastOver records a flow that the kernel carried and that is over.
func (g *Gateway) fastOver(e redirect.FastEvent) {
	r := fastRecord(e)
	g.mu.RLock()
	b := g.bottles[e.Flow.Bottle]
	g.mu.RUnlock()
	if b == nil { // it was taken away, which is what ended the flow
		g.publish(&r)
		return
	}
	if e.Refused && r.Reason != ReasonRevoked && r.Reason != ReasonFastLost || unanswered(e) {
		b.withdrawFast(e.Flow.Dst.Addr())
	}
	s := b.current()
	r.Plan = s.digest
	if e.Flow.Verified {
		r.Rule = s.table.DecideFlow(e.Flow.Name, r.Port, routes.HTTPS).Rule
	}
	b.record(&r)
}

// unanswered tells a flow of which nothing ever came back. The upstream may be gone, or all the ports be taken that
// connections to it are translated to; the relay has ports of its own, and words for what is wrong.
func unanswered(e redirect.FastEvent) bool {
	return e.Reason == redirect.FastHelloTimeout && e.Flow.DownPackets == 0
}

// fastRecord returns the record of a flow that is over, short of what a plan says.
func fastRecord(e redirect.FastEvent) Record {
	why := fastReason(e.Reason)
	r := Record{
		Time: time.Now().UTC(), Type: RecordFlow, ID: "f-" + e.Flow.ID, Bottle: e.Flow.Bottle,
		Src: e.Flow.Src, Dst: e.Flow.Dst, Upstream: e.Flow.Dst, Host: e.Flow.Name, Port: e.Flow.Dst.Port(), Protocol: routes.HTTPS,
		Lane: LaneFastPath, Reason: why, BytesUp: int64(e.Flow.UpBytes), BytesDown: int64(e.Flow.DownBytes),
		PacketsUp: int64(e.Flow.UpPackets), PacketsDown: int64(e.Flow.DownPackets),
		DurationMS: max(0, e.Flow.Seen.Sub(e.Flow.Began).Milliseconds()),
	}
	if e.Flow.Verified {
		r.Decision = routes.Passthrough
	}
	if e.Refused {
		r.Error = "fast path: " + e.Reason.String()
		if why != ReasonRevoked {
			r.Decision = routes.Deny
		}
	}
	return r
}

// fastReason gives the reason of a record for one of the kernel's.
func fastReason(r redirect.FastReason) routes.Reason {
	switch r {
	case redirect.FastClosed:
		return routes.RouteMatched
	case redirect.FastNotTLS:
		return ReasonNotTLS
	case redirect.FastMalformed, redirect.FastTooLarge:
		return ReasonFastSplit
	case redirect.FastNoName:
		return ReasonNoName
	case redirect.FastName:
		return ReasonFastName
	case redirect.FastEarlyData:
		return ReasonFastEarly
	case redirect.FastChanged:
		return ReasonFastChange
	case redirect.FastUrgent, redirect.FastOption:
		return ReasonFastOption
	case redirect.FastRevoked:
		return ReasonRevoked
	case redirect.FastReset:
		return ReasonPeerReset
	case redirect.FastIdle:
		return ReasonIdle
	case redirect.FastHelloTimeout:
		return ReasonHelloTimeout
	case redirect.FastReplaced:
		return ReasonReplaced
	case redirect.FastLost:
		return ReasonFastLost
	}
	return ReasonInternal
}

// countFast returns how many flows the kernel carries, by bottle.
func (g *Gateway) countFast() map[string]int {
	if g.fast == nil {
		return nil
	}
	counts, err := g.fast.CountFast()
	if err != nil && !errors.Is(err, redirect.ErrClosed) {
		g.log.Warn("flows of the fast path are not counted", slog.Any("error", err))
	}
	return counts
}

// fastFlows returns the flows that the kernel carries for the bottle.
func (b *bottle) fastFlows() []FlowInfo {
	if b.g.fast == nil {
		return nil
	}
	flows, err := b.g.fast.FastFlows(b.name)
	if err != nil && !errors.Is(err, redirect.ErrUnknownBottle) {
		b.log.Warn("flows of the fast path are not listed", slog.Any("error", err))
	}
	out := make([]FlowInfo, 0, len(flows))
	for _, f := range flows {
		i := FlowInfo{
			ID: "f-" + f.ID, Bottle: b.name, Src: f.Src, Dst: f.Dst, Upstream: f.Dst, Host: f.Name, Port: f.Dst.Port(),
			Protocol: routes.HTTPS, Lane: LaneFastPath, Since: f.Began, BytesUp: int64(f.UpBytes), BytesDown: int64(f.DownBytes),
		}
		if f.Verified {
			v := b.current().table.DecideFlow(f.Name, i.Port, routes.HTTPS)
			i.Decision, i.Rule, i.Reason = v.Decision, v.Rule, v.Reason
		}
		out = append(out, i)
	}
	return out
}
