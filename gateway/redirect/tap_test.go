package redirect

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// machine is a virtual machine as far as a tap can tell: it has the device open
// and speaks frames with virtio headers.
type machine struct {
	t    testing.TB
	link Link
	tap  *os.File
	// header is the length of what precedes each frame.
	header int
	host   net.HardwareAddr
	port   uint16 // where its connection comes from
}

// vnetHeader is struct virtio_net_hdr of linux/virtio_net.h.
type vnetHeader struct {
	flags, gso                     byte
	hdrLen, gsoSize, start, offset uint16
}

const (
	vnetHeaderLen  = 10
	vnetNeedsCsum  = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	vnetGSOTCPv4   = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	tcpHeadersLen  = 54
	tcpSynAck      = 0x12
	tcpAck         = 0x10
	tcpPushAck     = 0x18
	firstGuestByte = 2 // the SYN has sequence number 1
)

func (s *stage) tapLink(n byte) Link {
	l := s.link(n)
	l.Kind, l.Netns, l.Owner = Tap, "", 65534
	return l
}

// boot opens the tap with the flags that a virtual machine monitor uses.
func (s *stage) boot(l Link) *machine { return s.bootAs(l, monitor{flags: unix.IFF_VNET_HDR}) }

func (m *machine) write(h vnetHeader, frame []byte) error {
	b := []byte{h.flags, h.gso}
	for _, v := range []uint16{h.hdrLen, h.gsoSize, h.start, h.offset} {
		b = binary.NativeEndian.AppendUint16(b, v)
	}
	if len(b) < m.header {
		b = append(b, make([]byte, m.header-len(b))...) // the number of buffers, which the kernel does not read
	}
	_, err := m.tap.Write(append(b[:m.header], frame...))
	return err
}

func (m *machine) send(h vnetHeader, frame []byte) {
	m.t.Helper()
	must(m.t, m.write(h, frame))
}

// segment is a TCP segment of the machine's only connection.
func (m *machine) segment(seq, ack uint32, flags byte, payload []byte) *frame {
	f := good(m.link)
	f.dst = m.host
	f.body = tcp(m.port, 443, flags, payload)
	binary.BigEndian.PutUint32(f.body[4:], seq)
	binary.BigEndian.PutUint32(f.body[8:], ack)
	return f
}

// receive returns the first frame that ok accepts.
func (m *machine) receive(ok func([]byte) bool) []byte {
	m.t.Helper()
	must(m.t, m.tap.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 1<<16)
	for {
		n, err := m.tap.Read(buf)
		must(m.t, err)
		if b := buf[m.header:n]; ok(b) {
			return b
		}
	}
}

// TestTap makes a tap and uses it as a virtual machine does: a handshake, and
// then 30,000 bytes as one unsegmented frame, which reaches the program with
// little more than its headers in linear memory.
func TestTap(t *testing.T) {
	for i, mode := range []AttachMode{AttachTCX, AttachClsact} {
		t.Run(string(mode), func(t *testing.T) {
			s := newStage(t, func(o *Options) { o.Attach = mode })
			l := s.tapLink(1)
			listener, err := ListenTCP(t.Context(), netip.AddrPortFrom(l.Gateway, l.InterceptPort))
			must(t, err)
			defer listener.Close()
			s.set(l)
			m := s.boot(l)
			m.port = 41000 + uint16(i)
			checkTap(t, l)

			next, conn := m.connect(listener)
			payload := make([]byte, 30000)
			for i := range payload {
				payload[i] = byte(i)
			}
			big := m.segment(firstGuestByte, next, tcpPushAck, payload)
			partial(l, big)
			m.send(vnetHeader{flags: vnetNeedsCsum, gso: vnetGSOTCPv4, hdrLen: tcpHeadersLen, gsoSize: 1460, start: 34, offset: 16}, big.bytes())
			must(t, conn.SetReadDeadline(time.Now().Add(patience)))
			got := make([]byte, len(payload))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != string(payload) {
				t.Errorf("the payload did not arrive: %v", err)
			}
			if c := counters(t, s.r, l); c.Assigned != 3 || c.RxBytes < 30000 || c.RxPackets-c.Dropped() != 3 {
				t.Errorf("counted %+v", c)
			}
		})
	}
}

