package gateway

import (
	"log/slog"
	"sync/atomic"
	"time"

	"gatewayd/gateway/routes"
)

// ReasonTripped refuses everything of a bottle that has tried to leak too often.
const ReasonTripped routes.Reason = "tripped"

// trip counts the requests of one bottle that were blocked for a leak.
type trip struct {
	leaks   atomic.Int64
	tripped atomic.Bool
}

// leaked counts a request that was blocked, and cuts the bottle off when that makes too many.
func (b *bottle) leaked() {
	limit := int64(b.current().trip)
	if n := b.trip.leaks.Add(1); limit == 0 || n < limit || b.trip.tripped.Swap(true) {
		return
	}
	b.log.Error("bottle is cut off: too many of its requests held what must not leave; SIGHUP or a restart lets it go on",
		slog.Int64("blocked", limit))
	b.record(Record{
		Time: time.Now().UTC(), Type: RecordEvent, ID: newID("e-"), Bottle: b.name, Plan: b.current().digest,
		Lane: LaneNone, Reason: ReasonTripped, Count: uint64(limit),
	})
	for _, f := range b.open() {
		if f.relayed() {
			f.abort(ReasonTripped)
		}
	}
}

// relayed tells whether the flow is carried without being looked into. Requests on others are refused one by one.
func (f *flow) relayed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rec.Lane == LaneRelay || f.rec.Lane == LaneFastPath
}

// isTripped tells whether the bottle is cut off.
func (b *bottle) isTripped() bool { return b.trip.tripped.Load() }

// Rearm lets bottles that were cut off for leaks go on, and begins to count anew. It is for the operator to decide.
func (g *Gateway) Rearm() {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, b := range g.bottles {
		b.trip.leaks.Store(0)
		if b.trip.tripped.Swap(false) {
			b.log.Warn("bottle may go on")
		}
	}
}
