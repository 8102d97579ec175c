package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDNSReachesTheResolver asks several servers, none of which exists, and is
// answered from the address that it called; also when the resolver listens on a
// port that no guest knows.
func TestDNSReachesTheResolver(t *testing.T) {
	for _, port := range []uint16{53, 5353} {
		t.Run(fmt.Sprint(port), func(t *testing.T) {
			s := newStage(t)
			l := s.link(1)
			l.DNSPort = port
			_, resolver := s.listeners(l)
			s.set(l)
			var serving sync.WaitGroup
			serving.Go(func() { echo(resolver) })
			t.Cleanup(func() { resolver.Close(); serving.Wait() })
			g := s.enter(l)
			for _, server := range []string{"198.18.1.1:53", "198.19.77.9:53", "10.0.0.1:53"} {
				conn := g.dialUDP(netip.MustParseAddrPort(server))
				_, err := conn.Write([]byte("question"))
				must(t, err)
				must(t, conn.SetReadDeadline(time.Now().Add(patience)))
				buf := make([]byte, 512)
				n, err := conn.Read(buf) // a connected socket takes it from the server only
				must(t, err)
				want := fmt.Sprintf("question from %v to %s", conn.LocalAddr(), server)
				if got := string(buf[:n]); got != want {
					t.Errorf("%s answered %q, want %q", server, got, want)
				}
			}
		})
	}
}

func echo(c *UDPConn) {
	buf := make([]byte, 512)
	for {
		n, src, dst, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		fmt.Fprintf(writerTo{c, src, dst}, "%s from %v to %v", buf[:n], src, dst)
	}
}

type writerTo struct {
	c        *UDPConn
	src, dst netip.AddrPort
}

func (w writerTo) Write(b []byte) (int, error) { return w.c.WriteTo(b, w.src, w.dst) }

// TestQUICIsRefusedAtOnce sends datagrams of several sizes to port 443 and gets
// ECONNREFUSED well before a client would give up.
func TestQUICIsRefusedAtOnce(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.set(l)
	g := s.enter(l)
	for _, size := range []int{1, 8, 100, 1200, 1472} {
		conn := g.dialUDP(netip.AddrPortFrom(called, 443))
		_, err := conn.Write(make([]byte, size))
		must(t, err)
		start := time.Now()
		must(t, conn.SetReadDeadline(start.Add(patience)))
		if _, err = conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%d bytes: %v, want connection refused", size, err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%d bytes: refused after %v", size, d)
		}
	}
	if got := counters(t, s.r, l); got.Refused != 5 || unexpected(got) != 0 {
		t.Errorf("counted %+v", got)
	}
}

// TestQUICRefusalIsWellFormed reads the answer off the wire: lengths, addresses
// and both checksums.
func TestQUICRefusalIsWellFormed(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.set(l)
	g := s.enter(l)
	back := newCatcher(t, g.ns, guestInterface)
	f := body(17, sealed(l.Guest, called, 17, udp(5000, 443, []byte("hello"))))(l)
	g.send(f.bytes())
	var answer []byte
	eventually(t, "the answer", func() bool {
		for _, b := range back.frames() {
			if len(b) > 23 && b[23] == 1 {
				answer = b
			}
		}
		return answer != nil
	})
	if len(answer) != 70 || net.HardwareAddr(answer[:6]).String() != l.MAC.String() {
		t.Fatalf("answer is %x", answer)
	}
	ip, icmp := answer[14:34], answer[34:]
	if checksum(ip, 0) != 0 || checksum(icmp, 0) != 0 || binary.BigEndian.Uint16(ip[2:]) != 56 {
		t.Errorf("checksums or length are wrong: %x", answer)
	}
	from, _ := netip.AddrFromSlice(ip[12:16])
	to, _ := netip.AddrFromSlice(ip[16:20])
	if from != called || to != l.Guest || icmp[0] != 3 || icmp[1] != 3 {
		t.Errorf("answer is from %v to %v, type %d code %d", from, to, icmp[0], icmp[1])
	}
	if got, want := string(icmp[8:36]), string(f.bytes()[14:42]); got != want {
		t.Errorf("answer quotes %x, want %x", got, want)
	}
}

