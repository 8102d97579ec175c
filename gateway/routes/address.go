package routes

import "net/netip"

// AddrClass is what kind of place an IP address is. The zero value is Invalid,
// which nothing lets through.
type AddrClass uint8

// The classes. Every address is of exactly one; see Classify.
const (
	// Invalid is the class of the zero netip.Addr.
	Invalid AddrClass = iota
	// Public addresses are globally reachable unicast.
	Public
	// Loopback: 127.0.0.0/8, ::1.
	Loopback
	// Private: RFC 1918, and the deprecated site-local fec0::/10.
	Private
	// ULA: fc00::/7 (RFC 4193).
	ULA
	// CGNAT: 100.64.0.0/10 (RFC 6598).
	CGNAT
	// LinkLocal: 169.254.0.0/16 (RFC 3927), fe80::/10.
	LinkLocal
	// Metadata: addresses at which clouds serve credentials to their guests.
	Metadata
	// Benchmark: 198.18.0.0/15 (RFC 2544), 2001:2::/48 (RFC 5180).
	Benchmark
	// Documentation: RFC 5737, RFC 3849, RFC 9637.
	Documentation
	// Multicast: 224.0.0.0/4, ff00::/8.
	Multicast
	// Broadcast: 255.255.255.255.
	Broadcast
	// Unspecified: 0.0.0.0 and ::, which Linux connects to the host itself.
	Unspecified
	// Reserved: everything else that is not globally reachable, transition
	// prefixes and IPv6 space that IANA has not allocated included.
	Reserved
	addrClasses // how many there are
)

// String returns the class's name in records and metric labels, such as
// "link_local".
func (c AddrClass) String() string {
	names := [addrClasses]string{
		"invalid", "public", "loopback", "private", "ula", "cgnat", "link_local", "metadata",
		"benchmark", "documentation", "multicast", "broadcast", "unspecified", "reserved",
	}
	if c >= addrClasses {
		return names[Invalid]
	}
	return names[c]
}

// Classify returns the class of an address by the IANA special-purpose
// registries (RFC 6890 and its successors). A zone is ignored. An IPv4 address
// inside an IPv6 one is judged by what it is: IPv4-mapped addresses and those
// in the NAT64 prefix 64:ff9b::/96 (RFC 6052) have the class of the IPv4
// address; IPv4-compatible, SIIT, 6to4 and Teredo addresses have it too unless
// it is Public, when they are Reserved, since nobody should send to those any
// more (RFC 7526).
func Classify(a netip.Addr) AddrClass {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return Invalid
	}
	inner, public := embedded(a)
	if inner.IsValid() {
		if class := lookupClass(inner); class != Public {
			return class
		}
		return public
	}
	return lookupClass(a)
}

// lookupClass finds an address in the registry. What is not there is Public
// if it is IPv4 or of the one IPv6 block that IANA allocates for global
// unicast (RFC 4291 section 2.4), else Reserved.
func lookupClass(a netip.Addr) AddrClass {
	for _, row := range registry {
		if row.prefix.Contains(a) {
			return row.class
		}
	}
	if a.Is4() || globalUnicast.Contains(a) {
		return Public
	}
	return Reserved
}

// embedded returns the IPv4 address that an IPv6 address of a transition
// mechanism stands for, and the class it has when that one is Public; or the
// zero Addr.
func embedded(a netip.Addr) (netip.Addr, AddrClass) {
	if !a.Is6() {
		return netip.Addr{}, Invalid
	}
	b := a.As16()
	last4 := netip.AddrFrom4([4]byte(b[12:16]))
	switch {
	case hasPrefix(b, 0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0): // RFC 6052 section 2.1
		return last4, Public
	case hasPrefix(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) && (b[12]|b[13]|b[14] != 0): // RFC 4291 section 2.5.5.1
		return last4, Reserved
	case hasPrefix(b, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0): // RFC 2765 section 2.1
		return last4, Reserved
	case hasPrefix(b, 0x20, 0x02): // RFC 3056 section 2
		return netip.AddrFrom4([4]byte(b[2:6])), Reserved
	case hasPrefix(b, 0x20, 0x01, 0, 0): // RFC 4380 section 4: the client's address, inverted
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), Reserved
	}
	return netip.Addr{}, Invalid
}

func hasPrefix(b [16]byte, prefix ...byte) bool {
	for i, c := range prefix {
		if b[i] != c {
			return false
		}
	}
	return true
}
