package redirect

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	gwtls "gatewayd/gateway/tls"
	"gatewayd/lab/privileged"
)

// judgeHarness runs the program by itself on the segments of a stream.
type judgeHarness struct {
	*program
	t     testing.TB
	key   gatewayFlowKey
	dest  gatewayDestinationKey
	begun int
}

func newJudgeHarness(t testing.TB) *judgeHarness {
	t.Helper()
	privileged.Require(t, privileged.Root, privileged.BPF)
	p := newProgram(t)
	p.link.InterceptPort = uint16(20000 + os.Getpid()%20000) // the workers of a fuzzing run share a namespace
	s := &stage{t: t}
	s.listenTCP(netip.AddrPortFrom(p.link.Gateway, p.link.InterceptPort))
	e, err := entry(p.link, hostMAC("stage", p.link), true)
	must(t, err)
	e.Fast = 1
	_, err = p.table.put(loopbackIndex, e)
	must(t, err)
	must(t, (&fastTable{objects: &p.objects}).begin(loopbackIndex))
	must(t, fillSlots(&p.objects))
	must(t, p.objects.Grants.Put(uint32(1), uint64(7)))
	must(t, learnLayout(p.objects.Layouts))
	h := &judgeHarness{program: p, t: t}
	h.key = gatewayFlowKey{Ifindex: loopbackIndex, Daddr: networkOrder32(called), Sport: networkOrder16(40000), Dport: networkOrder16(443)}
	h.dest = gatewayDestinationKey{Ifindex: loopbackIndex, Daddr: h.key.Daddr, Dport: h.key.Dport}
	return h
}

// allow pins one name at the address, and says whether it fits a pin.
func (h *judgeHarness) allow(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	k := gatewayPinKey{Ifindex: loopbackIndex, Daddr: h.key.Daddr, Dport: h.key.Dport, NameLen: uint16(len(name))}
	copy(k.Name[:], name)
	must(h.t, h.objects.Pins.Put(k, gatewayPin{Expires: 1 << 62, Epoch: 7, Grant: 1}))
	return true
}

func (h *judgeHarness) pass(s tcpSegment) { h.out(s) }

// out is what the program says of a segment, and what it makes of it.
func (h *judgeHarness) out(s tcpSegment) (uint32, []byte) {
	s.sport, s.dport = 40000, 443
	f := good(h.link)
	f.body = s.bytes(h.link.Guest, called)
	return h.run(f)
}

func (h *judgeHarness) run(f *frame) (uint32, []byte) {
	o := &ebpf.RunOptions{Data: f.bytes(), DataOut: make([]byte, 2048), Context: skBuff{Ifindex: loopbackIndex}}
	ret, err := h.objects.CaptureIngress.Run(o)
	must(h.t, err)
	return ret, o.DataOut
}

// stats is what is counted on each CPU.
func (h *judgeHarness) stats() (all []gatewayLinkStats) {
	must(h.t, h.objects.Stats.Lookup(uint32(loopbackIndex), &all))
	return all
}

// begin opens a connection in place of the one before.
func (h *judgeHarness) begin() {
	var before gatewayFlow
	if h.objects.Flows.Lookup(h.key, &before) == nil {
		must(h.t, h.objects.Flows.Delete(h.key))
		must(h.t, fillSlots(&h.objects))
	}
	must(h.t, h.objects.Usages.Put(uint32(loopbackIndex), gatewayUsage{}))
	must(h.t, h.objects.Destinations.Put(h.dest, gatewayDestination{Expires: 1 << 62}))
	if h.begun++; h.begun%1000 == 0 { // the pace of new flows is not what is tested
		must(h.t, h.objects.Stats.Put(uint32(loopbackIndex), make([]gatewayLinkStats, ebpf.MustPossibleCPU())))
	}
	h.pass(tcpSegment{seq: 999, flags: flagSYN})
	h.answer(tcpSegment{ack: 1000, flags: flagSYN | flagACK})
}

