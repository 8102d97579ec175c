package redirect

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestFastPathRevocation cuts one of two connections to one address, by name,
// while both carry data. The other goes on.
func TestFastPathRevocation(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			const otherName = "other.test"
			s := newFastStage(t, mode)
			s.pin(goodName, otherName)
			gone, err := s.call(otherName)
			must(t, err)
			stays, err := s.call(goodName)
			must(t, err)
			must(t, echoed(gone, "before"))
			must(t, echoed(stays, "before"))
			began := time.Now()
			must(t, s.r.RevokeFast(s.l.Bottle, func(name string, port uint16) bool { return name == goodName && port == 443 }))
			if err := echoed(gone, "after"); err == nil || !strings.Contains(err.Error(), "reset") {
				t.Errorf("the revoked connection: %v, want a reset", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
			must(t, echoed(stays, "after"))
			eventually(t, "the record", func() bool {
				return slices.ContainsFunc(s.events(), func(e FastEvent) bool { return e.Reason == FastRevoked && e.Flow.Name == otherName })
			})
			if _, err := s.call(otherName); err == nil {
				t.Error("the revoked name can still be called on the fast path")
			}
		})
	}
}

// TestFastPathRevocationWakesTheReader cuts a connection whose bottle waits for bytes and says nothing: it is reset.
func TestFastPathRevocationWakesTheReader(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := newFastStage(t, mode)
			s.pin(goodName)
			c, err := s.call(goodName)
			must(t, err)
			must(t, c.NetConn().(*net.TCPConn).SetKeepAlive(false))
			must(t, echoed(c, "before"))
			time.Sleep(500 * time.Millisecond) // by then its acknowledgement has left (RFC 9293 section 3.8.6.3)
			must(t, s.r.RevokeFast(s.l.Bottle, nil))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the reader gets %v, want a reset", err)
			}
			eventually(t, "the record", func() bool {
				return slices.ContainsFunc(s.events(), func(e FastEvent) bool { return e.Refused && e.Reason == FastRevoked })
			})
			eventually(t, "conntrack to forget", func() bool { return s.tracked() <= 10 })
		})
	}
}

// TestFastPathIdleRevocation cuts a connection on which nothing moves: it is
// recorded, and nothing of it is left in conntrack.
func TestFastPathIdleRevocation(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	c, err := s.call(goodName)
	must(t, err)
	must(t, echoed(c, "before"))
	must(t, s.r.RevokeFast(s.l.Bottle, nil))
	must(t, s.r.CollectFast())
	eventually(t, "the record", func() bool {
		return slices.ContainsFunc(s.events(), func(e FastEvent) bool { return e.Reason == FastRevoked })
	})
	eventually(t, "conntrack to forget", func() bool { return s.tracked() <= 10 })
	if err := echoed(c, "after"); err == nil {
		t.Error("it goes on")
	}
}

// TestFastPathRecordsTheEnd closes a connection, and expects one record with all
// that passed, and nothing left in any map.
func TestFastPathRecordsTheEnd(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	c, err := s.call(goodName)
	must(t, err)
	must(t, echoed(c, strings.Repeat("x", 5000)))
	if s.r.fast.idle() {
		t.Error("with an open flow there is nothing to collect")
	}
	must(t, c.Close())
	eventually(t, "the record", func() bool {
		must(t, s.r.CollectFast())
		return len(s.events()) > 0
	})
	e := s.events()[0]
	if e.Refused || e.Reason != FastClosed || e.Flow.Name != goodName || e.Flow.Bottle != s.l.Bottle || e.Flow.Src.Addr() != s.l.Guest ||
		e.Flow.Dst != netip.AddrPortFrom(origin, 443) || e.Flow.UpBytes < 5000 || e.Flow.DownBytes < 5000 ||
		e.Flow.UpPackets < 3 || e.Flow.DownPackets < 3 || len(e.Flow.ID) != 32 || e.Flow.Seen.Before(e.Flow.Began) {
		t.Errorf("the record is %+v", e)
	}
	eventually(t, "the entry to go", func() bool {
		must(t, s.r.CollectFast())
		n := 0
		must(t, s.r.fast.eachFlow(func(gatewayFlowKey, *gatewayFlow) { n++ }))
		return n == 0
	})
	var u gatewayUsage
	must(t, s.r.objects.Usages.Lookup(uint32(s.r.Status().Links[0].Ifindex), &u))
	if u.Flows != 0 || u.Hellos != 0 || hellosKept(t, s.r) != 0 || !s.r.fast.idle() {
		t.Errorf("the account says %+v, and %d hellos are kept", u, hellosKept(t, s.r))
	}
}

