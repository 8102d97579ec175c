package redirect

import (
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// records returns what the ring has.
func (h *judgeHarness) records() (all []gatewayEvent) {
	h.t.Helper()
	reader, err := ringbuf.NewReader(h.objects.Events)
	must(h.t, err)
	defer reader.Close()
	for reader.AvailableBytes() > 0 {
		record, err := reader.Read()
		must(h.t, err)
		all = append(all, *(*gatewayEvent)(unsafe.Pointer(&record.RawSample[0])))
	}
	return all
}

// change writes to the flow's entry.
func (h *judgeHarness) change(change func(f *gatewayFlow)) {
	h.t.Helper()
	f := h.flow()
	change(&f)
	must(h.t, h.objects.Flows.Put(h.key, f))
}

// drops is how many frames were dropped under a reason.
func (h *judgeHarness) drops(why gatewayDropReason) uint64 {
	h.t.Helper()
	c, err := h.table.read(loopbackIndex)
	must(h.t, err)
	return c.Drops[Reason(why)]
}

// delivered has a flow verified, and its hello and what follows acknowledged.
func (h *judgeHarness) delivered() (next int) {
	h.t.Helper()
	hello := clientHello(h.t, goodName)
	h.allow(goodName)
	h.begin()
	h.data(0, hello)
	h.data(len(hello), []byte{23, 3, 3, 0, 1, 0})
	next = len(hello) + 6
	h.answer(tcpSegment{seq: 1, ack: 1000 + uint32(next), flags: flagACK})
	if f := h.flow(); f.Guarded != 0 || gatewayFlowState(f.State) != gatewayFlowStateFLOW_VERIFIED {
		h.t.Fatalf("the flow is %+v", f)
	}
	return next
}

// TestFastPathBelievesTheUpstreamAlone has a socket of the gateway, which has served the same addresses and ports before,
// answer in the upstream's name: that neither opens a flow nor settles what became of a hello.
func TestFastPathBelievesTheUpstreamAlone(t *testing.T) {
	h := newJudgeHarness(t)
	hello := clientHello(t, goodName)
	h.allow(goodName)
	own := func(s tcpSegment) {
		_, err := h.objects.CaptureEgress.Run(&ebpf.RunOptions{Data: h.answering(s), Context: skBuff{Ifindex: loopbackIndex}})
		must(t, err)
	}
	h.begin()
	must(t, h.objects.Flows.Delete(h.key))
	h.pass(tcpSegment{seq: 999, flags: flagSYN})
	own(tcpSegment{ack: 1000, flags: flagSYN | flagACK})
	h.data(0, hello)
	if f := h.flow(); f.Kept != 0 || h.drops(gatewayDropReasonDROP_FLOW_ORDER) != 1 {
		t.Errorf("the gateway's own SYN-ACK opened the flow: %+v", f)
	}
	h.answer(tcpSegment{ack: 1000, flags: flagSYN | flagACK})
	h.data(0, hello)
	h.data(len(hello), []byte{23, 3, 3, 0, 1, 0})
	own(tcpSegment{seq: 1, ack: 1000 + uint32(len(hello)) + 6, flags: flagACK})
	own(tcpSegment{seq: 1, ack: 1000, flags: flagRST | flagACK})
	if f := h.flow(); f.Guarded == 0 || f.Slot == 0 || f.Reset != 0 {
		t.Errorf("the gateway's own ACK settled what became of the hello: %+v", f)
	}
	h.data(0, clientHello(t, evilName))
	if f := h.flow(); gatewayFlowState(f.State) != gatewayFlowStateFLOW_REFUSED {
		t.Errorf("the flow is %+v", f)
	}
}

// TestFastPathOpensByTheAnswerToItsSYN answers a SYN with everything that is no answer to it.
func TestFastPathOpensByTheAnswerToItsSYN(t *testing.T) {
	h := newJudgeHarness(t)
	h.allow(goodName)
	h.begin()
	must(t, h.objects.Flows.Delete(h.key))
	h.pass(tcpSegment{seq: 999, flags: flagSYN})
	for _, s := range []tcpSegment{
		{ack: 1000, flags: flagACK},
		{ack: 1000, flags: flagSYN},
		{ack: 999, flags: flagSYN | flagACK},
		{ack: 1001, flags: flagSYN | flagACK},
		{ack: 1000, flags: flagSYN | flagACK | flagRST},
		{ack: 1000, flags: flagRST | flagACK},
	} {
		h.answer(s)
		h.data(0, []byte{22})
		if f := h.flow(); f.Opened != 0 || f.Kept != 0 {
			t.Fatalf("%+v opened the flow: %+v", s, f)
		}
	}
}

// TestFastPathRefusesOnce has another CPU hold a flow whose permission is withdrawn, or whose translation is gone: it is left
// to that one, and refused with the next segment.
func TestFastPathRefusesOnce(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(h *judgeHarness)
		why   gatewayFlowReason
	}{
		{"revoked", func(h *judgeHarness) { must(h.t, h.objects.Grants.Put(uint32(1), uint64(8))) }, gatewayFlowReasonREASON_REVOKED},
		{"lost", func(h *judgeHarness) {
			h.putInLane()
			h.change(func(f *gatewayFlow) { f.Lane = 2 })
		}, gatewayFlowReasonREASON_LOST},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newJudgeHarness(t)
			next := h.delivered()
			tc.spoil(h)
			h.change(func(f *gatewayFlow) { f.Busy = 1 })
			h.data(next, []byte("x"))
			if f := h.flow(); gatewayFlowState(f.State) != gatewayFlowStateFLOW_VERIFIED || len(h.records()) != 0 ||
				h.drops(gatewayDropReasonDROP_FLOW_BUSY) != 1 {
				t.Errorf("the flow is %+v", f)
			}
			h.change(func(f *gatewayFlow) { f.Busy = 0 })
			h.data(next, []byte("x"))
			h.data(next, []byte("x"))
			if got := h.records(); len(got) != 1 || gatewayFlowReason(got[0].Reason) != tc.why {
				t.Errorf("records: %+v", got)
			}
		})
	}
}

