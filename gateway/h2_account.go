package gateway

import "time"

// h2Account is what a guest's HTTP/2 connection costs its bottle beyond its requests (RFC 9113 section 10.5).
type h2Account session

// Frame is [http2.Account].Frame. Resets that are owed have it wait as well: every connection begins with such a frame, so that one that
// was left with its requests unfinished is paid for by the next.
func (a *h2Account) Frame() time.Duration {
	return max(a.meter.frames.charge(1), a.meter.resets.charge(0))
}

// Reset is [http2.Account].Reset. A guest can have the gateway reset streams, by what it sends on them.
func (a *h2Account) Reset() time.Duration { return a.meter.resets.charge(1) }

// Left is [http2.Account].Left. It costs what a reset does, or who only leaves would have had the request for nothing.
func (a *h2Account) Left() { a.meter.resets.charge(1) }

// Refused is [http2.Account].Refused.
func (a *h2Account) Refused() { a.over(ReasonH2Head) }

// Flooded is [http2.Account].Flooded.
func (a *h2Account) Flooded() { a.over(ReasonH2Flood) }
