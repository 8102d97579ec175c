package routes

import "net/netip"

// row is one line of a registry: what the addresses of a prefix are.
type row struct {
	prefix netip.Prefix
	class  AddrClass
}

func at(prefix string, class AddrClass) row { return row{netip.MustParsePrefix(prefix), class} }

// globalUnicast is all that IANA has allocated of the IPv6 unicast space.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// registry is read from the top, and the first row that holds an address
// decides; never written after it is made. Rows of the IANA registries that
// are globally reachable are left out, except inside a block that is not.
var registry = []row{
	// Where clouds serve credentials, time and names to their own guests.
	at("169.254.169.254/32", Metadata), // nearly all of them
	at("169.254.169.253/32", Metadata),
	at("169.254.169.123/32", Metadata),
	at("169.254.170.2/32", Metadata),  // container credentials
	at("169.254.170.23/32", Metadata), // pod identity
	at("169.254.0.23/32", Metadata),
	at("169.254.42.42/32", Metadata),
	at("100.100.100.200/32", Metadata),
	at("192.0.0.192/32", Metadata),
	at("168.63.129.16/32", Metadata), // a host agent in public space
	at("fd00:ec2::254/128", Metadata),
	at("fd00:ec2::253/128", Metadata),
	at("fd00:ec2::123/128", Metadata),
	at("fd00:ec2::23/128", Metadata),
	at("fd00:42::42/128", Metadata),
	at("fd20:ce::254/128", Metadata),

	// IANA IPv4 Special-Purpose Address Registry.
	at("0.0.0.0/32", Unspecified),        // RFC 1122 section 3.2.1.3
	at("0.0.0.0/8", Reserved),            // RFC 791 section 3.2
	at("10.0.0.0/8", Private),            // RFC 1918
	at("100.64.0.0/10", CGNAT),           // RFC 6598
	at("127.0.0.0/8", Loopback),          // RFC 1122 section 3.2.1.3
	at("169.254.0.0/16", LinkLocal),      // RFC 3927
	at("172.16.0.0/12", Private),         // RFC 1918
	at("192.0.0.0/24", Reserved),         // RFC 6890 section 2.1, its reachable anycasts included
	at("192.0.2.0/24", Documentation),    // RFC 5737
	at("192.88.99.0/24", Reserved),       // RFC 7526
	at("192.168.0.0/16", Private),        // RFC 1918
	at("198.18.0.0/15", Benchmark),       // RFC 2544
	at("198.51.100.0/24", Documentation), // RFC 5737
	at("203.0.113.0/24", Documentation),  // RFC 5737
	at("255.255.255.255/32", Broadcast),  // RFC 919
	at("224.0.0.0/4", Multicast),         // RFC 5771
	at("240.0.0.0/4", Reserved),          // RFC 1112 section 4

	// IANA IPv6 Special-Purpose Address Registry.
	at("::/128", Unspecified),          // RFC 4291
	at("::1/128", Loopback),            // RFC 4291
	at("2001:2::/48", Benchmark),       // RFC 5180
	at("2001::/23", Reserved),          // RFC 2928: protocol assignments, ORCHID and DRIP included
	at("2001:db8::/32", Documentation), // RFC 3849
	at("3fff::/20", Documentation),     // RFC 9637
	at("fc00::/7", ULA),                // RFC 4193
	at("fe80::/10", LinkLocal),         // RFC 4291
	at("fec0::/10", Private),           // RFC 3879, site-local
	at("ff00::/8", Multicast),          // RFC 4291
}
