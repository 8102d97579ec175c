package redirect

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"gatewayd/lab/privileged"
)

// BenchmarkProgram runs the ingress program alone, a frame at a time: what a
// drop costs early and late.
func BenchmarkProgram(b *testing.B) {
	privileged.Require(b, privileged.Root, privileged.BPF)
	p := newProgram(b)
	spoofed := good(p.link)
	spoofed.ip.src = uplinkHost
	for _, bm := range []struct {
		name  string
		frame []byte
	}{
		{"spoofed address", spoofed.bytes()},
		{"SYN without listener", good(p.link).bytes()},
	} {
		b.Run(bm.name, func(b *testing.B) {
			ret, err := p.objects.CaptureIngress.Run(&ebpf.RunOptions{Data: bm.frame,
				Context: fromUpstream, Repeat: uint32(b.N)})
			must(b, err)
			if ret != tcActShot {
				b.Fatalf("returned %d", ret)
			}
		})
	}
}

// BenchmarkFastPath is a segment of a verified flow each way, without what
// netfilter and routing add: marked for the stack, in the redirect lane, and what
// looking at the checksum's place takes of it. An empty program takes some 35 ns.
func BenchmarkFastPath(b *testing.B) {
	h := newJudgeHarness(b)
	h.delivered()
	s := tcpSegment{sport: 40000, dport: 443, seq: 5000, ack: 1, flags: flagACK, payload: make([]byte, 1000)}
	f := good(h.link)
	f.body = s.bytes(h.link.Guest, called)
	up, answer := f.bytes(), h.answering(tcpSegment{seq: 1, ack: 5000, flags: flagACK, payload: make([]byte, 1000)})

	b.Run("marked/to the upstream", func(b *testing.B) { h.repeat(b, h.objects.CaptureIngress, up, b.N, 0) })
	b.Run("to the bottle", func(b *testing.B) { h.repeat(b, h.objects.CaptureEgress, answer, b.N, tcActUnspec) })
	b.Run("marked/without the place", func(b *testing.B) {
		must(b, h.objects.Layouts.Put(uint32(0), gatewaySkbLayout{}))
		defer func() { must(b, learnLayout(h.objects.Layouts)) }()
		h.repeat(b, h.objects.CaptureIngress, up, b.N, 0)
	})
	b.Run("redirected/to the upstream", func(b *testing.B) {
		h.putInLane()
		h.repeat(b, h.objects.CaptureIngress, up, b.N, tcActRedirect)
	})
	b.Run("redirected/at the uplink", func(b *testing.B) {
		h.putInLane()
		f := good(h.link)
		f.dst, f.ip.src, f.ip.dst, f.ip.ttl = make([]byte, 6), called, h.link.Guest, 255
		f.body = tcpSegment{sport: 443, dport: 40000, seq: 1, ack: 5000, flags: flagACK, payload: make([]byte, 1000)}.bytes(called, h.link.Guest)
		for left := b.N; left > 0; left -= 250 { // each round takes one from the time to live
			h.repeat(b, h.objects.UplinkIngress, f.bytes(), min(left, 250), tcActRedirect)
		}
	})
	b.Run("a stranger's at the uplink", func(b *testing.B) { h.repeat(b, h.objects.UplinkIngress, up, b.N, tcActUnspec) })
}

// What the programs return, as the kernel reports it (linux/pkt_cls.h).
const (
	tcActUnspec   = 1<<32 - 1
	tcActRedirect = 7
)

// repeat runs a program n times on one frame, which must have it return want.
func (h *judgeHarness) repeat(b *testing.B, p *ebpf.Program, frame []byte, n int, want uint32) {
	b.Helper()
	for left := n; left > 0; left -= 100000 { // the pace of frames is not what is measured
		must(b, h.objects.Stats.Put(uint32(loopbackIndex), make([]gatewayLinkStats, ebpf.MustPossibleCPU())))
		got, err := p.Run(&ebpf.RunOptions{Data: frame, Context: fromUpstream, Repeat: uint32(min(left, 100000))})
		must(b, err)
		if got != want {
			b.Fatalf("returned %d, want %d", int32(got), int32(want))
		}
	}
}

// putInLane has the flow redirected, translated into what it is already: so a
// frame can go round and round.
func (h *judgeHarness) putInLane() {
	b := h.t
	b.Helper()
	now, err := monotonic()
	must(b, err)
	guest := networkOrder32(h.link.Guest)
	f := h.flow()
	f.OutAddr, f.OutPort, f.Uplink, f.NextHop, f.Lane = guest, h.key.Sport, loopbackIndex, h.key.Daddr, 1
	f.Checked = now - uint64(time.Second) // the programs read a clock that lags by a tick
	must(b, h.objects.Flows.Put(h.key, f))
	must(b, h.objects.Lanes.Put(uint32(0), gatewayLane{Uplink: loopbackIndex, Generation: 1, Addrs: [8]uint32{guest}}))
	must(b, h.objects.Reverses.Put(gatewayReverseKey{Ifindex: loopbackIndex, Remote: h.key.Daddr, Local: guest,
		RemotePort: h.key.Dport, LocalPort: h.key.Sport}, gatewayReverse{Key: h.key}))
}

// BenchmarkLook is what Watch does for one link when all is well.
func BenchmarkLook(b *testing.B) {
	s := newStage(b)
	l := s.link(1)
	s.set(l)
	for b.Loop() {
		must(b, s.r.repair())
	}
}