// TestFastPathOutlivesTheProcess has a connection in use while no process holds
// the instance, and while the next one takes over.
func TestFastPathOutlivesTheProcess(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := newFastStage(t, mode)
			s.pin(goodName)
			c, err := s.call(goodName)
			must(t, err)
			lost := make(chan error, 1)
			stop := make(chan struct{})
			go func() {
				for {
					select {
					case <-stop:
						lost <- nil
						return
					default:
					}
					if err := echoed(c, strings.Repeat("y", 3000)); err != nil {
						lost <- err
						return
					}
				}
			}()
			before, err := s.r.FastFlows(s.l.Bottle)
			must(t, err)
			must(t, s.r.Close())
			s.open()
			s.set(s.l)
			must(t, s.r.RevokeFast(s.l.Bottle, func(name string, _ uint16) bool { return name == goodName }))
			eventually(t, "data after the restart", func() bool {
				after, err := s.r.FastFlows(s.l.Bottle)
				must(t, err)
				return len(after) == 1 && len(before) == 1 && after[0].ID == before[0].ID && after[0].UpBytes > before[0].UpBytes+30000
			})
			close(stop)
			must(t, <-lost)
			must(t, s.r.RevokeFast(s.l.Bottle, nil))
			if err := echoed(c, "after"); err == nil {
				t.Error("the next process cannot cut what the first began")
			}
		})
	}
}

// TestFastPathNeedsTheGateway has no new connection without the listener.
func TestFastPathNeedsTheGateway(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	other := s.link(2)
	s.set(s.l, other) // nobody listens at the second link
	must(t, s.r.SetFast(other.Bottle, origin, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	if c, err := s.enter(other).dial(netip.AddrPortFrom(origin, 443), 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("a connection began without the gateway")
	}
	if c := counters(t, s.r, other); c.Drops[Reason(gatewayDropReasonDROP_NO_LISTENER)] == 0 || c.Forwarded != 0 {
		t.Errorf("counted %+v", c)
	}
}

// TestFastPathEndsWithTheLink takes the bottle away while it talks.
func TestFastPathEndsWithTheLink(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	c, err := s.call(goodName)
	must(t, err)
	must(t, echoed(c, "before"))
	must(t, c.SetDeadline(time.Now().Add(time.Second)))
	s.set()
	if err := echoed(c, "after"); err == nil {
		t.Error("the connection goes on")
	}
	flows := 0
	must(t, s.r.fast.eachFlow(func(_ gatewayFlowKey, f *gatewayFlow) {
		var epoch uint64
		must(t, s.r.objects.Grants.Lookup(f.Grant, &epoch))
		if epoch == f.Epoch {
			flows++
		}
	}))
	if flows != 0 {
		t.Errorf("%d flows still have their permission", flows)
	}
}

// TestFastPathFallsBack makes the kernel unfit to forward, in each way that is
// looked for, and expects the listener to answer instead.
func TestFastPathFallsBack(t *testing.T) {
	nft := func(t *testing.T, text string) {
		t.Helper()
		out, err := exec.Command("nft", text).CombinedOutput()
		if err != nil {
			t.Fatalf("nft %s: %v: %s", text, err, out)
		}
	}
	for _, tc := range []struct {
		name     string
		obstacle string
		spoil    func(t *testing.T, s *fastStage)
	}{
		{"another firewall", "chain FORWARD of table theirs drops", func(t *testing.T, s *fastStage) {
			nft(t, "add table ip theirs")
			t.Cleanup(func() { exec.Command("nft", "delete", "table", "ip", "theirs").Run() })
			nft(t, "add chain ip theirs FORWARD { type filter hook forward priority 0 ; policy drop ; }")
		}},
		{"no default route", "no default route", func(t *testing.T, s *fastStage) {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
			must(t, err)
			for _, r := range routes {
				if isDefault(r.Dst) {
					must(t, netlink.RouteDel(&r))
				}
			}
		}},
		{"a route past the uplink", "", func(t *testing.T, s *fastStage) {
			lo, err := netlink.LinkByIndex(loopbackIndex)
			must(t, err)
			dst := netlink.NewIPNet(origin.AsSlice())
			past := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst}
			must(t, netlink.RouteAdd(past))
			t.Cleanup(func() { must(t, netlink.RouteDel(past)) })
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFastStage(t, AttachAuto)
			tc.spoil(t, s)
			s.set(s.l)
			if got := s.r.FastObstacle(); !strings.Contains(got, tc.obstacle) || (got == "") != (tc.obstacle == "") {
				t.Errorf("the obstacle is %q, want %q", got, tc.obstacle)
			}
			s.pin(goodName)
			if got := s.g.ask(netip.AddrPortFrom(origin, 443)); !strings.Contains(got, origin.String()) {
				t.Errorf("the listener answered %q", got)
			}
			if value, err := readSysctl(forwardingOf(s.l.Name)); err != nil || (value == "0") != (tc.obstacle != "") {
				t.Errorf("forwarding of the link is %s, %v", value, err)
			}
			if c := counters(t, s.r, s.l); c.Forwarded != 0 {
				t.Errorf("counted %+v", c)
			}
		})
	}
}

// TestFastPathLeavesRoutesAlone pins an address whose route then changes.
func TestFastPathLeavesRoutesAlone(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	past := &netlink.Route{LinkIndex: loopbackIndex, Dst: netlink.NewIPNet(origin.AsSlice())}
	must(t, netlink.RouteAdd(past))
	t.Cleanup(func() { must(t, netlink.RouteDel(past)) })
	must(t, s.r.repair())
	if got := s.g.ask(netip.AddrPortFrom(origin, 443)); !strings.Contains(got, origin.String()) {
		t.Errorf("the listener answered %q", got)
	}
}

// TestFastPathAcceptedByOthers has a firewall that drops by default, and accepts
// the mark.
func TestFastPathAcceptedByOthers(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	for _, line := range []string{
		"add table ip theirs",
		"add chain ip theirs FORWARD { type filter hook forward priority 0 ; policy drop ; }",
		"add rule ip theirs FORWARD meta mark and 0x0f000000 == 0x02000000 accept",
		"add rule ip theirs FORWARD ct state established accept",
	} {
		if out, err := exec.Command("nft", line).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v: %s", line, err, out)
		}
	}
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "ip", "theirs").Run() })
	s.set(s.l)
	s.pin(goodName)
	c, err := s.call(goodName)
	must(t, err)
	must(t, echoed(c, "hello"))
}

