package redirect

import (
	"encoding/binary"
	"fmt"
	"maps"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// TestRawFramesAreDroppedUnderTheirReason sends every case from a packet socket
// in the bottle. The counts are exact, and nothing reaches the internet (which
// the stage checks when it ends).
func TestRawFramesAreDroppedUnderTheirReason(t *testing.T) {
	for _, mode := range []AttachMode{AttachTCX, AttachClsact} {
		t.Run(string(mode), func(t *testing.T) {
			s := newStage(t, func(o *Options) { o.Attach = mode })
			l := s.link(1)
			s.set(l)
			g := s.enter(l)
			const times = 3
			for _, tc := range rawCases() {
				t.Run(tc.name, func(t *testing.T) {
					before := counters(t, s.r, l)
					for range times {
						g.send(tc.frame(l).bytes())
					}
					eventually(t, "the frames", func() bool {
						return counters(t, s.r, l).RxPackets >= before.RxPackets+times
					})
					got := difference(counters(t, s.r, l), before)
					want := map[Reason]uint64{Reason(tc.reason): times}
					if !maps.Equal(got.Drops, want) || got.RxPackets != times || got.Assigned+got.ARP+got.Refused+got.Forwarded+got.TxPackets != 0 {
						t.Errorf("counted %+v, want drops %v", got, want)
					}
				})
			}
		})
	}
}

func counters(t testing.TB, r *Redirect, l Link) Counters {
	t.Helper()
	c, err := r.Counters(l.Bottle)
	must(t, err)
	return c
}

// difference returns a-b with the reasons that did not occur left out.
func difference(a, b Counters) Counters {
	d := Counters{Drops: map[Reason]uint64{}, RxPackets: a.RxPackets - b.RxPackets, RxBytes: a.RxBytes - b.RxBytes,
		TxPackets: a.TxPackets - b.TxPackets, TxBytes: a.TxBytes - b.TxBytes,
		Forwarded: a.Forwarded - b.Forwarded, Redirected: a.Redirected - b.Redirected, Assigned: a.Assigned - b.Assigned, ARP: a.ARP - b.ARP, Refused: a.Refused - b.Refused}
	for r, n := range a.Drops {
		if n -= b.Drops[r]; n != 0 {
			d.Drops[r] = n
		}
	}
	return d
}

// TestProgramJudgesFrames runs the program by itself on the same cases, on
// frames too short for any device, and on every length that each can be cut to:
// a frame that was cut is never passed, and never dropped without a count.
func TestProgramJudgesFrames(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF)
	p := newProgram(t)
	for _, tc := range rawCases() {
		if tc.wireOnly || len(tc.frame(p.link).bytes()) < leastRun(tc.frame(p.link).bytes()) {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			whole := tc.frame(p.link).bytes()
			if got := p.run(t, whole); got != Reason(tc.reason) {
				t.Errorf("dropped as %v, want %v", got, Reason(tc.reason))
			}
			for n := leastRun(whole); n < len(whole); n++ {
				p.run(t, whole[:n])
			}
		})
	}
	t.Run("shut", func(t *testing.T) {
		e, err := entry(p.link, hostMAC("stage", p.link), false)
		must(t, err)
		_, err = p.table.put(loopbackIndex, e)
		must(t, err)
		if got := p.run(t, good(p.link).bytes()); got != Reason(gatewayDropReasonDROP_SHUT) {
			t.Errorf("dropped as %v", got)
		}
	})
	t.Run("no entry", func(t *testing.T) {
		must(t, p.table.forget(loopbackIndex))
		must(t, p.table.makeStats(loopbackIndex))
		if got := p.run(t, good(p.link).bytes()); got != Reason(gatewayDropReasonDROP_NO_BOTTLE) {
			t.Errorf("dropped as %v", got)
		}
	})
}

// leastRun is the least of a frame that the kernel takes for a test run: the
// Ethernet header and that of IP, if it says so (bpf_prog_test_run_skb).
func leastRun(frame []byte) int {
	const ethernet = 14
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		return ethernet + 20
	case 0x86dd:
		return ethernet + 40
	}
	return ethernet
}

// program is the ingress program with a bottle on lo, to be run by itself.
type program struct {
	objects gatewayObjects
	table   bottleTable
	link    Link
}

func newProgram(t testing.TB) *program {
	t.Helper()
	p := &program{}
	o, _, err := loadUnpinned()
	must(t, err)
	p.objects = *o
	t.Cleanup(func() { must(t, p.objects.Close()) })
	p.table = bottleTable{p.objects.Bottles, p.objects.Stats}
	p.link = linkAt(1, "/run/netns/one")
	e, err := entry(p.link, hostMAC("stage", p.link), true)
	must(t, err)
	_, err = p.table.put(loopbackIndex, e)
	must(t, err)
	return p
}

// skBuff begins like struct __sk_buff in linux/bpf.h.
type skBuff struct {
	_              [2]uint32
	Mark           uint32
	_              [6]uint32
	IngressIfindex uint32
	Ifindex        uint32
	_              [37]uint32
}

// run passes a frame through the program and returns why it was dropped. A
// frame that was not dropped, or not counted once, fails the test.
func (p *program) run(t *testing.T, frame []byte) Reason {
	t.Helper()
	before, err := p.table.read(loopbackIndex)
	must(t, err)
	ctx := skBuff{Ifindex: loopbackIndex}
	ret, err := p.objects.CaptureIngress.Run(&ebpf.RunOptions{Data: frame, Context: ctx})
	if err != nil {
		t.Fatalf("run on %d bytes: %v", len(frame), err)
	}
	after, err := p.table.read(loopbackIndex)
	must(t, err)
	d := difference(after, before)
	if int32(ret) != tcActShot || d.RxPackets != 1 || d.Dropped() != 1 {
		t.Fatalf("%d bytes: returned %d, counted %+v: %x", len(frame), int32(ret), d, frame)
	}
	for r := range d.Drops {
		return r
	}
	panic("unreachable: one drop was counted")
}

// linux/pkt_cls.h
const (
	tcActOK   = 0
	tcActShot = 2
)

// TestReasonTableIsComplete compares the labels with the enum in the object.
func TestReasonTableIsComplete(t *testing.T) {
	seen := make(map[string]bool)
	for r := range Reasons() {
		label := r.String()
		if label == "" || seen[label] {
			t.Errorf("reason %d has label %q, which is empty or taken", uint32(r), label)
		}
		seen[label] = true
	}
	if len(seen) != int(gatewayDropReasonDROP_REASONS)-1 {
		t.Errorf("%d labels for %d reasons", len(seen), gatewayDropReasonDROP_REASONS-1)
	}
	if got, want := Reason(gatewayDropReasonDROP_REASONS).String(), fmt.Sprintf("reason_%d", gatewayDropReasonDROP_REASONS); got != want {
		t.Errorf("a reason without label is %q, want %q", got, want)
	}
	if unix.IFNAMSIZ != maxNameLen+1 {
		t.Errorf("interface names have %d bytes", unix.IFNAMSIZ)
	}
}
