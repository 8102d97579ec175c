package inject

import (
	"sync"
	"sync/atomic"
	"time"
)

// How much of what a secret was is remembered, since a token that was just replaced may still open its door.
const (
	formerValues = 8 // of one secret, without the current one
	formerBytes  = maxSecret
	formerTime   = 24 * time.Hour
)

// remembered has the values of one secret: the current one, and those before it for a while. It may be used by any number of
// goroutines.
type remembered struct {
	source  *source
	command bool // the source runs a program, which nobody does but who needs the value
	changes *atomic.Uint64

	mu      sync.Mutex
	current string
	former  []formerValue // the last one first
	problem string        // why there is no value, as last said
}

type formerValue struct {
	value string
	until time.Time
}

// see takes the value that the source has now.
func (r *remembered) see(value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if value == r.current {
		return
	}
	now := r.source.now()
	kept := make([]formerValue, 0, formerValues)
	room := formerBytes
	keep := func(f formerValue) {
		if room -= len(f.value); room >= 0 && len(kept) < formerValues && f.value != value && f.until.After(now) {
			kept = append(kept, f)
		}
	}
	if r.current != "" {
		keep(formerValue{r.current, now.Add(formerTime)})
	}
	for _, f := range r.former {
		keep(f)
	}
	r.current, r.former, r.problem = value, kept, ""
	r.changes.Add(1)
}

// forget drops the former values whose time is over.
func (r *remembered) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.source.now()
	for n := len(r.former); n > 0 && !r.former[n-1].until.After(now); n-- { // the oldest are at the end
		r.former = r.former[:n-1]
		r.changes.Add(1)
	}
}

// values returns the current value, if there was one, and the former ones.
func (r *remembered) values() []Secret {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Secret
	if r.current != "" {
		out = append(out, NewSecret(r.current))
	}
	for _, f := range r.former {
		out = append(out, NewSecret(f.value))
	}
	return out
}

// fails notes why there is no value, and reports whether that is news: there never was one, and nobody was told.
func (r *remembered) fails(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != "" || r.problem == err.Error() {
		return false
	}
	r.problem = err.Error()
	return true
}