// TestFastPathNeverGoesToSpecialAddresses asks for pins at addresses to which
// nothing may be forwarded.
func TestFastPathNeverGoesToSpecialAddresses(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	for _, a := range []string{"10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1", "224.0.0.1", "0.0.0.0", "198.19.0.1"} {
		must(t, s.r.SetFast(s.l.Bottle, netip.MustParseAddr(a), []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	}
	var key gatewayDestinationKey
	var value gatewayDestination
	for it := s.r.objects.Destinations.Iterate(); it.Next(&key, &value); {
		t.Errorf("the bottle may call %v", addrOf(key.Daddr))
	}
}

// TestFastPathLastLayer takes the program and the table away while the link's
// forwarding is on for the fast path. Nothing of the bottle may leave.
func TestFastPathLastLayer(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	index := s.r.Status().Links[0].Ifindex
	if value, err := readSysctl(forwardingOf(s.l.Name)); err != nil || value != "1" {
		t.Fatalf("forwarding of the link is %s, %v", value, err)
	}
	must(t, s.r.hooks.detach(index))
	flushRuleset(t)
	s.leaks.forget()
	try := func() int {
		if c, err := s.g.dial(netip.AddrPortFrom(origin, 443), 300*time.Millisecond); err == nil {
			c.Close()
		}
		n := 0
		for _, f := range s.leaks.frames() {
			if len(f) > 30 && netip.AddrFrom4([4]byte(f[26:30])) == s.l.Guest {
				n++
			}
		}
		return n
	}
	if n := try(); n != 0 {
		t.Errorf("%d frames left", n)
	}
	if _, err := removeHeld(map[string]bool{s.l.Name: true}); err != nil {
		t.Fatal(err)
	}
	// The first packet may wait for the neighbour's address, so one try may not be enough.
	for end := time.Now().Add(10 * time.Second); try() == 0; {
		if time.Now().After(end) {
			t.Fatal("nothing left without the rule, either: the test shows nothing")
		}
	}
}

// TestMapsOfFlowsAreNotReplaced pins a map of flows that another version may
// have had, and expects to be told what to run.
func TestMapsOfFlowsAreNotReplaced(t *testing.T) {
	s := newStage(t)
	must(t, s.r.Close())
	pin := filepath.Join(s.options.BPFFS, objectsDir, gatewayMapFlows)
	must(t, os.Remove(pin))
	other, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	must(t, err)
	defer other.Close()
	must(t, other.Pin(pin))
	var state *StateError
	if _, err := Open(t.Context(), s.options); !errors.As(err, &state) || !strings.Contains(state.Remedy, "gatewayd uninstall") {
		t.Errorf("open: %v", err)
	}
	if _, err := Uninstall(t.Context(), s.options); err != nil {
		t.Errorf("the remedy does not work: %v", err)
	}
	s.open()
}
