// Package pool numbers the bottles: a /30 of the configured pool for each, kept in a file so that a bottle has the same
// address tomorrow, whether `gatewayd run` or `gatewayd guest` asked first.
package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
)

// bits is the length of each bottle's prefix: network, gateway, guest, broadcast.
const bits = 30

// Link is the numbering of one capture link.
type Link struct {
	// Guest and Gateway are the two ends, both in Prefix.
	Guest, Gateway netip.Addr
	// Prefix is masked.
	Prefix netip.Prefix
}

// InUse is a prefix that somebody on this host already has, and who.
type InUse struct {
	Prefix netip.Prefix
	// Holder is shown in errors: "eth0".
	Holder string
}

// Request asks for the numbering of one bottle.
type Request struct {
	// Bottle is the canonical bottle name.
	Bottle string
	// Fixed is the guest's address with its prefix length as the manifest gives it; the zero Prefix means one of the pool.
	Fixed netip.Prefix
	// InUse are prefixes of the host's own interfaces, without the bottle's own link.
	InUse []InUse
}

// CollisionError says that a bottle's prefix overlaps one that is in use.
type CollisionError struct {
	Bottle string
	Prefix netip.Prefix
	With   InUse
	// Fixed is true when the manifest fixes the prefix.
	Fixed bool
}

// Error names both sides and what to change.
func (e *CollisionError) Error() string {
	remedy := "set another pool, or fix the bottle's address with link.guest"
	if e.Fixed {
		remedy = "write another link.guest in the manifest"
	}
	return fmt.Sprintf("number bottle %s: %s overlaps %s of %s; %s", e.Bottle, e.Prefix, e.With.Prefix, e.With.Holder, remedy)
}

// ErrExhausted says that no /30 of the pool is free.
var ErrExhausted = errors.New("every /30 of the pool is taken; set a larger pool, or remove allocations of bottles that are gone")

// assign is the pure part of an allocation: it gives the bottle's prefix, given those of all bottles, and whether it is a
// new one. An allocation of the pool that exists is kept as long as it still lies in the pool; it is never moved because
// of a collision, since a guest has been configured with it: that is an error for a person to resolve.
func assign(pool netip.Prefix, taken map[string]netip.Prefix, r Request) (netip.Prefix, bool, error) {
	old, had := taken[r.Bottle]
	switch {
	case r.Fixed.IsValid():
		p := r.Fixed.Masked()
		return p, !had || old != p, collides(p, taken, r, true)
	case had && old.Bits() == bits && pool.Contains(old.Addr()):
		return old, false, collides(old, taken, r, false)
	}
	n := uint32(1) << (bits - pool.Bits())
	start := hash(r.Bottle) % n
	for i := range n {
		p := nth(pool, (start+i)%n)
		if collides(p, taken, r, false) == nil {
			return p, true, nil
		}
	}
	return netip.Prefix{}, false, fmt.Errorf("number bottle %s from %s: %w", r.Bottle, pool, ErrExhausted)
}

// collides returns a *CollisionError if p overlaps another bottle's prefix or one of the host's.
func collides(p netip.Prefix, taken map[string]netip.Prefix, r Request, fixed bool) error {
	for _, u := range r.InUse {
		if p.Overlaps(u.Prefix) {
			return &CollisionError{Bottle: r.Bottle, Prefix: p, With: u, Fixed: fixed}
		}
	}
	for name, q := range taken {
		if name != r.Bottle && p.Overlaps(q) {
			return &CollisionError{Bottle: r.Bottle, Prefix: p, With: InUse{Prefix: q, Holder: "bottle " + name}, Fixed: fixed}
		}
	}
	return nil
}

// number gives the two ends of p. The gateway is the first usable address that is not the guest's; without a fixed guest,
// the gateway is the first and the guest the second.
func number(p netip.Prefix, fixed netip.Prefix) (Link, error) {
	first := p.Addr().Next()
	guest, gateway := first.Next(), first
	if fixed.IsValid() {
		guest = fixed.Addr()
		if guest == gateway {
			gateway = first.Next()
		}
	}
	switch {
	case !p.Addr().Is4() || p.Bits() > bits:
		return Link{}, fmt.Errorf("number link: %s leaves no room for a guest and a gateway; write an IPv4 address with /%d or shorter", fixed, bits)
	case guest == p.Addr() || guest == last(p):
		return Link{}, fmt.Errorf("number link: %s is the network or broadcast address of %s; write %s", guest, p, netip.PrefixFrom(first.Next(), p.Bits()))
	}
	return Link{Guest: guest, Gateway: gateway, Prefix: p}, nil
}

// nth gives the i-th /30 of pool.
func nth(pool netip.Prefix, i uint32) netip.Prefix {
	a := pool.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+i<<(32-bits))
	return netip.PrefixFrom(netip.AddrFrom4(a), bits)
}

// last gives the broadcast address of an IPv4 prefix.
func last(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(a)
}

// hash spreads bottles over the pool, so that a lost state file gives most bottles their old addresses back.
func hash(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}