// TestQUICRefusalsArePaced floods port 443: the burst is answered, most of the
// rest is not.
func TestQUICRefusalsArePaced(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.set(l)
	g := s.enter(l)
	const flood = 5000
	b := body(17, udp(5000, 443, nil))(l).bytes()
	var c Counters
	var paced uint64
	eventually(t, "the flood", func() bool { // again and again: the kernel drops what is sent faster than it is received
		for range flood / 10 {
			g.send(b)
		}
		c = counters(t, s.r, l)
		paced = c.Drops[Reason(gatewayDropReasonDROP_QUIC_PACE)]
		return c.Refused+paced >= flood
	})
	if c.Refused < uint64(gatewayLimitsREFUSAL_BURST) || paced < flood/2 || c.Assigned+c.Forwarded != 0 || unexpected(c) != paced {
		t.Errorf("%d refused and %d dropped: %+v", c.Refused, paced, c)
	}
}

// TestWithoutListenersNothingPasses is what a bottle sees when its gateway is
// gone: silence, and the program's counter.
func TestWithoutListenersNothingPasses(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.set(l)
	g := s.enter(l)
	_, err := g.dial(netip.AddrPortFrom(called, 443), 300*time.Millisecond)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("dial: %v, want a timeout", err)
	}
	conn := g.dialUDP(netip.MustParseAddrPort("198.18.1.1:53"))
	_, err = conn.Write([]byte("question"))
	must(t, err)
	eventually(t, "the drops", func() bool {
		d := counters(t, s.r, l).Drops
		return d[Reason(gatewayDropReasonDROP_NO_LISTENER)] > 0 && d[Reason(gatewayDropReasonDROP_NO_RESOLVER)] > 0
	})
}

// TestOnlyMarkedSocketsAreGivenFlows puts listeners of another program at the
// gateway's very address and port, and at all addresses.
func TestOnlyMarkedSocketsAreGivenFlows(t *testing.T) {
	for _, at := range []string{"198.18.1.1:15001", "0.0.0.0:15001", "0.0.0.0:443"} {
		t.Run(at, func(t *testing.T) {
			s := newStage(t)
			l := s.link(1)
			s.set(l)
			g := s.enter(l)
			other, err := net.Listen("tcp4", at)
			must(t, err)
			defer other.Close()
			// Not what other tests call: a socket of theirs may be in TIME_WAIT.
			never := netip.MustParseAddr("198.19.88.8")
			for _, to := range []netip.AddrPort{netip.AddrPortFrom(never, 443), netip.AddrPortFrom(l.Gateway, 443)} {
				refused := func() uint64 { return counters(t, s.r, l).Drops[Reason(gatewayDropReasonDROP_NO_LISTENER)] }
				before := refused()
				eventually(t, "a SYN to be dropped", func() bool { // one sent before the carrier of a new device is noted is lost
					if conn, err := g.dial(to, 200*time.Millisecond); err == nil {
						conn.Close()
						t.Errorf("reached a listener at %s by calling %v", at, to)
					}
					return refused() > before
				})
			}
			if c := counters(t, s.r, l); c.Assigned != 0 {
				t.Errorf("counted %+v", c)
			}
		})
	}
}

// TestListenRefusals gives addresses that cannot serve a bottle.
func TestListenRefusals(t *testing.T) {
	for _, at := range []string{"[::1]:15001", "0.0.0.0:15001", "198.18.1.1:0"} {
		addr := netip.MustParseAddrPort(at)
		if l, err := ListenTCP(t.Context(), addr); err == nil {
			l.Close()
			t.Errorf("tcp %s was accepted", at)
		} else if !strings.Contains(err.Error(), "write the IPv4 address") {
			t.Errorf("tcp %s: %v does not say what to write", at, err)
		}
		if l, err := ListenUDP(t.Context(), addr); err == nil {
			l.Close()
			t.Errorf("udp %s was accepted", at)
		}
	}
}