// TestFastPathNothingBeginsWhereAFlowEnds calls again where a flow is over and not collected yet: that is the relay's.
func TestFastPathNothingBeginsWhereAFlowEnds(t *testing.T) {
	h := newJudgeHarness(t)
	h.delivered()
	h.answer(tcpSegment{seq: 1, ack: 1000, flags: flagRST | flagACK})
	must(t, collect(h.objects.CollectFlows))
	h.change(func(f *gatewayFlow) { f.Seen -= uint64(2 * time.Second) })
	must(t, collect(h.objects.CollectFlows))
	if f := h.flow(); gatewayFlowState(f.State) != gatewayFlowStateFLOW_ENDED {
		t.Fatalf("the flow is %+v", f)
	}
	h.pass(tcpSegment{seq: 70000, flags: flagSYN})
	var u gatewayUsage
	must(t, h.objects.Usages.Lookup(uint32(loopbackIndex), &u))
	if f := h.flow(); gatewayFlowState(f.State) != gatewayFlowStateFLOW_ENDED || u.Hellos != 0 || u.Flows != 1 {
		t.Errorf("the flow is %+v, the account %+v", f, u)
	}
	h.change(func(f *gatewayFlow) { f.Seen -= uint64(2 * time.Second) })
	must(t, collect(h.objects.CollectFlows))
	var f gatewayFlow
	must(t, h.objects.Usages.Lookup(uint32(loopbackIndex), &u))
	if err := h.objects.Flows.Lookup(h.key, &f); err == nil || u.Flows != 0 {
		t.Errorf("the flow is %+v, %v, the account %+v", f, err, u)
	}
}

// TestFastPathWaitsForTheSocketsEnd leaves a connection with the relay half open, and has its address pinned then: a SYN with the
// same ports stays the relay's, since the stack would drop what it forwards.
func TestFastPathWaitsForTheSocketsEnd(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	c := newRawClient(s)
	c.connect()
	s.pin(goodName)
	before := counters(t, s.r, s.l)
	for range 3 {
		c.send(tcpSegment{seq: c.start - 1, flags: flagSYN})
	}
	eventually(t, "the SYNs to be judged", func() bool {
		d := difference(counters(t, s.r, s.l), before)
		return d.Assigned+d.Forwarded >= 3
	})
	if d := difference(counters(t, s.r, s.l), before); d.Forwarded != 0 {
		t.Errorf("counted %+v", d)
	}
}

// collect goes over all flows once.
func collect(p *ebpf.Program) error {
	_, err := p.Run(nil)
	return err
}

// TestFastPathRefusalIsReported calls again where a flow was refused that could not be reported yet.
func TestFastPathRefusalIsReported(t *testing.T) {
	h := newJudgeHarness(t)
	h.delivered()
	h.change(func(f *gatewayFlow) {
		f.State, f.Reason = uint8(gatewayFlowStateFLOW_REFUSED), uint8(gatewayFlowReasonREASON_CHANGED)
	})
	h.pass(tcpSegment{seq: 70000, flags: flagSYN})
	if got := h.records(); len(got) != 1 || gatewayEventKind(got[0].Kind) != gatewayEventKindEVENT_REFUSED ||
		gatewayFlowReason(got[0].Reason) != gatewayFlowReasonREASON_CHANGED {
		t.Errorf("records: %+v", got)
	}
}
