package redirect

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// LinkKind says where a capture link comes from. The zero value is Existing,
// which creates nothing.
type LinkKind uint8

const (
	// Existing is an interface that somebody else made and will delete.
	Existing LinkKind = iota
	// Tap is a persistent tap device that this package creates for a virtual
	// machine monitor to open.
	Tap
	// Netns is a veth pair whose far end is eth0 in a network namespace that
	// this package creates and configures.
	Netns
	// Adopted is a veth pair whose far end is eth0 in a network namespace that
	// somebody else made and configured; see [Adopt].
	Adopted
)

// String returns "existing", "tap", "netns" or "adopted".
func (k LinkKind) String() string {
	switch k {
	case Existing:
		return "existing"
	case Tap:
		return "tap"
	case Netns:
		return "netns"
	case Adopted:
		return "adopted"
	}
	return fmt.Sprintf("LinkKind(%d)", uint8(k))
}

// NamePattern is the pattern of interface names that the second layer shuts
// before any configuration is known. A link of another name is shut as soon as
// [Redirect.Set] has seen it.
const NamePattern = "gw-*"

// Limits of a link's MTU in bytes: RFC 791 asks every host to take 576, and a
// frame of more than 65,535 bytes has no IPv4 total length.
const (
	minMTU = 576
	maxMTU = 65535
)

// maxNameLen is IFNAMSIZ less its terminating NUL (linux/if.h).
const maxNameLen = 15

// Link describes one capture link: the interface on which the host receives
// what one bottle sends.
type Link struct {
	// Bottle is the bottle's name; it is unique within a Config.
	Bottle string
	// Name is the host-side interface name, 1 to 15 bytes, unique within a
	// Config.
	Name string
	// Kind says whether the interface is found or made.
	Kind LinkKind
	// Netns is the absolute path at which the bottle's namespace is bound. It
	// is required for kinds Netns and Adopted and must be empty for the others.
	Netns string
	// Owner is the user id that may open a tap; -1 means root only. Kinds
	// other than Tap ignore it.
	Owner int
	// MultiQueue makes a tap that is opened once for each of its queues
	// (IFF_MULTI_QUEUE), up to 256 times, and in no other way. Kinds other than
	// Tap ignore it.
	MultiQueue bool
	// Guest is the bottle's only IPv4 address, Gateway the host's address on
	// the same link. Both lie in one prefix of Bits bits (8 to 30). Of an adopted
	// link that prefix is the guest's idea alone: the host has the Gateway's
	// address and a route to the Guest's, and Bits may be 32, which leaves the
	// gateway outside.
	Guest, Gateway netip.Addr
	Bits           int
	// MAC is the bottle's only Ethernet address: six bytes, unicast.
	MAC net.HardwareAddr
	// MTU is the largest IP packet in bytes, 576 to 65535; 0 means 1500.
	MTU int
	// InterceptPort and DNSPort are the ports on Gateway where the listeners
	// for TCP and for DNS (UDP and TCP) are bound. Neither may be 0.
	InterceptPort, DNSPort uint16
}

// Config is the desired state: all links, and no others.
type Config struct {
	Links []Link
}

// Validate reports the first field of the link that cannot be used as a
// [*LinkError]. It does not touch the machine.
func (l Link) Validate() error {
	if problem := l.problem(); problem != "" {
		return &LinkError{Bottle: l.Bottle, Link: l.Name, Op: "validate", Err: fmt.Errorf("%s", problem)}
	}
	return nil
}

func (l Link) problem() string {
	switch {
	case l.Bottle == "":
		return "the bottle has no name"
	case !validInterfaceName(l.Name):
		return fmt.Sprintf("interface name %q: write 1 to %d printable bytes without '/', '%%', ':' or space", l.Name, maxNameLen)
	case l.Kind > Adopted:
		return fmt.Sprintf("unknown %v", l.Kind)
	case l.inNetns() && !filepath.IsAbs(l.Netns):
		return fmt.Sprintf("namespace path %q: write an absolute path such as /run/netns/%s", l.Netns, l.Bottle)
	case !l.inNetns() && l.Netns != "":
		return fmt.Sprintf("namespace path %q on a link of kind %v: leave it out", l.Netns, l.Kind)
	case l.MTU != 0 && (l.MTU < minMTU || l.MTU > maxMTU):
		return fmt.Sprintf("mtu %d: write %d to %d", l.MTU, minMTU, maxMTU)
	case len(l.MAC) != 6 || l.MAC[0]&1 != 0 || isZero(l.MAC):
		return fmt.Sprintf("guest mac %q: write a unicast address of six bytes", l.MAC)
	case l.InterceptPort == 0 || l.DNSPort == 0 || l.InterceptPort == l.DNSPort:
		return fmt.Sprintf("ports %d and %d: write two different ports, neither 0", l.InterceptPort, l.DNSPort)
	}
	return l.addressProblem()
}

