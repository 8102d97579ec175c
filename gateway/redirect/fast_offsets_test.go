package redirect

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestFastPathForwardsNothingAfterTheVerdict cuts a hello for a name that may not be called at every offset, and sends each
// segment again: what completes it, and all that comes then, becomes a RST without a byte of payload.
func TestFastPathForwardsNothingAfterTheVerdict(t *testing.T) {
	h := newJudgeHarness(t)
	h.allow(goodName)
	lo, err := netlink.LinkByIndex(loopbackIndex) // to which the RST to the bottle goes
	must(t, err)
	_, err = ensureUp(lo)
	must(t, err)
	evil := clientHello(t, evilName)
	runs := 0
	for at := 1; at < len(evil); at++ {
		h.begin()
		h.data(0, evil[:at])
		if f := h.flow(); gatewayFlowState(f.State) != gatewayFlowStateFLOW_UNVERIFIED {
			t.Fatalf("cut at %d: state %d", at, f.State)
		}
		for _, part := range [][2]int{{at, len(evil)}, {at, len(evil)}, {0, at}, {0, len(evil)}} {
			ret, out := h.out(tcpSegment{seq: 1000 + uint32(part[0]), ack: 1, flags: flagACK, payload: evil[part[0]:part[1]]})
			if ret != tcActOK || len(out) != tcpHeadersLen || out[47]&flagRST == 0 || binary.BigEndian.Uint16(out[16:]) != tcpHeadersLen-14 {
				t.Fatalf("cut at %d, bytes %v: returned %d with %x", at, part, ret, out)
			}
			runs++
		}
		if f := h.flow(); gatewayFlowState(f.State) != gatewayFlowStateFLOW_REFUSED {
			t.Fatalf("cut at %d: state %d", at, f.State)
		}
	}
	t.Logf("%d segments after a verdict", runs)
}

// TestFastPathEndsByTheClock has a destination and a pin run out by the monotonic clock: not before, and for good.
func TestFastPathEndsByTheClock(t *testing.T) {
	h := newJudgeHarness(t)
	hello := clientHello(t, goodName)
	const long = 50 * time.Millisecond
	h.allow(goodName)
	h.begin()
	now, err := monotonic()
	must(t, err)
	end := now + uint64(long)
	begun := func() (before bool, began bool) {
		var f gatewayFlow
		if h.objects.Flows.Lookup(h.key, &f) == nil {
			must(t, h.objects.Flows.Delete(h.key))
		}
		must(t, h.objects.Usages.Put(uint32(loopbackIndex), gatewayUsage{}))
		must(t, fillSlots(&h.objects))
		h.pass(tcpSegment{seq: 999, flags: flagSYN})
		at, err := monotonic()
		must(t, err)
		return at < end, h.objects.Flows.Lookup(h.key, &f) == nil
	}
	must(t, h.objects.Destinations.Put(h.dest, gatewayDestination{Expires: end}))
	eventually(t, "the destination to run out", func() bool {
		before, began := begun()
		if before && !began {
			t.Fatal("it ran out too early")
		}
		return !began
	})
	if _, began := begun(); began {
		t.Error("a flow began after the destination had run out")
	}
	k := gatewayPinKey{Ifindex: loopbackIndex, Daddr: h.key.Daddr, Dport: h.key.Dport, NameLen: uint16(len(goodName))}
	copy(k.Name[:], goodName)
	must(t, h.objects.Pins.Put(k, gatewayPin{Expires: now, Epoch: 7, Grant: 1}))
	if name, state := h.judge(hello, 1400); name != "" || state != gatewayFlowStateFLOW_REFUSED {
		t.Errorf("a pin that has run out: %q, state %d", name, state)
	}
}

// TestPaces takes each pace's burst, and what is beyond: frames, DNS datagrams, and SYNs whatever becomes of them.
func TestPaces(t *testing.T) {
	h := newJudgeHarness(t)
	soon := func(what string, change func(s *gatewayLinkStats), frame *frame, why gatewayDropReason) {
		t.Run(what, func(t *testing.T) {
			all := make([]gatewayLinkStats, len(h.stats()))
			for i := range all {
				change(&all[i])
			}
			must(t, h.objects.Stats.Put(uint32(loopbackIndex), all))
			h.run(frame)
			if n := h.drops(why); n != 1 {
				t.Errorf("%d frames dropped as %v", n, Reason(why))
			}
			must(t, h.objects.Stats.Put(uint32(loopbackIndex), make([]gatewayLinkStats, len(all))))
			h.run(frame)
			if n := h.drops(why); n != 0 {
				t.Errorf("%d frames dropped as %v without need", n, Reason(why))
			}
		})
	}
	const later = 1 << 62
	syn := good(h.link)
	soon("SYN for the relay", func(s *gatewayLinkStats) { s.FlowsUntil = later }, syn, gatewayDropReasonDROP_FLOW_PACE)
	must(t, h.objects.Destinations.Put(h.dest, gatewayDestination{Expires: later}))
	soon("SYN for the fast path", func(s *gatewayLinkStats) { s.FlowsUntil = later }, syn, gatewayDropReasonDROP_FLOW_PACE)
	dns := good(h.link)
	dns.ip.proto, dns.body = 17, udp(1000, 53, []byte("x"))
	soon("DNS", func(s *gatewayLinkStats) { s.DnsUntil = later }, dns, gatewayDropReasonDROP_DNS_PACE)
	t.Run("frames", func(t *testing.T) {
		// The window may end meanwhile.
		eventually(t, "a frame beyond the window's", func() bool {
			now, err := monotonic()
			must(t, err)
			all := make([]gatewayLinkStats, len(h.stats()))
			for i := range all {
				all[i].Window, all[i].WindowFrames = now>>gatewayLimitsFRAME_WINDOW_SHIFT, uint64(gatewayLimitsFRAMES_PER_WINDOW)
			}
			must(t, h.objects.Stats.Put(uint32(loopbackIndex), all))
			h.run(syn)
			return h.drops(gatewayDropReasonDROP_FRAME_PACE) == 1
		})
	})
}
