package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"gatewayd/gateway/redirect"
)

// Apply makes the running bottles what desired says: a new one's names are answered before its link is up, and its flows
// taken once the kernel knows which of them it may carry; a running bottle gets its new plan by one atomic swap, and a
// bottle that is not in desired is shut, link first. A plan that
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
	clashes := g.clashes(desired)
	for _, d := range desired {
		b, err := g.applyBottle(ctx, d, clashes[d.Name])
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
	if err := g.openBottles(ctx, next); err != nil {
		errs = append(errs, err)
	}
	g.mu.Lock()
	old := g.bottles
	g.bottles = next
	g.mu.Unlock()
	g.startFast() // by now it is known whose the flows are that ended while no process was there
	for name, b := range old {
		if next[name] != b {
			b.shut()
		}
	}
	g.learnLinks(nil)
	return errors.Join(errs...)
}

// openBottles has bottles whose links are up take flows: what the kernel may carry it knows by then, so that none of that
// takes the relay. A bottle that cannot is taken from next, with its link.
func (g *Gateway) openBottles(ctx context.Context, next map[string]*bottle) error {
	var errs []error
	for name, b := range next {
		b.refreshFast()
		if err := b.listen(ctx); err != nil {
			errs = append(errs, fmt.Errorf("apply bottle %s: %w", name, err))
			delete(next, name)
			defer b.shut()
		}
	}
	if len(errs) > 0 {
		errs = append(errs, g.setLinks(ctx, next))
	}
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

// clashes gives an error for each bottle whose link has what is another's. What a bottle has already, it keeps: a link
// whose addresses somebody else chooses could otherwise shut any other.
func (g *Gateway) clashes(desired []Bottle) map[string]error {
	found := map[string]error{}
	var held []redirect.Link
	take := func(d Bottle) {
		for _, h := range held {
			if err := d.Link.Clash(h); err != nil {
				found[d.Name] = err
				return
			}
		}
		held = append(held, d.Link)
	}
	settled := func(d Bottle) bool {
		g.mu.RLock()
		defer g.mu.RUnlock()
		b := g.bottles[d.Name]
		return b != nil && sameLink(b.link, d.Link)
	}
	for _, first := range []bool{true, false} {
		for _, d := range desired {
			if settled(d) == first && d.validate() == nil { // one that is not valid is refused for that
				take(d)
			}
		}
	}
	return found
}

// applyBottle brings one bottle to its desired state, short of its link, and returns the bottle that is to run; nil if
// none can. It cannot if its link clashes with another's.
func (g *Gateway) applyBottle(ctx context.Context, d Bottle, clash error) (*bottle, error) {
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
		err = clash
	}
	if err == nil {
		s, err = newSnapshot(d, inForce, g.log.With(slog.String("bottle", d.Name)))
	}
	if err != nil {
		err = fmt.Errorf("apply bottle %s: %w", d.Name, err)
		g.metrics.planFailed(d.Name)
		if old != nil {
			old.setProblem(err.Error())
		}
		return old, err
	}
	if old != nil && !old.lost.Load() && sameLink(old.link, d.Link) && old.denied == d.DeniedDNS {
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
	said := map[string]string{}
	for _, l := range status.Links {
		if l.Err == nil {
			continue
		}
		why := l.Err.Error()
		if said[l.Link.Bottle] = why; g.shutSaid[l.Link.Bottle] != why { // Apply may be called again and again meanwhile
			g.log.Warn("capture link stays shut", slog.String("bottle", l.Link.Bottle), slog.String("link", l.Link.Name), slog.String("error", why))
		}
	}
	g.shutSaid = said
	return nil
}

// Shutdown closes every listener and lets what is under way come to its end until ctx ends; what is left then is cut off, and
// the error says how much that was. Idle connections are closed at once, those with a request after it, and WebSocket
// connections get a close frame. The capture links are left as they are, which means shut: without a listener the kernel drops
// new connections. After ctx ended it blocks for as long as [Deadlines].Drain at most.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.applying.Lock()
	defer g.applying.Unlock()
	g.stopFast()
	g.mu.Lock()
	g.stopped = true
	bottles := g.bottles
	g.bottles = map[string]*bottle{}
	g.mu.Unlock()
	var cut atomic.Int64
	var wg sync.WaitGroup
	for _, b := range bottles {
		b.stop()
		wg.Go(func() {
			cut.Add(int64(b.drain(ctx)))
			b.shut()
		})
	}
	wg.Wait()
	if n := cut.Load(); n > 0 {
		return fmt.Errorf("shut down: %d flows had not ended: %w", n, ctx.Err())
	}
	return nil
}

// isStopped tells whether Shutdown was called.
func (g *Gateway) isStopped() bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.stopped
}
