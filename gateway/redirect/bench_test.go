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

// BenchmarkLook is what Watch does for one link when all is well.
func BenchmarkLook(b *testing.B) {
	s := newStage(b)
	l := s.link(1)
	s.set(l)
	for b.Loop() {
		must(b, s.r.repair())
	}
}
