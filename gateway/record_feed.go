package gateway

import (
	"sync"
	"sync/atomic"
)

// Feed passes records on to whoever listens at the moment. It is a [Recorder] that never waits for a listener.
type Feed struct {
	mu   sync.Mutex
	subs map[*Subscription]struct{}
}

// newFeed returns a feed without listeners.
func newFeed() *Feed { return &Feed{subs: map[*Subscription]struct{}{}} }

// Record gives r to every subscription that has room.
func (f *Feed) Record(r Record) { f.publish(&r) }

// publish is Record.
func (f *Feed) publish(r *Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		select {
		case s.records <- *r:
		default:
			s.dropped.Add(1)
		}
	}
}

// subscribe returns a subscription with room for buffer records, at least one.
func (f *Feed) subscribe(buffer int) *Subscription {
	s := &Subscription{feed: f, records: make(chan Record, max(buffer, 1))}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[s] = struct{}{}
	return s
}

// Subscription is one listener of a gateway's records.
type Subscription struct {
	feed    *Feed
	records chan Record
	dropped atomic.Uint64
}

// Records returns the channel that the records come by. It is closed by Close.
func (s *Subscription) Records() <-chan Record { return s.records }

// Dropped returns how many records found no room so far.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription and closes its channel. It may be called more than once.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if _, ok := s.feed.subs[s]; ok {
		delete(s.feed.subs, s)
		close(s.records)
	}
}
