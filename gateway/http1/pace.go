package http1

import (
	"net/http"
	"time"
)

// Pace is how fast a guest sends one request's body, held against [Limits]. It is for one goroutine at a time.
type Pace struct {
	idle, grace time.Duration
	rate        int
	waited      time.Duration
	got         int64
}

// Pace returns the account of a body that begins, for one that comes by other ways than this package's.
func (l Limits) Pace() Pace {
	l = l.withDefaults()
	return newPace(&l)
}

// newPace is Pace for limits with their defaults filled in.
func newPace(l *Limits) Pace { return Pace{idle: l.BodyIdle, grace: l.BodyGrace, rate: l.BodyRate} }

// Idle is how long one read may wait for a byte.
func (p *Pace) Idle() time.Duration { return p.idle }

// Stalled is the error of a body of which no byte came in that time, a *[ProtocolError].
func (p *Pace) Stalled() error {
	return refuseWith(http.StatusRequestTimeout, ReasonSlowBody, "the body stalled")
}

// Count notes that n bytes came after a wait, and returns a *[ProtocolError] if that makes the body too slow: over all the time that
// was spent waiting for it, a first grace aside.
func (p *Pace) Count(n int, waited time.Duration) error {
	p.waited += waited
	p.got += int64(n)
	if over := p.waited - p.grace; over > 0 && p.got < int64(over.Seconds()*float64(p.rate)) {
		return refuseWith(http.StatusRequestTimeout, ReasonSlowBody, "the body came too slowly")
	}
	return nil
}