// answer is a segment of the upstream's, come in by another interface.
func (h *judgeHarness) answer(s tcpSegment) {
	_, err := h.objects.CaptureEgress.Run(&ebpf.RunOptions{Data: h.answering(s), Context: fromUpstream})
	must(h.t, err)
}

// fromUpstream is what the kernel knows of a frame that is forwarded to the bottle.
var fromUpstream = skBuff{Ifindex: loopbackIndex, IngressIfindex: loopbackIndex + 1}

func (h *judgeHarness) answering(s tcpSegment) []byte {
	f := good(h.link)
	f.dst, f.src, f.ip.src, f.ip.dst = f.src, f.dst, called, h.link.Guest
	s.sport, s.dport = 443, 40000
	f.body = s.bytes(called, h.link.Guest)
	return f.bytes()
}

func (h *judgeHarness) data(at int, b []byte) {
	h.pass(tcpSegment{seq: 1000 + uint32(at), ack: 1, flags: flagACK, payload: b})
}

func (h *judgeHarness) flow() gatewayFlow {
	var f gatewayFlow
	must(h.t, h.objects.Flows.Lookup(h.key, &f))
	return f
}

// judged is the name that the program has read last of a flow whose hello it keeps.
func (h *judgeHarness) judged(f *gatewayFlow) string {
	var kept gatewayHello
	must(h.t, h.objects.Hellos.Lookup(f.Slot, &kept))
	return string(kept.Key.Name[:kept.Key.NameLen])
}

// judge feeds a stream in segments of the given size, and returns the name that
// was let through, "" for none.
func (h *judgeHarness) judge(stream []byte, size int) (name string, state gatewayFlowState) {
	h.begin()
	for at := 0; at < len(stream); at += size {
		h.data(at, stream[at:min(at+size, len(stream))])
	}
	f := h.flow()
	if gatewayFlowState(f.State) == gatewayFlowStateFLOW_VERIFIED {
		return h.judged(&f), gatewayFlowStateFLOW_VERIFIED
	}
	return "", gatewayFlowState(f.State)
}

// strict is what the parser of the other lanes says of a stream.
func strict(stream []byte) (name string, size int) {
	h, read, err := gwtls.Peek(bytes.NewReader(stream))
	if err != nil {
		return "", len(read)
	}
	return h.ServerName, h.Size + 5
}

// corpus returns the recorded hellos.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../tls/testdata/hello/*.bin")
	must(t, err)
	if len(files) < 10 {
		t.Fatalf("%d recorded hellos", len(files))
	}
	all := make(map[string][]byte)
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		all[filepath.Base(f)] = b
	}
	return all
}

// firstRecord is the stream up to the end of its first record.
func firstRecord(b []byte) []byte { return b[:5+int(binary.BigEndian.Uint16(b[3:]))] }

// TestFastPathJudgesRecordedHellos feeds every hello whole, cut at every offset,
// ended at every offset and in segments of several sizes. A whole one is let
// through under the name that the other parser reads, a cut one is waited for.
func TestFastPathJudgesRecordedHellos(t *testing.T) {
	h := newJudgeHarness(t)
	runs := 0
	for file, stream := range corpus(t) {
		hello := firstRecord(stream)
		name, _ := strict(hello)
		if !h.allow(name) {
			t.Fatalf("%s: the other parser reads no name", file)
		}
		if bytes.Contains(hello, []byte{0, 42, 0, 0}) {
			if got, state := h.judge(hello, 1400); got != "" || state != gatewayFlowStateFLOW_REFUSED {
				t.Errorf("%s offers early data: %q, state %d", file, got, state)
			}
			continue
		}
		for _, size := range []int{len(hello), 1400, 536, 100, 7, 1} {
			if got, state := h.judge(hello, min(size, 1400)); got != name {
				t.Errorf("%s in segments of %d: %q, state %d, reason %v", file, size, got, state, h.flow().Reason)
			}
			runs++
		}
		for at := 1; at < len(hello); at++ {
			h.begin()
			h.data(0, hello[:at])
			if f := h.flow(); gatewayFlowState(f.State) != gatewayFlowStateFLOW_UNVERIFIED {
				t.Fatalf("%s ended at %d: state %d, %v", file, at, f.State, FastReason(f.Reason))
			}
			h.data(at, hello[at:])
			if f := h.flow(); h.judged(&f) != name || gatewayFlowState(f.State) != gatewayFlowStateFLOW_VERIFIED {
				t.Fatalf("%s cut at %d: %q, state %d, %v", file, at, h.judged(&f), f.State, FastReason(f.Reason))
			}
			runs++
		}
	}
	t.Logf("%d streams", runs)
}

