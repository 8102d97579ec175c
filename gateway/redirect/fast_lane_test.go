package redirect

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// laneStage is a stage on which flows are redirected.
func laneStage(t *testing.T, mode AttachMode) *fastStage {
	t.Helper()
	s := newFastStage(t, mode)
	if why := s.r.FastLane(); why != "" {
		t.Fatalf("flows are not redirected: %s", why)
	}
	s.pin(goodName)
	return s
}

// inLane waits until all the bottle's flows are in the lane.
func (s *fastStage) inLane(n int) {
	s.t.Helper()
	eventually(s.t, "the flows to be redirected", func() bool {
		in := 0
		must(s.t, s.r.fast.eachFlow(func(_ gatewayFlowKey, f *gatewayFlow) {
			if f.OutPort != 0 && f.Lane != 0 && gatewayFlowState(f.State) == gatewayFlowStateFLOW_VERIFIED {
				in++
			}
		}))
		return in == n
	})
}

// reverses is how many entries the uplink's program knows.
func (s *fastStage) reverses() (n int) {
	s.t.Helper()
	var key gatewayReverseKey
	var value gatewayReverse
	it := s.r.objects.Reverses.Iterate()
	for it.Next(&key, &value) {
		n++
	}
	if err := it.Err(); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// untranslated is how many IP frames reached the internet from the bottle's own
// address.
func (s *fastStage) untranslated() (n int) {
	for _, f := range s.leaks.frames() {
		if len(f) >= 34 && f[12] == 8 && f[13] == 0 && netip.AddrFrom4([4]byte(f[26:30])) == s.l.Guest {
			n++
		}
	}
	return n
}

// TestFastLaneSkipsTheStack sends data both ways, and counts what netfilter sees
// of it: what went before the flow was verified, and no more. The wire must look
// the same either way.
func TestFastLaneSkipsTheStack(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := laneStage(t, mode)
			c, err := s.call(goodName)
			must(t, err)
			s.inLane(1)
			s.leaks.forget()
			before := counters(t, s.r, s.l)
			big := strings.Repeat("0123456789abcdef", 1<<14)
			go io.WriteString(c, big)
			got, err := io.ReadAll(io.LimitReader(c, int64(len(big))))
			if err != nil || string(got) != big {
				t.Fatalf("%d bytes came back, %v", len(got), err)
			}
			after := difference(counters(t, s.r, s.l), before)
			if after.Redirected == 0 || after.Redirected != after.Forwarded || unexpected(after) != 0 {
				t.Errorf("counted %+v", after)
			}
			flows, err := s.r.FastFlows(s.l.Bottle)
			must(t, err)
			if len(flows) != 1 || flows[0].UpBytes < uint64(len(big)) || flows[0].DownBytes < uint64(len(big)) {
				t.Errorf("flows are %+v", flows)
			}
			seen := 0
			for _, f := range s.leaks.frames() {
				if len(f) < 54 || f[12] != 8 || f[13] != 0 || netip.AddrFrom4([4]byte(f[30:34])) != origin {
					continue
				}
				seen++
				if f[22] != 63 || netip.AddrFrom4([4]byte(f[26:30])) != uplinkHost || checksum(f[14:34], 0) != 0 {
					t.Fatalf("a frame left as %x", f[14:54])
				}
			}
			if seen == 0 {
				t.Error("nothing was seen at the internet")
			}
		})
	}
}

// TestFastLaneWithout loads the programs as on a kernel that cannot be asked for
// translations: the flow is forwarded.
func TestFastLaneWithout(t *testing.T) {
	s := newFastStage(t, AttachAuto, func(o *Options) { o.Forward = true })
	s.pin(goodName)
	if s.r.FastLane() == "" {
		t.Error("there is no reason not to redirect")
	}
	c, err := s.call(goodName)
	must(t, err)
	must(t, echoed(c, strings.Repeat("marked", 1000)))
	if n := counters(t, s.r, s.l); n.Forwarded == 0 || n.Redirected != 0 {
		t.Errorf("counted %+v", n)
	}
}

