package dns

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits bound the pins of one bottle; a field that is zero or less means its default.
type Limits struct {
	// AddrsPerName is the most addresses that one name may have pinned at a time (default 64).
	AddrsPerName int
	// NamesPerAddr is the most names that one address may have pinned at a time (default 64).
	NamesPerAddr int
	// Total is the most pins, that is pairs of name and address (default 8192). A pin has about 200 bytes.
	Total int
	// Grace is how long a pin outlives its TTL, since clients go on with an address that they have (default 5 minutes).
	Grace time.Duration
}

// withDefaults returns the limits with the zero fields filled in.
func (l Limits) withDefaults() Limits {
	orDefault := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	orDefault(&l.AddrsPerName, 64)
	orDefault(&l.NamesPerAddr, 64)
	orDefault(&l.Total, 8192)
	if l.Grace <= 0 {
		l.Grace = 5 * time.Minute
	}
	return l
}

// Pin is one pair of name and address that the gateway told a bottle.
type Pin struct {
	// Addr is the address that was answered, IPv4 ones unmapped.
	Addr netip.Addr
	// Name is the canonical name that was asked for.
	Name string
	// Expires is when the pin stops being valid: the answer's TTL and the grace. It has a monotonic reading.
	Expires time.Time
}

// PinError says that pins were refused, and that none of the call were made.
type PinError struct {
	// Name is the name that was to be pinned.
	Name string
	// Reason says what was wrong, in words.
	Reason string
}

// Error gives "pin NAME: reason".
func (e *PinError) Error() string { return fmt.Sprintf("pin %q: %s", e.Name, e.Reason) }

// Pins are the pins of one bottle: the pairs of name and address that the gateway's own answers made. Time is counted on the
// monotonic clock, so that a change of the host's time neither ends nor prolongs one. Safe for use by many goroutines.
type Pins struct {
	max Limits
	now func() time.Time

	mu      sync.Mutex // guards the rest
	byAddr  map[netip.Addr]map[string]time.Time
	byName  map[string]map[netip.Addr]struct{}
	total   int
	soonest time.Time // no pin expires before this
}

// NewPins returns an empty set of pins, bounded by max.
func NewPins(max Limits) *Pins { return newPins(max, time.Now) }

func newPins(max Limits, now func() time.Time) *Pins {
	return &Pins{
		max: max.withDefaults(), now: now,
		byAddr: make(map[netip.Addr]map[string]time.Time), byName: make(map[string]map[netip.Addr]struct{}),
	}
}

// Add pins each of addrs to name (canonical) for ttl and the grace, or renews those that are there; it never shortens one. A
// name or an address that has too many afterwards loses those that would end first, which only takes away. The error is
// *PinError, when the call is wrong or the total is used up, and then nothing was pinned.
func (p *Pins) Add(name string, addrs []netip.Addr, ttl time.Duration) error {
	if err := p.check(name, addrs, ttl); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	fresh := 0
	for _, a := range addrs {
		if _, ok := p.byAddr[a.Unmap()][name]; !ok {
			fresh++
		}
	}
	if p.total+fresh > p.max.Total {
		p.purge(now)
	}
	if p.total+fresh > p.max.Total {
		return &PinError{Name: name, Reason: fmt.Sprintf("the bottle has %d pins and may have %d", p.total, p.max.Total)}
	}
	expires := now.Add(ttl + p.max.Grace)
	for _, a := range addrs {
		p.put(a.Unmap(), name, expires)
	}
	for _, a := range addrs {
		p.trimAddr(a.Unmap(), name)
	}
	p.trimName(name, addrs)
	return nil
}

// Restore puts back pins that Snapshot or At gave, of an earlier process too, with the time that they have left; it never
// shortens one. It takes no account of the limits, since a pin that were left out could be what another is judged by: the
// caller bounds how many there are. What has expired, or is no name and address, is left out.
func (p *Pins) Restore(pins []Pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, pin := range pins {
		if pin.Name != "" && pin.Addr.IsValid() && now.Before(pin.Expires) {
			p.put(pin.Addr.Unmap(), pin.Name, pin.Expires)
		}
	}
}

// check tells whether the arguments of Add make sense.
func (p *Pins) check(name string, addrs []netip.Addr, ttl time.Duration) error {
	switch {
	case name == "":
		return &PinError{Name: name, Reason: "empty name"}
	case ttl < 0:
		return &PinError{Name: name, Reason: "negative TTL"}
	case len(addrs) == 0:
		return &PinError{Name: name, Reason: "no addresses"}
	case len(addrs) > p.max.AddrsPerName:
		return &PinError{Name: name, Reason: fmt.Sprintf("%d addresses, at most %d", len(addrs), p.max.AddrsPerName)}
	}
	for _, a := range addrs {
		if !a.IsValid() || a.Zone() != "" {
			return &PinError{Name: name, Reason: fmt.Sprintf("bad address %q", a)}
		}
	}
	return nil
}

