package redirect

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// servicePort is where a service of the host listens at all addresses.
const servicePort = 2222

// hostService listens as sshd would, and counts who got in.
func hostService(t *testing.T) *atomic.Int32 {
	t.Helper()
	l, err := net.Listen("tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), servicePort).String())
	must(t, err)
	reached := new(atomic.Int32)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return reached
}

// TestTimeWaitLeadsToNoHostService calls a port twice from the same source
// port, when the gateway's socket of the first call is in TIME_WAIT. The stack
// then looks for a listener at the address called, and finds the host's.
func TestTimeWaitLeadsToNoHostService(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.listeners(l)
	s.set(l)
	reached := hostService(t)
	g := s.enter(l)
	to := netip.AddrPortFrom(uplinkHost, servicePort)
	from := &net.TCPAddr{IP: l.Guest.AsSlice(), Port: 40000}
	for call := range 3 {
		var conn net.Conn
		must(t, inNetns(g.ns, func() (err error) {
			d := net.Dialer{Timeout: patience, LocalAddr: from}
			conn, err = d.Dial("tcp4", to.String())
			return err
		}))
		buf := make([]byte, 64)
		must(t, conn.SetReadDeadline(time.Now().Add(patience)))
		n, err := conn.Read(buf)
		must(t, err)
		if got, want := string(buf[:n]), "15001 198.19.0.1:2222\n"; got != want {
			t.Errorf("call %d was answered %q, want %q", call, got, want)
		}
		if _, err := conn.Read(buf); err == nil {
			t.Error("the gateway did not close first")
		}
		conn.Close()
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the host's service was reached %d times", n)
	}
}

// TestHalfOpenLeadsToNoHostService leaves a connection half open, takes the
// gateway's listener away and sends the SYN again.
func TestHalfOpenLeadsToNoHostService(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	listener, _ := s.listeners(l)
	s.set(l)
	g := s.enter(l)
	g.mute()
	back := newCatcher(t, g.ns, guestInterface)
	f := good(l)
	f.ip.dst = uplinkHost
	f.body = sealed(l.Guest, uplinkHost, 6, tcp(40001, servicePort, 0x02, nil))
	g.send(f.bytes())
	eventually(t, "a SYN-ACK", func() bool { return countFlags(back, 0x12) == 1 })
	must(t, listener.Close())
	hostService(t)
	synAcks := countFlags(back, 0x12)
	g.send(f.bytes())
	eventually(t, "an answer", func() bool { return countFlags(back, 0x14) > 0 || countFlags(back, 0x12) > synAcks })
	if n := countFlags(back, 0x12); n != synAcks {
		t.Errorf("somebody answered the SYN: %d SYN-ACKs, were %d", n, synAcks)
	}
}

// mute takes the bottle's address away, so that its kernel answers nothing.
func (g *guest) mute() {
	g.t.Helper()
	must(g.t, inNetns(g.ns, func() error {
		dev, err := netlink.LinkByName(guestInterface)
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(dev, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		return netlink.AddrDel(dev, &addrs[0])
	}))
}

// countFlags counts TCP packets with exactly these flags.
func countFlags(c *catcher, flags byte) int {
	n := 0
	for _, b := range c.frames() {
		if len(b) >= 54 && b[12] == 0x08 && b[13] == 0 && b[23] == 6 && b[47] == flags {
			n++
		}
	}
	return n
}

// TestHostConnectionsIntoABottleGetNoAnswer opens a connection from the host to
// the bottle: the socket is none of the gateway's, so the replies are dropped.
func TestHostConnectionsIntoABottleGetNoAnswer(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.listeners(l)
	s.set(l)
	g := s.enter(l)
	var inside net.Listener
	must(t, inNetns(g.ns, func() (err error) {
		inside, err = net.Listen("tcp4", "0.0.0.0:22")
		return err
	}))
	defer inside.Close()
	conn, err := net.DialTimeout("tcp4", netip.AddrPortFrom(l.Guest, 22).String(), 300*time.Millisecond)
	if err == nil {
		conn.Close()
		t.Error("the host was answered")
	}
	if c := counters(t, s.r, l); c.Drops[Reason(gatewayDropReasonDROP_FOREIGN_SOCKET)] == 0 {
		t.Errorf("counted %+v", c)
	}
}

// TestGuardHoldsAlone takes the other two layers away: neither the program nor
// the table is there, and still no listener of the host is reached.
func TestGuardHoldsAlone(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	status := s.set(l)
	reached := hostService(t)
	must(t, s.r.hooks.detach(status.Links[0].Ifindex))
	flushRuleset(t)
	g := s.enter(l)
	for _, to := range []netip.Addr{l.Gateway, uplinkHost} {
		conn, err := g.dial(netip.AddrPortFrom(to, servicePort), 300*time.Millisecond)
		if err == nil {
			conn.Close()
			t.Errorf("%v was reached", to)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the host's service was reached %d times", n)
	}
}
