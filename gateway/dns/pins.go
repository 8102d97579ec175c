package dns

import (
	"errors"
	"net/netip"
	"time"
)

// Limits bound the pins of one bottle; a zero field means its default.
type Limits struct {
	// AddrsPerName is the most addresses that one name may have pinned at a time (default 64).
	AddrsPerName int
	// NamesPerAddr is the most names that one address may have pinned at a time (default 64).
	NamesPerAddr int
	// Total is the most pins, that is pairs of name and address (default 8192).
	Total int
	// Grace is how long a pin outlives its TTL, since clients go on with an address that they have (default 5 minutes).
	Grace time.Duration
}

// Pin is one pair of name and address that the gateway told a bottle.
type Pin struct {
	// Addr is the address that was answered.
	Addr netip.Addr
	// Name is the canonical name that was asked for.
	Name string
	// Expires is when the pin stops being valid: the answer's TTL and the grace.
	Expires time.Time
}

// Pins are the pins of one bottle. Safe for use by many goroutines.
type Pins struct{ max Limits }

// NewPins returns no pins, bounded by max.
func NewPins(max Limits) *Pins { return &Pins{max: max} }

// Add pins each of addrs to name for ttl and the grace, or renews those that are there; it never shortens one.
func (p *Pins) Add(name string, addrs []netip.Addr, ttl time.Duration) error {
	return errors.New("pin: not written")
}

// Names returns the names for which addr is pinned now, sorted; nil when there are none. The caller owns the slice.
func (p *Pins) Names(addr netip.Addr) []string { return nil }

// Snapshot returns the live pins, sorted by name and then address. The caller owns the slice.
func (p *Pins) Snapshot() []Pin { return nil }
