package redirect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// tapCaller is a virtual machine that has opened a connection to the origin on the fast path by frames of its own, and may say
// in their virtio headers what it likes.
type tapCaller struct {
	*stage
	vm  *machine
	ack uint32
	got chan []byte // what a connection to the origin brought, when it has ended or after a while
}

func newTapCaller(t *testing.T) *tapCaller {
	t.Helper()
	s := newStage(t, func(o *Options) { o.Uplink = "up0" })
	s.leaksAllowed = true
	// A network card that leaves sums to the kernel, which then writes them where the frame says.
	setTxChecksum(t, "up0", false)
	l := s.tapLink(1)
	s.listeners(l)
	s.set(l)
	if o := s.r.FastObstacle(); o != "" {
		t.Fatalf("the fast path is shut: %s", o)
	}
	c := &tapCaller{stage: s, got: make(chan []byte, 8)}
	c.listen()
	must(t, s.r.SetFast(l.Bottle, origin, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	c.vm = s.boot(l)
	c.vm.port = 42000
	return c
}

// setTxChecksum switches an interface's checksum offload (ETHTOOL_STXCSUM of linux/ethtool.h).
func setTxChecksum(t *testing.T, name string, on bool) {
	t.Helper()
	value := struct{ cmd, data uint32 }{cmd: 0x17}
	if on {
		value.data = 1
	}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], name)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&value)
	request.data = unsafe.Pointer(&value)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatalf("switch checksum offload of %s: %v", name, errno)
	}
}