func (l Link) addressProblem() string {
	switch {
	case !l.Guest.Is4() || !l.Gateway.Is4():
		return fmt.Sprintf("guest %v, gateway %v: write two IPv4 addresses", l.Guest, l.Gateway)
	case (l.Bits < 8 || l.Bits > 30) && (l.Kind != Adopted || l.Bits != 32):
		return fmt.Sprintf("prefix length %d: write 8 to 30", l.Bits)
	case l.Guest == l.Gateway:
		return fmt.Sprintf("guest and gateway are both %v: write two addresses", l.Guest)
	case !unicast4(l.Guest) || !unicast4(l.Gateway):
		return fmt.Sprintf("guest %v, gateway %v: write unicast addresses outside 0/8 and 127/8", l.Guest, l.Gateway)
	case l.Bits < 32 && !netip.PrefixFrom(l.Gateway, l.Bits).Contains(l.Guest):
		return fmt.Sprintf("guest %v is not on the link %v/%d", l.Guest, l.Gateway, l.Bits)
	}
	return ""
}

// inNetns tells whether the bottle's end of the link is eth0 in a namespace.
func (l Link) inNetns() bool { return l.Kind == Netns || l.Kind == Adopted }

// mtu returns the MTU with its default filled in.
func (l Link) mtu() int {
	if l.MTU == 0 {
		return 1500
	}
	return l.MTU
}

// Validate reports every link that cannot be used, and every pair that shares
// a bottle, an interface, a namespace or overlapping addresses.
func (c Config) Validate() error {
	var errs linkErrors
	for i, l := range c.Links {
		if err := l.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, other := range c.Links[:i] {
			if err := l.Clash(other); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errs.join()
}

// Clash reports as a [*LinkError] what l has that is the other link's already: a
// bottle, an interface, a namespace or an address. Both must be valid.
func (l Link) Clash(other Link) error {
	clash := l.clash(other)
	if clash == "" {
		return nil
	}
	return &LinkError{Bottle: l.Bottle, Link: l.Name, Op: "validate",
		Err: fmt.Errorf("%s is already bottle %q's: give each bottle its own", clash, other.Bottle)}
}

func (l Link) clash(other Link) string {
	switch {
	case l.Bottle == other.Bottle:
		return "the name"
	case l.Name == other.Name:
		return "interface " + l.Name
	case l.Netns != "" && filepath.Clean(l.Netns) == filepath.Clean(other.Netns):
		return "namespace " + l.Netns
	}
	for _, mine := range l.prefixes() {
		for _, theirs := range other.prefixes() {
			if !mine.Overlaps(theirs) {
				continue
			}
			if l.Kind == Adopted {
				return "address " + mine.Addr().String()
			}
			return "subnet " + theirs.String()
		}
	}
	return ""
}

// hostBits is the length of the prefix in which the host has the gateway's
// address.
func (l Link) hostBits() int {
	if l.Kind == Adopted {
		return 32
	}
	return l.Bits
}

// prefixes are what the host reaches by the link.
func (l Link) prefixes() []netip.Prefix {
	gateway := netip.PrefixFrom(l.Gateway, l.hostBits()).Masked()
	if l.Kind == Adopted {
		return []netip.Prefix{gateway, netip.PrefixFrom(l.Guest, 32)}
	}
	return []netip.Prefix{gateway}
}

// validInterfaceName mirrors dev_valid_name in net/core/dev.c, and refuses
// control bytes and the '%' of name templates besides.
func validInterfaceName(s string) bool {
	if s == "" || len(s) > maxNameLen || s == "." || s == ".." {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || strings.IndexByte("/:%\"*", s[i]) >= 0 {
			return false
		}
	}
	return true
}

func unicast4(a netip.Addr) bool {
	b := a.As4()
	return b[0] != 0 && b[0] != 127 && b[0] < 224
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