// TestFastLaneCloses closes connections in the lane, from either side. Nothing
// leaves untranslated, nothing is left in any map, and conntrack's entry has only
// some seconds more.
func TestFastLaneCloses(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := laneStage(t, mode)
			must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable)) // what other tests left
			s.leaks.forget()
			for range 20 {
				c, err := s.call(goodName)
				must(t, err)
				must(t, echoed(c, "hello"))
				must(t, c.Close())
			}
			eventually(t, "conntrack to let go", func() bool {
				for line := range strings.Lines(string(conntrack(t))) {
					words := strings.Fields(line) // protocol, its number, seconds left, state, ...
					if seconds, err := strconv.Atoi(words[2]); strings.Contains(line, "dport=443") && (err != nil || seconds > 10) {
						return false
					}
				}
				return true
			})
			eventually(t, "the records", func() bool { must(t, s.r.CollectFast()); return len(s.events()) == 20 })
			for _, e := range s.events() {
				if e.Reason != FastClosed || e.Refused {
					t.Errorf("event %+v", e)
				}
			}
			if n := s.reverses(); n != 0 {
				t.Errorf("%d entries are left at the uplink", n)
			}
			if n := s.untranslated(); n != 0 {
				t.Errorf("%d frames left untranslated", n)
			}
		})
	}
}

// TestFastLaneRevocation cuts a flow in the lane: both sides are reset, the
// upstream by a frame from the address that it knows.
func TestFastLaneRevocation(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := laneStage(t, mode)
			c, err := s.call(goodName)
			must(t, err)
			must(t, echoed(c, "before"))
			s.inLane(1)
			s.leaks.forget()
			must(t, s.r.RevokeFast(s.l.Bottle, nil))
			if err := echoed(c, "after"); err == nil || !strings.Contains(err.Error(), "reset") {
				t.Errorf("the revoked connection: %v, want a reset", err)
			}
			eventually(t, "RST to the upstream", func() bool {
				return slices.ContainsFunc(s.leaks.frames(), func(f []byte) bool {
					return len(f) >= 54 && f[23] == 6 && f[47]&flagRST != 0 && netip.AddrFrom4([4]byte(f[26:30])) == uplinkHost
				})
			})
			if n := s.reverses(); n != 0 {
				t.Errorf("%d entries are left at the uplink", n)
			}
			if n := s.untranslated(); n != 0 {
				t.Errorf("%d frames left untranslated", n)
			}
			for _, f := range s.leaks.frames() {
				if len(f) > 54 && f[23] == 6 && netip.AddrFrom4([4]byte(f[30:34])) == origin && len(f) > 34+int(f[46]>>4)*4 {
					t.Errorf("payload left after the revocation: %x", f)
				}
			}
			eventually(t, "conntrack to forget", func() bool { return s.tracked() <= 10 })
		})
	}
}

// TestFastLaneNarrowUplink lowers the uplink's MTU below that of a flow in the
// lane. What is too large gets the stack's ICMP, and the flow goes on.
func TestFastLaneNarrowUplink(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := laneStage(t, mode)
			c, err := s.call(goodName)
			must(t, err)
			must(t, echoed(c, strings.Repeat("wide", 2000)))
			s.inLane(1)
			up, err := netlink.LinkByName("up0")
			must(t, err)
			must(t, netlink.LinkSetMTU(up, 1280))
			must(t, inNetns(s.net, func() error { // else what it sends is lost, unless it is a large frame of many segments
				dev, err := netlink.LinkByName("net0")
				if err != nil {
					return err
				}
				return netlink.LinkSetMTU(dev, 1280)
			}))
			s.leaks.forget()
			must(t, echoed(c, strings.Repeat("narrow", 3000)))
			if n := s.untranslated(); n != 0 {
				t.Errorf("%d frames left untranslated", n)
			}
			if e := s.events(); len(e) != 0 {
				t.Errorf("events %+v", e)
			}
		})
	}
}

