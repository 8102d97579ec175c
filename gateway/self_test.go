package gateway

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestSelfAddrsAge has the host's addresses change: what was read is used for its age and no longer, what cannot be read again stands,
// and until it was read once every address is the host's.
func TestSelfAddrsAge(t *testing.T) {
	old, fresh := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var now netip.Addr // what the host has
	s := newSelfAddrs(Deadlines{}.withDefaults().SelfRefresh)
	s.list = func() ([]net.Addr, error) {
		if !now.IsValid() {
			return nil, errors.New("no memory")
		}
		return []net.Addr{&net.IPNet{IP: now.AsSlice(), Mask: net.CIDRMask(24, 32)}}, nil
	}
	expect := func(when string, wantOld, wantFresh bool) {
		t.Helper()
		if s.has(old) != wantOld || s.has(fresh) != wantFresh {
			t.Errorf("%s: %v, %v; want %v, %v", when, s.has(old), s.has(fresh), wantOld, wantFresh)
		}
	}
	expect("never read", true, true)
	now = old
	expect("read", true, false)
	now = fresh
	expect("soon after", true, false)
	s.read = s.read.Add(-DefaultSelfRefresh)
	expect("later", false, true)
	now, s.read = netip.Addr{}, s.read.Add(-time.Hour)
	expect("unreadable", false, true)
}
