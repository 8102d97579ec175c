package gateway

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"gatewayd/gateway/routes"
)

// ReasonTripped refuses everything of a bottle that has tried to leak too often.
const ReasonTripped routes.Reason = "tripped"

// ReasonReleased is of the record that says that a bottle which was cut off may go on.
const ReasonReleased routes.Reason = "released"

// TripStore remembers which bottles were cut off, beyond the life of the process. It is called by many goroutines at once.
type TripStore interface {
	// Tripped tells whether the bottle is cut off; it is if that cannot be told.
	Tripped(bottle string) bool
	// SetTripped remembers that the bottle is cut off, or is not any more.
	SetTripped(bottle string, tripped bool) error
}

// trip counts what one bottle tried to leak.
type trip struct {
	leaks   atomic.Int64
	tripped atomic.Bool
}

// leaked counts a request, flow or name that was blocked, and cuts the bottle off when that makes too many.
func (b *bottle) leaked() {
	limit := int64(b.current().trip)
	if n := b.trip.leaks.Add(1); limit == 0 || n < limit || b.trip.tripped.Swap(true) {
		return
	}
	b.log.Error("bottle is cut off: it tried too often to send what must not leave; `gatewayd release` lets it go on",
		slog.Int64("blocked", limit))
	if err := b.keepTripped(true); err != nil {
		b.log.Error("a restart would let the bottle go on", slog.Any("error", err))
	}
	b.event(ReasonTripped, uint64(limit))
	for _, f := range b.open() {
		if f.carries() {
			f.abort(ReasonTripped)
		}
	}
	b.refreshFast()
}

// keepTripped notes whether the bottle is cut off where a restart finds it.
func (b *bottle) keepTripped(tripped bool) error {
	if b.g.trips == nil {
		return nil
	}
	return b.g.trips.SetTripped(b.name, tripped)
}

// event records something that happened to the bottle as a whole.
func (b *bottle) event(why routes.Reason, count uint64) {
	b.record(&Record{
		Time: time.Now().UTC(), Type: RecordEvent, ID: newID("e-"), Bottle: b.name, Plan: b.current().digest,
		Lane: LaneNone, Reason: why, Count: count,
	})
}

// carries tells whether something that was let go is under way on the flow: what is relayed, or requests, of which the one
// that is being recorded is none any more. What its guest asks for next on another flow is refused, and it is told why.
func (f *flow) carries() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.grant.Decision == routes.Passthrough || len(f.exchanges) > 0
}

// isTripped tells whether the bottle is cut off.
func (b *bottle) isTripped() bool { return b.trip.tripped.Load() }

// Release lets a bottle that was cut off go on, and begins to count anew. It is for the operator to decide. The error says
// that there is no such bottle, that it is not cut off, or that a restart would cut it off again, in which case it stays so.
func (g *Gateway) Release(name string) error {
	g.mu.RLock()
	b := g.bottles[name]
	g.mu.RUnlock()
	if b == nil {
		return fmt.Errorf("release bottle %.40q: no such bottle runs", name)
	}
	if !b.isTripped() {
		return fmt.Errorf("release bottle %s: it is not cut off", name)
	}
	if err := b.keepTripped(false); err != nil {
		return fmt.Errorf("release bottle %s: %w", name, err)
	}
	b.trip.leaks.Store(0)
	b.trip.tripped.Store(false)
	b.log.Warn("bottle may go on")
	b.event(ReasonReleased, 0)
	b.refreshFast()
	return nil
}
