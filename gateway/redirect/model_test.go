package redirect

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"gatewayd/lab/privileged"
)

// verdict is what the program does with a frame, as far as it can be told
// without sockets: a reason for a drop, or one of the two ways out.
type verdict struct {
	reason  gatewayDropReason
	arp     bool // passed to the host
	refused bool // sent back as an ICMP error
}

// model is the program in Go, written from its specification: what a bottle
// may send when nobody listens.
func model(l Link, b []byte) verdict {
	drop := func(r gatewayDropReason) verdict { return verdict{reason: r} }
	etype := binary.BigEndian.Uint16(b[12:])
	switch {
	case etype == 0x8100 || etype == 0x88a8:
		return drop(gatewayDropReasonDROP_VLAN)
	case etype < 0x0600:
		return drop(gatewayDropReasonDROP_LLC)
	case etype == 0x86dd:
		return drop(gatewayDropReasonDROP_IPV6)
	case etype != 0x0800 && etype != 0x0806:
		return drop(gatewayDropReasonDROP_ETHERTYPE)
	case !slices.Equal(b[6:12], l.MAC):
		return drop(gatewayDropReasonDROP_SOURCE_MAC)
	case !slices.Equal(b[:6], hostMAC("stage", l)) && (etype != 0x0806 || !slices.Equal(b[:6], broadcast)):
		return drop(gatewayDropReasonDROP_DESTINATION_MAC)
	case etype == 0x0806:
		return modelARP(l, b[14:])
	}
	return modelIP(l, b[14:])
}

