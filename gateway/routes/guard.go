package routes

import (
	"fmt"
	"net/netip"
)

// AddrError reports an address that a bottle's traffic may not go to.
type AddrError struct {
	// Addr is the address, as it was resolved.
	Addr netip.Addr
	// Class is its class.
	Class AddrClass
	// Self tells that it is refused as an address of the gateway's own host,
	// whatever its class.
	Self bool
}

// Error names the address and why it is refused.
func (e *AddrError) Error() string {
	if e.Self {
		return fmt.Sprintf("address %s: it is the gateway's own", e.Addr)
	}
	return fmt.Sprintf("address %s: it is %s", e.Addr, e.Class)
}

// Guard judges the addresses that names resolve to, before they are pinned
// and again before they are dialled. The zero Guard lets Public addresses
// through and, for routes with AllowPrivate, Private, ULA, CGNAT and Benchmark
// ones.
type Guard struct {
	// AllowRanges are prefixes whose addresses are treated as public although
	// they are special-purpose. The more an address could harm the host, the
	// more exactly it must be named: Metadata and the host's own addresses
	// only by a prefix of that single address, Loopback only by a prefix
	// within 127.0.0.0/8 or ::1/128; Multicast, Broadcast and Unspecified
	// addresses cannot be allowed.
	AllowRanges []netip.Prefix
	// Self tells whether an address is the gateway's own host's. It is given
	// IPv4 addresses unmapped. nil means that none is known.
	Self func(netip.Addr) bool
}

// Check returns nil when the address may be sent to, else an *AddrError.
// allowPrivate is the governing route's AllowPrivate.
func (g Guard) Check(a netip.Addr, allowPrivate bool) error {
	a = a.Unmap().WithZone("")
	class := Classify(a)
	inner, _ := embedded(a)
	self := g.Self != nil && (g.Self(a) || inner.IsValid() && g.Self(inner))
	refusal := &AddrError{Addr: a, Class: class, Self: self}
	exactly := 0 // how many bits a range must have to allow the address
	switch class {
	case Invalid, Multicast, Broadcast, Unspecified:
		return refusal
	case Metadata:
		exactly = a.BitLen()
	case Loopback:
		exactly = loopbackBits(a)
	}
	if self {
		exactly = a.BitLen()
	}
	if g.named(a, exactly) {
		return nil
	}
	if self {
		return refusal
	}
	switch class {
	case Public:
		return nil
	case Private, ULA, CGNAT, Benchmark:
		if allowPrivate {
			return nil
		}
	}
	return refusal
}

// named tells whether some allowed range of at least that many bits holds the
// address.
func (g Guard) named(a netip.Addr, bits int) bool {
	for _, p := range g.AllowRanges {
		if p.Bits() >= bits && p.Contains(a) {
			return true
		}
	}
	return false
}

func loopbackBits(a netip.Addr) int {
	if a.Is4() {
		return 8
	}
	return a.BitLen()
}
