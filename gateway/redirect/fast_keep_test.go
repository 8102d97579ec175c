package redirect

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// kept is how many of the bottle's flows hold a buffer, by the flows and by the
// account; they must agree.
func (s *fastStage) kept() int {
	s.t.Helper()
	var u gatewayUsage
	must(s.t, s.r.objects.Usages.Lookup(uint32(s.r.Status().Links[0].Ifindex), &u))
	n := hellosKept(s.t, s.r)
	if int(u.Hellos) != n {
		return -1 // the account is written a moment after the flow
	}
	return n
}

// answerOnce runs a server at the origin's port 8443 that reads what it gets
// first, answers with one record, and closes when the other side does.
func (s *fastStage) answerOnce() {
	s.t.Helper()
	var l net.Listener
	must(s.t, inNetns(s.net, func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(origin, 8443).String())
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			buf := make([]byte, 1<<14)
			if _, err := c.Read(buf); err == nil {
				_, _ = c.Write([]byte{23, 3, 3, 0, 1, 0})
				_, _ = io.Copy(io.Discard, c)
			}
			c.Close()
		}
	}()
	s.t.Cleanup(func() { l.Close(); <-done })
	must(s.t, s.r.SetFast(s.l.Bottle, origin, []FastPin{{Name: goodName, Port: 443, For: time.Hour}, {Name: goodName, Port: 8443, For: time.Hour}}))
}

// TestFastPathKeepsNoHelloOfWhatIsOver opens more connections than there are
// buffers, each closed after its hello and one answer, and has none of them go to
// the relay: the upstream's word that it has the FIN frees the buffer, long
// before the flow is collected.
func TestFastPathKeepsNoHelloOfWhatIsOver(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			s := newFastStage(t, mode)
			s.answerOnce()
			hello := clientHello(t, goodName)
			before := counters(t, s.r, s.l)
			for range int(gatewayLimitsMAX_BOTTLE_HELLOS) + 50 {
				c, err := s.g.dial(netip.AddrPortFrom(origin, 8443), patience)
				must(t, err)
				must(t, c.SetDeadline(time.Now().Add(patience)))
				_, err = c.Write(hello)
				must(t, err)
				_, err = io.ReadFull(c, make([]byte, 6))
				must(t, err)
				must(t, c.Close())
			}
			if c := difference(counters(t, s.r, s.l), before); c.Assigned != 0 {
				t.Errorf("%d frames went to the relay: %+v; events %+v", c.Assigned, c, s.events())
			}
			eventually(t, "the last buffer to be free", func() bool { return s.kept() == 0 })
			if n := len(s.events()); n != 0 {
				t.Errorf("%d events, though nothing was collected", n)
			}
		})
	}
}

// TestFastPathForgetsTheHelloAtRST has the bottle send a RST, which the upstream
// ignores, while its hello is kept. The buffer is free at once, and what comes
// behind the RST is dropped.
func TestFastPathForgetsTheHelloAtRST(t *testing.T) {
	hello := clientHello(t, goodName)
	s := newFastStage(t, AttachAuto)
	s.pin(goodName)
	c := newRawClient(s)
	c.connect()
	c.data(0, hello)
	c.answered()
	if n := s.kept(); n != 1 {
		t.Fatalf("%d hellos are kept", n)
	}
	c.send(tcpSegment{seq: c.start + uint32(len(hello)), ack: c.ack, flags: flagRST | flagACK, badSum: true})
	eventually(t, "the buffer to be free", func() bool { return s.kept() == 0 })
	evil := append([]byte{20, 3, 3, 0, 1, 1}, clientHello(t, "evil.test")...)
	c.dropped(gatewayDropReasonDROP_FLOW_ORDER, 1, func() { c.data(len(hello), evil) })
	if got := c.left(); bytes.Contains(got, []byte("evil.test")) {
		t.Errorf("the evil name is among the %d bytes that left", len(got))
	}
}