func modelARP(l Link, b []byte) verdict {
	if len(b) < 28 {
		return verdict{reason: gatewayDropReasonDROP_ARP_SHORT}
	}
	if !slices.Equal(b[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return verdict{reason: gatewayDropReasonDROP_ARP_FORM}
	}
	if !slices.Equal(b[8:14], l.MAC) || !slices.Equal(b[14:18], l.Guest.AsSlice()) {
		return verdict{reason: gatewayDropReasonDROP_ARP_SPOOF}
	}
	if binary.BigEndian.Uint16(b[6:]) != 1 || !slices.Equal(b[24:28], l.Gateway.AsSlice()) {
		return verdict{reason: gatewayDropReasonDROP_ARP_FORM}
	}
	return verdict{arp: true}
}

func modelIP(l Link, b []byte) verdict {
	drop := func(r gatewayDropReason) verdict { return verdict{reason: r} }
	length := int(binary.BigEndian.Uint16(b[2:]))
	dst := netip.AddrFrom4([4]byte(b[16:20]))
	switch {
	case b[0]>>4 != 4:
		return drop(gatewayDropReasonDROP_IP_VERSION)
	case b[0]&15 != 5:
		return drop(gatewayDropReasonDROP_IP_OPTIONS)
	case length < 20 || length > len(b):
		return drop(gatewayDropReasonDROP_IP_LENGTH)
	case binary.BigEndian.Uint16(b[6:])&^0x4000 != 0:
		return drop(gatewayDropReasonDROP_FRAGMENT)
	case !slices.Equal(b[12:16], l.Guest.AsSlice()):
		return drop(gatewayDropReasonDROP_SOURCE_IP)
	case !unicast4(dst):
		return drop(gatewayDropReasonDROP_DESTINATION_IP)
	}
	payload := length - 20
	switch body := b[20:]; b[9] {
	case 6:
		if len(body) < 20 || int(body[12]>>4) < 5 || int(body[12]>>4)*4 > payload {
			return drop(gatewayDropReasonDROP_TCP_LENGTH)
		}
		if binary.BigEndian.Uint16(body[2:]) == 53 {
			return drop(gatewayDropReasonDROP_NO_RESOLVER)
		}
		return drop(gatewayDropReasonDROP_NO_LISTENER)
	case 17:
		if len(body) < 8 || binary.BigEndian.Uint16(body[4:]) < 8 || int(binary.BigEndian.Uint16(body[4:])) > payload {
			return drop(gatewayDropReasonDROP_UDP_LENGTH)
		}
		switch binary.BigEndian.Uint16(body[2:]) {
		case 53:
			return drop(gatewayDropReasonDROP_NO_RESOLVER)
		case 443:
			return verdict{refused: true}
		}
		return drop(gatewayDropReasonDROP_UDP)
	case 1:
		return drop(gatewayDropReasonDROP_ICMP)
	}
	return drop(gatewayDropReasonDROP_PROTOCOL)
}

// observe runs the program on a frame, which has a mark of the gateway's already,
// and says what it did. A frame that is not counted exactly once, or goes to the
// host with that mark, fails the test.
func (p *program) observe(t *testing.T, frame []byte) verdict {
	t.Helper()
	before, err := p.table.read(loopbackIndex)
	must(t, err)
	var left skBuff
	ret, err := p.objects.CaptureIngress.Run(&ebpf.RunOptions{
		Data: frame, Context: skBuff{Ifindex: loopbackIndex, Mark: uint32(gatewayMarkMARK_FORWARD)}, ContextOut: &left,
	})
	must(t, err)
	after, err := p.table.read(loopbackIndex)
	must(t, err)
	d := difference(after, before)
	if d.RxPackets != 1 || d.RxBytes != uint64(len(frame)) || d.Dropped()+d.ARP+d.Refused != 1 || d.Assigned != 0 {
		t.Fatalf("counted %+v for %x", d, frame)
	}
	v := verdict{arp: d.ARP == 1, refused: d.Refused == 1}
	for r := range d.Drops {
		v.reason = gatewayDropReason(r)
	}
	const passed, redirected = 0, 7 // TC_ACT_OK, TC_ACT_REDIRECT
	want := uint32(tcActShot)
	switch {
	case v.arp:
		want = passed
	case v.refused:
		want = redirected
	}
	if ret != want {
		t.Fatalf("returned %d with %+v for %x", ret, d, frame)
	}
	if ret == passed && left.Mark != 0 {
		t.Fatalf("passed with mark %#x: %x", left.Mark, frame)
	}
	return v
}

func (p *program) compare(t *testing.T, frame []byte) {
	t.Helper()
	const most = 1500 + 14 // the run is on lo, but one page is what it takes
	if len(frame) > most {
		frame = frame[:most]
	}
	if len(frame) < 14 || len(frame) < leastRun(frame) {
		return
	}
	want, got := model(p.link, frame), p.observe(t, frame)
	if got.reason == gatewayDropReasonDROP_QUIC_PACE {
		got = verdict{refused: true} // how many are answered is another test's
	}
	if got != want {
		t.Errorf("the program says %v %+v, the model %v %+v, for %x", Reason(got.reason), got, Reason(want.reason), want, frame)
	}
}

// seeds are the raw cases and the frames that have a way out.
func seeds(l Link) [][]byte {
	var all [][]byte
	for _, tc := range rawCases() {
		all = append(all, tc.frame(l).bytes())
	}
	return append(all,
		withARP(func(Link, *frame) {})(l).bytes(),
		body(17, udp(5000, 443, make([]byte, 1200)))(l).bytes(),
		body(17, udp(5000, 443, nil))(l).bytes())
}

// TestProgramAgreesWithModel changes every byte of every seed, one and two at a
// time, at random but always the same.
func TestProgramAgreesWithModel(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF)
	p := newProgram(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, seed := range seeds(p.link) {
		p.compare(t, seed)
		headers := min(len(seed), 62)
		for at := range headers {
			b := slices.Clone(seed)
			b[at] ^= byte(1 + random.IntN(255))
			p.compare(t, b)
			b[random.IntN(headers)] = byte(random.Uint32())
			p.compare(t, b)
		}
	}
}

// FuzzProgram looks for a frame about which the program and the model differ,
// or that is passed or lost without a count.
func FuzzProgram(f *testing.F) {
	privileged.Require(f, privileged.Root, privileged.BPF)
	p := newProgram(f)
	for _, b := range seeds(p.link) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, frame []byte) { p.compare(t, frame) })
}