// listen keeps the first bytes of each connection to the origin.
func (c *tapCaller) listen() {
	t := c.t
	must(t, inNetns(c.net, func() error {
		dev, err := netlink.LinkByName("net0")
		if err != nil {
			return err
		}
		_, err = ensureAddress(dev, origin, 24, false)
		return err
	}))
	var l net.Listener
	must(t, inNetns(c.net, func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(origin, 443).String())
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			buf := make([]byte, 1<<16)
			n, _ := conn.Read(buf) // nothing is an answer, too
			c.got <- buf[:n]
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// to is a segment for the origin.
func (c *tapCaller) to(seq, ack uint32, flags byte, payload []byte) *frame {
	f := c.vm.segment(seq, ack, flags, payload)
	f.ip.dst = origin
	return f
}

// whole gives a segment its checksum.
func (c *tapCaller) whole(f *frame) []byte {
	f.body = sealed(c.vm.link.Guest, origin, 6, f.body)
	return f.bytes()
}

// open goes through the handshake.
func (c *tapCaller) open() {
	t := c.t
	t.Helper()
	c.vm.send(vnetHeader{}, c.whole(c.to(1, 0, flagSYN, nil)))
	answer := c.vm.receive(func(b []byte) bool { return len(b) >= tcpHeadersLen && b[23] == 6 && b[47] == tcpSynAck })
	c.ack = binary.BigEndian.Uint32(answer[38:]) + 1
	c.vm.send(vnetHeader{}, c.whole(c.to(firstGuestByte, c.ack, tcpAck, nil)))
}

// unfinished is a segment whose checksum the kernel is to complete: it has the sum of the pseudo header.
func (c *tapCaller) unfinished(f *frame) []byte {
	pseudo := append(c.vm.link.Guest.AsSlice(), origin.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint16(append(pseudo, 0, 6), uint16(len(f.body)))
	binary.BigEndian.PutUint16(f.body[16:], ^checksum(pseudo, 0))
	return f.bytes()
}

// TestFastPathOnATap has a virtual machine send its hello in each of the ways that virtio has.
func TestFastPathOnATap(t *testing.T) {
	hello := clientHello(t, goodName)
	for _, tc := range []struct {
		name string
		send func(c *tapCaller)
		want []byte
	}{
		{"finished", func(c *tapCaller) {
			c.vm.send(vnetHeader{}, c.whole(c.to(firstGuestByte, c.ack, tcpPushAck, hello)))
		}, hello},
		{"sum left to the kernel", func(c *tapCaller) {
			c.vm.send(vnetHeader{flags: vnetNeedsCsum, start: 34, offset: 16}, c.unfinished(c.to(firstGuestByte, c.ack, tcpPushAck, hello)))
		}, hello},
		{"unsegmented", func(c *tapCaller) {
			c.vm.send(vnetHeader{flags: vnetNeedsCsum, gso: vnetGSOTCPv4, hdrLen: tcpHeadersLen, gsoSize: 100, start: 34, offset: 16},
				c.unfinished(c.to(firstGuestByte, c.ack, tcpPushAck, hello)))
		}, hello},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newTapCaller(t)
			c.open()
			tc.send(c)
			select {
			case got := <-c.got:
				if len(got) == 0 || !bytes.HasPrefix(tc.want, got) {
					t.Errorf("the origin got %d bytes that are not the hello", len(got))
				}
			case <-time.After(patience):
				t.Errorf("the origin got nothing; %+v", counters(t, c.r, c.vm.link))
			}
		})
	}
}

// TestFastPathChecksumElsewhere asks the kernel to write a checksum where it does not belong, after the hello was judged: into
// the name, the sequence number and the port. Nothing but the hello as it was judged may leave.
func TestFastPathChecksumElsewhere(t *testing.T) {
	hello := clientHello(t, goodName)
	name := uint16(tcpHeadersLen + bytes.Index(hello, []byte(goodName)))
	for _, tc := range []struct {
		name   string
		header vnetHeader
	}{
		{"into the name", vnetHeader{flags: vnetNeedsCsum, start: 34, offset: name - 34}},
		{"from the name into the name", vnetHeader{flags: vnetNeedsCsum, start: name, offset: 0}},
		{"into the sequence number", vnetHeader{flags: vnetNeedsCsum, start: 34, offset: 6}},
		{"into the port", vnetHeader{flags: vnetNeedsCsum, start: 34, offset: 2}},
		{"into the destination", vnetHeader{flags: vnetNeedsCsum, start: 14, offset: 18}},
		{"at the right place by another way", vnetHeader{flags: vnetNeedsCsum, start: 40, offset: 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newTapCaller(t)
			c.open()
			c.leaks.forget()
			frame := c.whole(c.to(firstGuestByte, c.ack, tcpPushAck, hello))
			if err := c.vm.write(tc.header, frame); errors.Is(err, unix.EINVAL) {
				t.Log("the kernel refuses the frame itself")
			} else {
				must(t, err)
				eventually(t, "the drop", func() bool {
					return counters(t, c.r, c.vm.link).Drops[Reason(gatewayDropReasonDROP_SUM_PLACE)] == 1
				})
			}
			c.vm.send(vnetHeader{}, frame) // goes its way, behind whatever may have left of the first
			<-c.got
			seen := false
			eventually(t, "the hello to leave", func() bool {
				for _, f := range c.leaks.frames() {
					payload := leftPayload(f)
					seen = seen || bytes.Equal(payload, hello)
					if len(payload) > 0 && (!bytes.Equal(payload, hello) || binary.BigEndian.Uint16(f[36:]) != 443 ||
						binary.BigEndian.Uint32(f[38:]) != firstGuestByte) {
						t.Fatalf("a frame left as %x", f)
					}
				}
				return seen
			})
		})
	}
}

// leftPayload is what a TCP segment has that left with the uplink's address, nil of other frames.
func leftPayload(f []byte) []byte {
	if len(f) < tcpHeadersLen || f[12] != 8 || f[13] != 0 || f[23] != 6 || netip.AddrFrom4([4]byte(f[26:30])) != uplinkHost {
		return nil
	}
	return f[34+int(f[46]>>4)*4 : 14+int(binary.BigEndian.Uint16(f[16:]))]
}

// TestLayoutOfThisKernel finds the members where they can be: csum_start and csum_offset are one word (linux/skbuff.h).
func TestLayoutOfThisKernel(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BTF)
	l, err := skbLayout()
	must(t, err)
	t.Logf("%+v", l)
	if l.Known == 0 || l.CsumOffset != l.CsumStart+2 || l.NetworkHeader == 0 || l.Summed == 0 || max(l.CsumStart, l.NetworkHeader, l.Summed) > 1000 {
		t.Errorf("struct sk_buff is laid out as %+v", l)
	}
}
