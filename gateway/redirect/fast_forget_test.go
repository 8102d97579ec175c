package redirect

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// trackedConnections is how many connections the tests have tracked.
const trackedConnections = 10_000

// trackMany fills connection tracking with connections of one bottle, every hundred of them to an address of their own.
// at gives their addresses.
func trackMany(t testing.TB) (at func(i int) (src, dst netip.AddrPort)) {
	t.Helper()
	privileged.Require(t, privileged.Root)
	at = func(i int) (src, dst netip.AddrPort) {
		return netip.AddrPortFrom(netip.MustParseAddr("198.18.1.2"), uint16(20000+i%100)),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{93, 184, byte(i / 100), 34}), 443)
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	must(t, err)
	t.Cleanup(h.Close)
	must(t, h.ConntrackTableFlush(netlink.ConntrackTable)) // of what other tests left
	for i := range trackedConnections {
		src, dst := at(i)
		must(t, h.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
			FamilyType: unix.AF_INET, TimeOut: 3600,
			Forward: netlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: src.Addr().AsSlice(), SrcPort: src.Port(), DstIP: dst.Addr().AsSlice(), DstPort: dst.Port()},
			Reverse: netlink.IPTuple{Protocol: unix.IPPROTO_TCP, SrcIP: dst.Addr().AsSlice(), SrcPort: dst.Port(), DstIP: uplinkHost.AsSlice(), DstPort: src.Port()},
		}))
	}
	return at
}

// tracked returns what connection tracking has.
func tracked(t testing.TB) map[[2]netip.AddrPort]bool {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	all := make(map[[2]netip.AddrPort]bool, len(flows))
	for _, f := range flows {
		src, _ := netip.AddrFromSlice(f.Forward.SrcIP.To4())
		dst, _ := netip.AddrFromSlice(f.Forward.DstIP.To4())
		all[[2]netip.AddrPort{netip.AddrPortFrom(src, f.Forward.SrcPort), netip.AddrPortFrom(dst, f.Forward.DstPort)}] = true
	}
	return all
}

// TestForgetsOneConnection has one connection of many forgotten, and one that is not there.
func TestForgetsOneConnection(t *testing.T) {
	at := trackMany(t)
	before := tracked(t)
	if len(before) != trackedConnections {
		t.Fatalf("%d connections are tracked", len(before))
	}
	c, err := newTracker()
	must(t, err)
	defer c.Close()
	src, dst := at(1234)
	must(t, c.forget(src, dst))
	must(t, c.forget(src, dst)) // it is gone
	other := netip.AddrPortFrom(src.Addr(), 1)
	must(t, c.forget(other, dst))
	after := tracked(t)
	if after[[2]netip.AddrPort{src, dst}] {
		t.Error("the connection is still tracked")
	}
	delete(before, [2]netip.AddrPort{src, dst})
	for k := range before {
		if !after[k] {
			t.Errorf("%v is forgotten too", k)
		}
	}
}

// BenchmarkForget takes one connection after another out of a large table, by a filter and by its name.
func BenchmarkForget(b *testing.B) {
	at := trackMany(b)
	c, err := newTracker()
	must(b, err)
	defer c.Close()
	b.Run("by filter", func(b *testing.B) {
		for i := range b.N {
			src, dst := at(i % trackedConnections)
			var f netlink.ConntrackFilter
			must(b, f.AddIP(netlink.ConntrackOrigSrcIP, src.Addr().AsSlice()))
			must(b, f.AddIP(netlink.ConntrackOrigDstIP, dst.Addr().AsSlice()))
			must(b, f.AddProtocol(unix.IPPROTO_TCP))
			must(b, f.AddPort(netlink.ConntrackOrigSrcPort, src.Port()))
			must(b, f.AddPort(netlink.ConntrackOrigDstPort, dst.Port()))
			_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, &f)
			must(b, err)
		}
	})
	b.Run("by name", func(b *testing.B) {
		for i := range b.N {
			src, dst := at(i % trackedConnections)
			must(b, c.forget(src, dst))
		}
	})
}
