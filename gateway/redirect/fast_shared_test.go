package redirect

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestFastPathJudgesWhatLeaves sends a good hello out of a file, whose pages the kernel puts into the frame as they are, and
// writes another name into the file before the upstream reads. What arrives must be what was judged.
func TestFastPathJudgesWhatLeaves(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	server := netip.MustParseAddr("198.19.0.11")
	l := s.listenFar(server)
	must(t, s.r.SetFast(s.l.Bottle, server, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	c, err := s.g.dial(netip.AddrPortFrom(server, 443), patience)
	must(t, err)
	defer c.Close()
	far, err := l.Accept()
	must(t, err)
	defer far.Close()

	hello := clientHello(t, goodName)
	file, err := unix.MemfdCreate("hello", unix.MFD_CLOEXEC)
	must(t, err)
	defer unix.Close(file)
	_, err = unix.Write(file, hello)
	must(t, err)
	var from int64
	var errSend error
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	must(t, raw.Write(func(fd uintptr) bool {
		_, errSend = unix.Sendfile(int(fd), file, &from, len(hello))
		return true
	}))
	must(t, errSend)
	_, err = unix.Pwrite(file, []byte("evil.test"), int64(bytes.Index(hello, []byte(goodName))))
	must(t, err)

	got := make([]byte, len(hello))
	must(t, far.SetReadDeadline(time.Now().Add(patience)))
	_, err = io.ReadFull(far, got)
	must(t, err)
	if !bytes.Equal(got, hello) {
		t.Errorf("what arrived is not what was judged; the evil name is in it: %t", bytes.Contains(got, []byte("evil.test")))
	}
	if c := counters(t, s.r, s.l); c.Forwarded == 0 || c.Assigned != 0 {
		t.Errorf("counted %+v", c)
	}
}

// listenFar listens on port 443 of another address of the internet.
func (s *fastStage) listenFar(addr netip.Addr) (l net.Listener) {
	s.t.Helper()
	must(s.t, inNetns(s.net, func() error {
		dev, err := netlink.LinkByName("net0")
		if err != nil {
			return err
		}
		if _, err := ensureAddress(dev, addr, 24, false); err != nil {
			return err
		}
		l, err = net.Listen("tcp4", netip.AddrPortFrom(addr, 443).String())
		return err
	}))
	s.t.Cleanup(func() { l.Close() })
	return l
}