// TestFastLanePortReuse has a connection in the lane replaced by another one with
// the same addresses and ports. It is the relay's, and so is each as long as the
// entry of the first is there; then there can be a flow again.
func TestFastLanePortReuse(t *testing.T) {
	s := laneStage(t, AttachAuto)
	hello, evil := clientHello(t, goodName), clientHello(t, "evil.test")
	c := newRawClient(s)
	c.connect()
	c.data(0, hello)
	c.answered()
	s.inLane(1)
	c.send(tcpSegment{seq: c.start + uint32(len(hello)), ack: c.ack, flags: flagRST | flagACK})
	before := counters(t, s.r, s.l)
	c.start += 1 << 24
	c.connect()
	c.data(0, evil)
	eventually(t, "the relay to have it", func() bool {
		d := difference(counters(t, s.r, s.l), before)
		return d.Assigned >= 3 && d.Forwarded == 0
	})
	if n := s.reverses(); n != 0 {
		t.Errorf("%d entries of the old connection are at the uplink", n)
	}
	eventually(t, "the record", func() bool {
		return slices.ContainsFunc(s.events(), func(e FastEvent) bool { return e.Reason == FastReplaced && e.Flow.Name == goodName })
	})
	c.over()
	c.start += 1 << 24
	c.connect()
	c.in.forget()
	c.data(0, hello)
	c.answered()
	s.inLane(1)
	if got := string(c.left()); strings.Contains(got, "evil.test") {
		t.Error("the evil name left")
	}
	if n := s.untranslated(); n != 0 {
		t.Errorf("%d frames left untranslated", n)
	}
}

// TestFastLaneForgottenByConntrack flushes connection tracking under a flow in
// the lane, and changes a route, which has it look again: it is cut, since its
// port may be somebody else's.
func TestFastLaneForgottenByConntrack(t *testing.T) {
	s := laneStage(t, AttachAuto)
	c, err := s.call(goodName)
	must(t, err)
	must(t, echoed(c, "before"))
	s.inLane(1)
	must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable))
	s.leaks.forget()
	s.newRoute()
	must(t, s.r.repair())
	if err := echoed(c, "after"); err == nil {
		t.Error("it goes on")
	}
	eventually(t, "the refusal", func() bool {
		return slices.ContainsFunc(s.events(), func(e FastEvent) bool { return e.Refused && e.Reason == FastLost })
	})
	if n := s.untranslated(); n != 0 {
		t.Errorf("%d frames left untranslated", n)
	}
}

// newRoute adds a route that concerns nobody.
func (s *fastStage) newRoute() {
	s.t.Helper()
	up, err := netlink.LinkByName("up0")
	must(s.t, err)
	r := &netlink.Route{LinkIndex: up.Attrs().Index, Dst: netlink.NewIPNet(netip.MustParseAddr("198.19.99.1").AsSlice()), Gw: uplinkInternet.AsSlice()}
	must(s.t, netlink.RouteAdd(r))
	s.t.Cleanup(func() { _ = netlink.RouteDel(r) })
}

// TestFastLaneFollowsRoutes changes a route under a flow in the lane, which asks
// again and goes on there.
func TestFastLaneFollowsRoutes(t *testing.T) {
	s := laneStage(t, AttachAuto)
	c, err := s.call(goodName)
	must(t, err)
	must(t, echoed(c, "before"))
	s.inLane(1)
	s.newRoute()
	must(t, s.r.repair())
	before := counters(t, s.r, s.l)
	must(t, echoed(c, "after"))
	if after := difference(counters(t, s.r, s.l), before); after.Redirected == 0 || after.Redirected != after.Forwarded {
		t.Errorf("counted %+v", after)
	}
}

// TestFastLaneLeavesOthersAlone has packets at the uplink that are nobody's in
// the lane: the host's own connection works, and a stranger's SYN to a port of
// the lane reaches no bottle.
func TestFastLaneLeavesOthersAlone(t *testing.T) {
	s := laneStage(t, AttachAuto)
	c, err := s.call(goodName)
	must(t, err)
	s.inLane(1)
	in := newCatcher(t, s.g.ns, guestInterface)
	own, err := tls.Dial("tcp4", netip.AddrPortFrom(origin, 443).String(), &tls.Config{ServerName: goodName, InsecureSkipVerify: true})
	must(t, err)
	defer own.Close()
	must(t, own.SetDeadline(time.Now().Add(patience)))
	must(t, echoed(own, "the host's own"))
	must(t, echoed(c, "the bottle's")) // which is behind whatever went astray
	port, seen := own.LocalAddr().(*net.TCPAddr).Port, 0
	for _, f := range in.frames() {
		if len(f) < 54 || f[23] != 6 {
			continue
		}
		if int(binary.BigEndian.Uint16(f[36:])) == port {
			t.Errorf("the bottle got %x", f)
		}
		seen++
	}
	if seen == 0 {
		t.Error("not even the bottle's own frames were seen")
	}
}

