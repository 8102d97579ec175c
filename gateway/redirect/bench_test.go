package redirect

import (
	"testing"

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
				Context: skBuff{Ifindex: loopbackIndex}, Repeat: uint32(b.N)})
			must(b, err)
			if ret != tcActShot {
				b.Fatalf("returned %d", ret)
			}
		})
	}
}

// BenchmarkFastPath is a segment of a verified flow each way, without what
// netfilter and routing add. An empty program takes some 35 ns here.
func BenchmarkFastPath(b *testing.B) {
	h := newJudgeHarness(b)
	hello := clientHello(b, goodName)
	h.allow(goodName)
	down := func(b *testing.B, s tcpSegment) {
		f := good(h.link)
		f.dst, f.src, f.ip.src, f.ip.dst = f.src, f.dst, called, h.link.Guest
		s.sport, s.dport = 443, 40000
		f.body = s.bytes(called, h.link.Guest)
		_, err := h.objects.CaptureEgress.Run(&ebpf.RunOptions{Data: f.bytes(), Context: skBuff{Ifindex: loopbackIndex}, Repeat: uint32(b.N)})
		must(b, err)
	}
	h.begin()
	h.data(0, hello)
	h.data(len(hello), []byte{23, 3, 3, 0, 1, 0})
	one := &testing.B{N: 1}
	down(one, tcpSegment{seq: 1, ack: 1000 + uint32(len(hello)) + 6, flags: flagACK})
	if f := h.flow(); f.Guarded != 0 || gatewayFlowState(f.State) != gatewayFlowStateFLOW_VERIFIED {
		b.Fatalf("the flow is %+v", f)
	}
	b.Run("to the upstream", func(b *testing.B) {
		s := tcpSegment{sport: 40000, dport: 443, seq: 5000, ack: 1, flags: flagACK, payload: make([]byte, 1000)}
		f := good(h.link)
		f.body = s.bytes(h.link.Guest, called)
		for left := b.N; left > 0; left -= 100000 { // the pace of frames is not what is measured
			must(b, h.objects.Stats.Put(uint32(loopbackIndex), make([]gatewayLinkStats, ebpf.MustPossibleCPU())))
			ret, err := h.objects.CaptureIngress.Run(&ebpf.RunOptions{Data: f.bytes(),
				Context: skBuff{Ifindex: loopbackIndex}, Repeat: uint32(min(left, 100000))})
			must(b, err)
			if ret != 0 {
				b.Fatalf("returned %d", ret)
			}
		}
	})
	b.Run("to the bottle", func(b *testing.B) {
		down(b, tcpSegment{seq: 1, ack: 5000, flags: flagACK, payload: make([]byte, 1000)})
	})
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