// connect opens the machine's connection, and returns the sequence number that
// comes next from the listener, and the listener's end.
func (m *machine) connect(listener net.Listener) (uint32, *net.TCPConn) {
	m.t.Helper()
	syn := m.segment(1, 0, 2, nil)
	syn.body = sealed(m.link.Guest, called, 6, syn.body)
	m.send(vnetHeader{}, syn.bytes())
	answer := m.receive(func(b []byte) bool { return len(b) >= tcpHeadersLen && b[23] == 6 && b[47] == tcpSynAck })
	next := binary.BigEndian.Uint32(answer[38:]) + 1
	ack := m.segment(firstGuestByte, next, tcpAck, nil)
	ack.body = sealed(m.link.Guest, called, 6, ack.body)
	m.send(vnetHeader{}, ack.bytes())
	accepted, err := listener.Accept()
	must(m.t, err)
	conn := accepted.(*net.TCPConn)
	m.t.Cleanup(func() { conn.Close() })
	must(m.t, conn.SetLinger(0))
	return next, conn
}

// partial puts the folded sum of the pseudo header where the checksum belongs,
// which is what the kernel expects of VIRTIO_NET_HDR_F_NEEDS_CSUM.
func partial(l Link, f *frame) {
	pseudo := append(l.Guest.AsSlice(), called.AsSlice()...)
	pseudo = append(pseudo, 0, 6)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(f.body)))
	binary.BigEndian.PutUint16(f.body[16:], ^checksum(pseudo, 0))
}

func checkTap(t *testing.T, l Link) {
	t.Helper()
	dev, err := netlink.LinkByName(l.Name)
	must(t, err)
	tap, ok := dev.(*netlink.Tuntap)
	if !ok {
		t.Fatalf("%s is a %T", l.Name, dev)
	}
	if tap.Mode != netlink.TUNTAP_MODE_TAP || tap.NonPersist || int(tap.Owner) != l.Owner || tap.Flags&netlink.TUNTAP_VNET_HDR == 0 ||
		tap.HardwareAddr.String() != hostMAC("stage", l).String() || tap.MTU != 1500 {
		t.Errorf("tap is %+v", tap)
	}
}

// TestTapIsDropped sends every raw case through a tap, with a virtio header
// that makes the kernel leave as little as it may in linear memory, and frames
// that are no frames.
func TestTapIsDropped(t *testing.T) {
	s := newStage(t)
	l := s.tapLink(1)
	s.set(l)
	m := s.boot(l)
	for _, tc := range rawCases() {
		t.Run(tc.name, func(t *testing.T) {
			before := counters(t, s.r, l)
			m.send(vnetHeader{}, tc.frame(l).bytes())
			eventually(t, "the frame", func() bool { return counters(t, s.r, l).RxPackets > before.RxPackets })
			if d := difference(counters(t, s.r, l), before); d.Drops[Reason(tc.reason)] != 1 || d.Dropped() != 1 || d.RxPackets != 1 {
				t.Errorf("counted %+v, want %v", d, Reason(tc.reason))
			}
		})
	}
	for _, h := range []vnetHeader{
		{gso: vnetGSOTCPv4, gsoSize: 1, hdrLen: 14},
		{flags: vnetNeedsCsum, start: 0xfff0, offset: 0xffff},
		{flags: vnetNeedsCsum, gso: vnetGSOTCPv4, hdrLen: 0xffff, gsoSize: 0xffff},
	} {
		before := counters(t, s.r, l)
		err := m.write(h, good(l).bytes()) // the kernel may refuse it itself
		after := counters(t, s.r, l)
		t.Logf("header %+v: %v, counted %+v", h, err, difference(after, before))
		if after.Assigned != 0 {
			t.Errorf("header %+v was passed", h)
		}
	}
	for n := range 14 {
		if err := m.write(vnetHeader{}, make([]byte, n)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%d bytes: %v, want the kernel to refuse them", n, err)
		}
	}
}

// TestTapInUseIsNotUninstalled has a machine at the tap.
func TestTapInUseIsNotUninstalled(t *testing.T) {
	s := newStage(t)
	l := s.tapLink(1)
	s.set(l)
	m := s.boot(l)
	must(t, s.r.Close())
	var state *StateError
	if removed, err := Uninstall(t.Context(), s.options); !errors.As(err, &state) || len(removed) != 0 {
		t.Errorf("uninstall with the tap open: %q, %v", removed, err)
	}
	must(t, m.tap.Close())
	if removed, err := Uninstall(t.Context(), s.options); err != nil || len(removed) == 0 {
		t.Errorf("uninstall: %q, %v", removed, err)
	}
	s.open()
}