// TestFastPathRefusesSplitRecords splits each hello over two records at every
// offset: the other lanes take that, the fast path leaves it to them.
func TestFastPathRefusesSplitRecords(t *testing.T) {
	h := newJudgeHarness(t)
	runs := 0
	for file, stream := range corpus(t) {
		hello := firstRecord(stream)
		name, _ := strict(hello)
		h.allow(name)
		for at := 1; at < len(hello)-5; at++ {
			body := hello[5:]
			split := append([]byte{22, 3, 1, byte(at >> 8), byte(at)}, body[:at]...)
			split = append(split, 22, 3, 1, byte((len(body)-at)>>8), byte(len(body)-at))
			split = append(split, body[at:]...)
			if got, _ := strict(split); got != name {
				t.Fatalf("%s split at %d: the other parser reads %q", file, at, got)
			}
			if got, _ := h.judge(split, 1400); got != "" {
				t.Fatalf("%s split at %d: let through as %q", file, at, got)
			}
			runs++
		}
	}
	t.Logf("%d streams", runs)
}

// TestFastPathIsNeverTheLooser spoils recorded hellos at random. Whatever the
// program lets through, the other parser reads with the same name.
func TestFastPathIsNeverTheLooser(t *testing.T) {
	h := newJudgeHarness(t)
	var all [][]byte
	for _, stream := range corpus(t) {
		hello := firstRecord(stream)
		if name, _ := strict(hello); h.allow(name) {
			all = append(all, hello)
		}
	}
	rounds, agreed, stricter := 40000, 0, 0
	if testing.Short() {
		rounds = 2000
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range rounds {
		stream := slices.Clone(all[random.IntN(len(all))])
		for range 1 + random.IntN(3) {
			spoilHello(random, &stream)
		}
		want, _ := strict(stream)
		got, _ := h.judge(stream, 1400)
		switch {
		case got != "" && got != want:
			t.Fatalf("let through as %q, which the other parser reads as %q: %x", got, want, stream)
		case got != "":
			agreed++
		case want != "":
			stricter++
		}
	}
	t.Logf("%d streams: %d let through by both, %d by the other parser alone", rounds, agreed, stricter)
	if agreed == 0 {
		t.Error("nothing was let through: the streams are spoiled too much")
	}
}

// spoilHello changes a byte, a length, or the number of bytes somewhere.
func spoilHello(r *rand.Rand, stream *[]byte) {
	b := *stream
	at := r.IntN(len(b))
	switch r.IntN(5) {
	case 0:
		b[at] ^= 1 << r.IntN(8)
	case 1:
		b[at] = byte(r.IntN(256))
	case 2:
		b = slices.Insert(b, at, byte(r.IntN(256)))
	case 3:
		b = slices.Delete(b, at, min(at+1+r.IntN(4), len(b)))
	case 4: // repeat a stretch, and make the three outer lengths fit
		n := min(4+r.IntN(40), len(b)-at)
		b = slices.Insert(b, at, slices.Clone(b[at:at+n])...)
		if len(b) > 9 {
			binary.BigEndian.PutUint16(b[3:], uint16(len(b)-5))
			b[6], b[7], b[8] = 0, byte((len(b)-9)>>8), byte(len(b)-9)
		}
	}
	if len(b) > 0 {
		*stream = b
	}
}