// TestFastLaneUplinkMadeAgain deletes the uplink under a flow in the lane and
// makes it again: the flow ends, nothing leaks, and new ones are redirected there.
func TestFastLaneUplinkMadeAgain(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := laneStage(t, mode)
			c, err := s.call(goodName)
			must(t, err)
			s.inLane(1)
			up, err := netlink.LinkByName("up0")
			must(t, err)
			must(t, netlink.LinkDel(up))
			must(t, s.r.repair())
			if o := s.r.FastObstacle(); o == "" {
				t.Error("the fast path is open without an uplink")
			}
			must(t, c.SetDeadline(time.Now().Add(300*time.Millisecond)))
			if err := echoed(c, "after"); err == nil {
				t.Error("the flow goes on")
			}
			s.buildUplink()
			must(t, inNetns(s.net, func() error {
				dev, err := netlink.LinkByName("net0")
				if err != nil {
					return err
				}
				_, err = ensureAddress(dev, origin, 24, false)
				return err
			}))
			s.serve()
			must(t, s.r.repair())
			s.pin(goodName)
			again, err := s.call(goodName)
			must(t, err)
			must(t, echoed(again, "after"))
			eventually(t, "a flow by the new uplink", func() bool {
				now, err := netlink.LinkByName("up0")
				must(t, err)
				found := false
				must(t, s.r.fast.eachFlow(func(_ gatewayFlowKey, f *gatewayFlow) {
					found = found || f.Uplink == uint32(now.Attrs().Index) && f.OutPort != 0
				}))
				return found
			})
			if n := s.untranslated(); n != 0 {
				t.Errorf("%d frames left untranslated", n)
			}
			indices, err := pinnedUplinks(s.r.dir)
			must(t, err)
			if mode == AttachTCX && len(indices) != 1 {
				t.Errorf("pinned for %v", indices)
			}
		})
	}
}

// TestFastLaneUpgrade swaps the programs for others under a flow in the lane.
func TestFastLaneUpgrade(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := laneStage(t, mode)
			c, err := s.call(goodName)
			must(t, err)
			must(t, echoed(c, "before"))
			s.inLane(1)
			s.unwatch()
			must(t, s.r.Close())
			for _, marked := range []bool{true, false} {
				s.options.Forward = marked
				s.open()
				s.set(s.l)
				must(t, s.r.RevokeFast(s.l.Bottle, func(string, uint16) bool { return true }))
				if !marked {
					must(t, echoed(c, "after"))
				}
				if marked {
					must(t, s.r.Close())
				}
			}
			if n := s.untranslated(); n != 0 {
				t.Errorf("%d frames left untranslated", n)
			}
		})
	}
}

// TestFastLaneWithoutItsProgram takes the program off the uplink under a flow in the lane: what answers the flow comes by the
// stack, and nothing leaves untranslated, before the program is put back and after.
func TestFastLaneWithoutItsProgram(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := laneStage(t, mode)
			c, err := s.call(goodName)
			must(t, err)
			must(t, echoed(c, "before"))
			s.inLane(1)
			up, err := netlink.LinkByName("up0")
			must(t, err)
			must(t, s.r.uplink.detach(up.Attrs().Index))
			must(t, echoed(c, "without"))
			must(t, s.r.repair())
			must(t, echoed(c, "with"))
			if n := s.untranslated(); n != 0 {
				t.Errorf("%d frames left untranslated", n)
			}
		})
	}
}

// TestFastLaneUninstall leaves nothing of the lane behind.
func TestFastLaneUninstall(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := laneStage(t, mode)
			up, err := netlink.LinkByName("up0")
			must(t, err)
			on := s.r.uplink
			if ok, err := on.attached(up.Attrs().Index); err != nil || !ok {
				t.Fatalf("the program is not at the uplink: %v", err)
			}
			objects, err := s.r.objects.UplinkIngress.Clone()
			must(t, err)
			defer objects.Close()
			id, err := programID(objects)
			must(t, err)
			s.unwatch()
			must(t, s.r.Close())
			if _, err := Uninstall(t.Context(), s.options); err != nil {
				t.Fatal(err)
			}
			left := (&clsactHooks{points: []hookPoint{{name: gatewayProgUplinkIngress, prog: objects, id: id}}})
			if ok, err := left.attached(up.Attrs().Index); err != nil || ok {
				t.Errorf("the filter is still at the uplink: %v", err)
			}
			s.open()
		})
	}
}
