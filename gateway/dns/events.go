package dns

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// eventWindow is how long repetitions of an event are counted before one is told again.
	eventWindow = 30 * time.Second
	// eventsPerSecond and eventBurst bound the events of a bottle.
	eventsPerSecond, eventBurst = 5, 50
	// maxEventKeys bounds the events that are remembered for counting.
	maxEventKeys = 512
)

// EventKind says what an Event reports. The zero value is none.
type EventKind uint8

// The kinds of Event.
const (
	// Denied: a name outside the plan.
	Denied EventKind = iota + 1
	// Refused: a question that is never answered, by its type or class.
	Refused
	// Encoded: a name under a wildcard whose labels look like carried data.
	Encoded
	// NewNames: the budget of new names under wildcards is used up.
	NewNames
	// Filtered: addresses of a planned name were private or special, and withheld.
	Filtered
	// Failed: the lookup or the pin failed.
	Failed
	// Leak: a name under a wildcard that Inspect refused. Each such name is told, whatever the pace.
	Leak
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
	case Leak:
		return "leak"
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
	// Name is the name asked for in canonical form; one that has none is in DNS presentation form, where special bytes are
	// escaped (RFC 4343 §2.1).
	Name string
	// Type is the question's type as text: "A", "TXT", "TYPE65280".
	Type string
	// Detail says why, in words.
	Detail string
	// Count is how many such queries this event stands for, at least 1: itself and those since the last one of the same kind
	// and name that were not told.
	Count uint64
}

// eventKey is what makes two events the same.
type eventKey struct {
	kind EventKind
	name string
}

// told is what is remembered of an event.
type told struct {
	at    time.Time // when it was last told
	since uint64    // how many since then
}

// events lets few events through: the first of a kind and name at once, repetitions as a count, and no more in all than a
// person can read, but for leaks, which somebody may count. Safe for use by many goroutines.
type events struct {
	limit *rate.Limiter

	mu   sync.Mutex // guards the rest
	keys map[eventKey]told
}

func newEvents() *events {
	return &events{limit: rate.NewLimiter(eventsPerSecond, eventBurst), keys: make(map[eventKey]told)}
}

// admit tells whether an event is to be told now, and for how many it stands.
func (e *events) admit(key eventKey, now time.Time) (count uint64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, known := e.keys[key]
	if known && now.Sub(t.at) < eventWindow || key.kind != Leak && !e.limit.AllowN(now, 1) {
		if known {
			t.since++
			e.keys[key] = t
		}
		return 0, false
	}
	if !known && len(e.keys) >= maxEventKeys {
		e.forget(now)
	}
	e.keys[key] = told{at: now}
	return t.since + 1, true
}

// forget makes room: the keys whose window is over go, or all when none is.
func (e *events) forget(now time.Time) {
	for k, t := range e.keys {
		if now.Sub(t.at) >= eventWindow {
			delete(e.keys, k)
		}
	}
	if len(e.keys) >= maxEventKeys {
		clear(e.keys)
	}
}
