package gateway

// h2Account is what a guest's HTTP/2 connection costs its bottle beyond its requests (RFC 9113 section 10.5).
type h2Account session

// Frame is [http2.Account].Frame.
func (a *h2Account) Frame() bool { return a.meter.frames.Allow() }

// Reset is [http2.Account].Reset. A guest can have the gateway reset streams, by what it sends on them.
func (a *h2Account) Reset() bool { return a.meter.resets.Allow() }

// Refused is [http2.Account].Refused.
func (a *h2Account) Refused() { a.over(ReasonH2Head) }

// Flooded is [http2.Account].Flooded.
func (a *h2Account) Flooded() { a.over(ReasonH2Flood) }
