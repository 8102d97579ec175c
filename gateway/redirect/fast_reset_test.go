package redirect

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestFastPathResetsWithAWholeChecksum refuses a hello whose checksum is wrong, and looks as if it were left to the kernel: the
// RST to the upstream has a whole one all the same.
func TestFastPathResetsWithAWholeChecksum(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	c := newRawClient(s)
	c.connect()
	c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: clientHello(t, evilName)}, func(f *frame) {
		pseudo := append(c.l.Guest.AsSlice(), origin.AsSlice()...)
		pseudo = binary.BigEndian.AppendUint16(append(pseudo, 0, 6), uint16(len(f.body)))
		binary.BigEndian.PutUint16(f.body[16:], ^checksum(pseudo, 0))
	})
	c.refused(FastName)
}

// TestFastPathResetsWhatATapLeftUnfinished refuses frames whose checksum is left to the kernel, unsegmented ones too: it
// completes that of the RST in their place.
func TestFastPathResetsWhatATapLeftUnfinished(t *testing.T) {
	evil := clientHello(t, evilName)
	for name, header := range map[string]vnetHeader{
		"sum left to the kernel": {flags: vnetNeedsCsum, start: 34, offset: 16},
		"unsegmented":            {flags: vnetNeedsCsum, gso: vnetGSOTCPv4, hdrLen: tcpHeadersLen, gsoSize: 100, start: 34, offset: 16},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTapCaller(t)
			c.open()
			c.vm.send(header, c.unfinished(c.to(firstGuestByte, c.ack, tcpPushAck, evil)))
			eventually(t, "RST to the upstream", func() bool {
				return slices.ContainsFunc(c.leaks.frames(), func(f []byte) bool {
					return leftPayload(f) != nil && f[47]&flagRST != 0 && checksumsHold(f)
				})
			})
			if got := <-c.got; len(got) != 0 {
				t.Errorf("the origin got %d bytes", len(got))
			}
		})
	}
}

// TestFastPathTooLargeForTheUplink sends a good hello that is too large for the uplink and may not be fragmented, so that the
// upstream never has it, and another one at the same number.
func TestFastPathTooLargeForTheUplink(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	up, err := netlink.LinkByName("up0")
	must(t, err)
	must(t, netlink.LinkSetMTU(up, 1280))
	s.pin(goodName)
	c := newRawClient(s)
	c.connect()
	padding := append([]byte{0, 21, 0x04, 0x20}, make([]byte, 0x420)...) // RFC 7685
	hello := grown(append(clientHello(t, goodName), padding...), len(padding))
	c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: hello}, func(f *frame) { f.ip.fragment = 0x4000 })
	eventually(t, "the hello to be judged", func() bool {
		flows, err := s.r.FastFlows(s.l.Bottle)
		must(t, err)
		return len(flows) == 1 && flows[0].Verified
	})
	c.data(0, clientHello(t, evilName))
	c.refused(FastChanged)
	if got := c.left(); len(got) != 0 {
		t.Errorf("%d bytes left", len(got))
	}
}
