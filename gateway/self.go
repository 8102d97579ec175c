package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// OwnAddressError says that an address is the gateway's or another bottle's, which no plan can open.
type OwnAddressError struct{ Addr netip.Addr }

// Error names the address.
func (e *OwnAddressError) Error() string {
	return fmt.Sprintf("address %s is of a capture link: no route leads there", e.Addr)
}

// checkAddr tells whether an upstream address may be dialled, or told to a guest. The addresses of capture links are
// refused whatever the configuration says, so that no bottle reaches another, or the gateway, through the gateway.
func (g *Gateway) checkAddr(addr netip.Addr, allowPrivate bool) error {
	addr = addr.Unmap().WithZone("")
	if (*g.links.Load())[addr] {
		return &OwnAddressError{addr}
	}
	return g.guard.Check(addr, allowPrivate)
}

// isOwn tells whether a guest called this host itself: an address of an interface or of a capture link. The listeners
// exist for connections that were captured on their way elsewhere.
func (g *Gateway) isOwn(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return !addr.IsValid() || addr.IsUnspecified() || addr.IsLoopback() || (*g.links.Load())[addr] || g.selves.has(addr)
}

// learnLinks makes the addresses of the running bottles' links, and of those about to run, known to checkAddr.
func (g *Gateway) learnLinks(more []Bottle) {
	set := map[netip.Addr]bool{}
	for _, b := range g.running() {
		set[b.link.Gateway.Unmap()], set[b.link.Guest.Unmap()] = true, true
	}
	for _, b := range more {
		set[b.Link.Gateway.Unmap()], set[b.Link.Guest.Unmap()] = true, true
	}
	g.links.Store(&set)
}

// selfAddrs is the set of addresses of this host's interfaces, read again when it is older than its age.
type selfAddrs struct {
	age  time.Duration
	list func() ([]net.Addr, error)

	mu   sync.Mutex
	read time.Time
	set  map[netip.Addr]bool // nil until it was read once
}

// newSelfAddrs returns a set that has not been read yet.
func newSelfAddrs(age time.Duration) *selfAddrs {
	return &selfAddrs{age: age, list: net.InterfaceAddrs}
}

// has tells whether addr is one of this host's. If the addresses could never be read, every address is.
func (s *selfAddrs) has(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.set == nil || now.Sub(s.read) >= s.age {
		s.refresh(now)
	}
	return s.set == nil || s.set[addr.Unmap().WithZone("")]
}

// refresh reads the addresses; on error those known so far stand.
func (s *selfAddrs) refresh(now time.Time) {
	addrs, err := s.list()
	if err != nil {
		return
	}
	set := map[netip.Addr]bool{}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			set[p.Addr().Unmap().WithZone("")] = true
		}
	}
	s.set, s.read = set, now
}