// put writes one pin; it never shortens one.
func (p *Pins) put(a netip.Addr, name string, expires time.Time) {
	names := p.byAddr[a]
	if names == nil {
		names = make(map[string]time.Time, 1)
		p.byAddr[a] = names
	}
	old, ok := names[name]
	if ok && !old.Before(expires) {
		return
	}
	names[name] = expires
	if !ok {
		p.total++
	}
	if p.byName[name] == nil {
		p.byName[name] = make(map[netip.Addr]struct{}, 1)
	}
	p.byName[name][a] = struct{}{}
	if p.soonest.IsZero() || expires.Before(p.soonest) {
		p.soonest = expires
	}
}

// drop removes one pin.
func (p *Pins) drop(a netip.Addr, name string) {
	if _, ok := p.byAddr[a][name]; !ok {
		return
	}
	p.total--
	if delete(p.byAddr[a], name); len(p.byAddr[a]) == 0 {
		delete(p.byAddr, a)
	}
	if delete(p.byName[name], a); len(p.byName[name]) == 0 {
		delete(p.byName, name)
	}
}

// trimAddr takes names off a until it has no more than it may, those that end first, and never name.
func (p *Pins) trimAddr(a netip.Addr, name string) {
	for len(p.byAddr[a]) > p.max.NamesPerAddr {
		victim, at := "", time.Time{}
		for n, expires := range p.byAddr[a] {
			if n != name && (victim == "" || expires.Before(at)) {
				victim, at = n, expires
			}
		}
		if victim == "" {
			return
		}
		p.drop(a, victim)
	}
}

// trimName takes addresses off name until it has no more than it may, those that end first, and none of keep.
func (p *Pins) trimName(name string, keep []netip.Addr) {
	for len(p.byName[name]) > p.max.AddrsPerName {
		var victim netip.Addr
		var at time.Time
		for a := range p.byName[name] {
			expires := p.byAddr[a][name]
			if (!victim.IsValid() || expires.Before(at)) && !slices.ContainsFunc(keep, func(k netip.Addr) bool { return k.Unmap() == a }) {
				victim, at = a, expires
			}
		}
		if !victim.IsValid() {
			return
		}
		p.drop(victim, name)
	}
}

// purge drops the pins that have expired. It walks them all, but only when one can have.
func (p *Pins) purge(now time.Time) {
	if now.Before(p.soonest) {
		return
	}
	p.soonest = time.Time{}
	for a, names := range p.byAddr {
		for name, expires := range names {
			if !now.Before(expires) {
				p.drop(a, name)
			} else if p.soonest.IsZero() || expires.Before(p.soonest) {
				p.soonest = expires
			}
		}
	}
}

// Names returns the names for which addr is pinned now, sorted; nil when there are none. The caller owns the slice.
func (p *Pins) Names(addr netip.Addr) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	var names []string
	for name, expires := range p.byAddr[addr.Unmap()] {
		if now.Before(expires) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// At returns the live pins of addr, in no order. The caller owns the slice.
func (p *Pins) At(addr netip.Addr) []Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, addr := p.now(), addr.Unmap()
	pins := make([]Pin, 0, len(p.byAddr[addr]))
	for name, expires := range p.byAddr[addr] {
		if now.Before(expires) {
			pins = append(pins, Pin{Addr: addr, Name: name, Expires: expires})
		}
	}
	return pins
}

// Addrs returns every address that has a pin, expired ones included, in no order. The caller owns the slice.
func (p *Pins) Addrs() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	addrs := make([]netip.Addr, 0, len(p.byAddr))
	for a := range p.byAddr {
		addrs = append(addrs, a)
	}
	return addrs
}

// Snapshot returns the live pins, sorted by name and then address. The caller owns the slice.
func (p *Pins) Snapshot() []Pin {
	p.mu.Lock()
	now := p.now()
	pins := make([]Pin, 0, p.total)
	for a, names := range p.byAddr {
		for name, expires := range names {
			if now.Before(expires) {
				pins = append(pins, Pin{Addr: a, Name: name, Expires: expires})
			}
		}
	}
	p.mu.Unlock()
	slices.SortFunc(pins, func(x, y Pin) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), x.Addr.Compare(y.Addr))
	})
	return pins
}
