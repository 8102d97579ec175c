package redirect

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
)

const evilName = "evil.test"

// nested returns a ClientHello for evil whose last extension holds a whole ClientHello for good, and where that begins.
func nested(t testing.TB) (hello []byte, at int) {
	t.Helper()
	outer, inner := clientHello(t, evilName), clientHello(t, goodName)
	extension := binary.BigEndian.AppendUint16([]byte{0xfa, 0xce}, uint16(len(inner)))
	at = len(outer) + len(extension)
	return grown(slices.Concat(outer, extension, inner), len(extension)+len(inner)), at
}

// TestFastPathKeepsToTheUpstreamsStream begins a hello for another name, has the judge begin again behind it by a SYN or a RST
// of which the upstream takes no notice, and goes on with what is a good hello by itself. None of that may reach the upstream
// on the same connection, where it would be read as the end of the first. A flow that begins when the other is over leaves by a
// port of its own, and may be opened.
func TestFastPathKeepsToTheUpstreamsStream(t *testing.T) {
	hello, at := nested(t)
	next := func(c *rawClient) uint32 { return c.start + uint32(at) }
	for _, tc := range []struct {
		name string
		try  func(c *rawClient)
	}{
		{"SYN with a bad checksum", func(c *rawClient) {
			c.send(tcpSegment{seq: next(c) - 1, flags: flagSYN, badSum: true})
		}},
		{"SYN that the upstream answers with an ACK", func(c *rawClient) {
			c.send(tcpSegment{seq: next(c) - 1, flags: flagSYN})
		}},
		{"RST with a bad checksum, and a SYN when the flow is over", func(c *rawClient) {
			c.send(tcpSegment{seq: next(c), ack: c.ack, flags: flagRST | flagACK, badSum: true})
			c.over()
			c.send(tcpSegment{seq: next(c) - 1, flags: flagSYN, badSum: true})
		}},
		{"RST out of the window, and a SYN when the flow is over", func(c *rawClient) {
			c.send(tcpSegment{seq: c.start - 1<<29, ack: c.ack, flags: flagRST | flagACK})
			c.over()
			c.send(tcpSegment{seq: next(c) - 1, flags: flagSYN})
		}},
		{"two SYNs, the second with the first one's number", func(c *rawClient) {
			c.send(tcpSegment{seq: next(c) - 1, flags: flagSYN, badSum: true})
			c.send(tcpSegment{seq: c.start - 1, flags: flagSYN, badSum: true})
			c.data(0, hello[at:])
		}},
		{"the SYN again behind what was sent", func(c *rawClient) {
			c.send(tcpSegment{seq: c.start - 1, flags: flagSYN})
			c.data(0, hello[at:])
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFastStage(t, AttachAuto)
			s.pin(goodName)
			c := newRawClient(s)
			c.connect()
			c.data(0, hello[:at])
			c.reached(at)
			tc.try(c)
			c.data(at, hello[at:])
			c.settled()
			if got := c.leftFirst(); bytes.Contains(got, []byte(goodName)) {
				t.Errorf("the rest of the hello for %s is among the %d bytes that left on its connection", evilName, len(got))
			}
			if names := s.namesCalled(); len(names) != 0 {
				t.Errorf("the server was called by %q", names)
			}
		})
	}
}

// over waits until nothing is left of the bottle's flows.
func (c *rawClient) over() {
	c.t.Helper()
	eventually(c.t, "the flows to be over", func() bool {
		must(c.t, c.r.CollectFast())
		n := 0
		must(c.t, c.r.fast.eachFlow(func(gatewayFlowKey, *gatewayFlow) { n++ }))
		return n == 0
	})
}

// reached waits until n bytes of payload have reached the internet.
func (c *rawClient) reached(n int) {
	c.t.Helper()
	eventually(c.t, "the bytes to arrive", func() bool { return len(c.left()) >= n })
}

// settled waits until every frame that was sent has been judged, and what may leave has left: a frame of another kind is
// dropped behind them, and a SYN of the host's own goes the same way.
func (c *rawClient) settled() {
	c.t.Helper()
	c.dropped(gatewayDropReasonDROP_IPV6, 1, func() {
		f := good(c.l)
		f.etype, f.payload = 0x86dd, append([]byte{0x60}, make([]byte, 59)...)
		c.g.send(f.bytes())
	})
	before := len(c.leaks.frames())
	own, err := net.DialTimeout("tcp4", netip.AddrPortFrom(origin, 443).String(), patience)
	must(c.t, err)
	own.Close()
	eventually(c.t, "the host's own connection", func() bool { return len(c.leaks.frames()) > before })
}

// TestFastPathAgainstCookies has an upstream that keeps no state of a SYN: it believes the number of the first segment that
// comes with its cookie, and the cookie for a number further on is as far on. So a stream could begin in the midst of a good
// hello, which was judged and got lost.
func TestFastPathAgainstCookies(t *testing.T) {
	inner := clientHello(t, evilName)
	outer := clientHello(t, goodName)
	extension := binary.BigEndian.AppendUint16([]byte{0xfa, 0xce}, uint16(len(inner)))
	at := len(outer) + len(extension)
	hello := grown(slices.Concat(outer, extension, inner), len(extension)+len(inner))
	for _, tc := range []struct {
		name string
		send func(c *rawClient)
	}{
		{"by an empty segment", func(c *rawClient) {
			c.send(tcpSegment{seq: c.start + uint32(at), ack: c.ack + uint32(at), flags: flagACK})
		}},
		{"by a FIN", func(c *rawClient) {
			c.send(tcpSegment{seq: c.start + uint32(at), ack: c.ack + uint32(at), flags: flagACK | flagFIN})
		}},
		{"by the hello's rest", func(c *rawClient) {
			c.send(tcpSegment{seq: c.start + uint32(at), ack: c.ack + uint32(at), flags: flagACK, payload: hello[at:]})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFastStage(t, AttachAuto)
			must(t, inNetns(s.net, func() error {
				return os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0)
			}))
			s.pin(goodName)
			c := newRawClient(s)
			c.in.forget()
			c.ack = binary.BigEndian.Uint32(c.open([]byte{2, 4, 5, 180})[38:]) + 1
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: hello, badSum: true})
			c.dropped(gatewayDropReasonDROP_FLOW_ORDER, 1, func() { tc.send(c) })
			c.data(0, hello)
			c.answered()
			if names := s.namesCalled(); !slices.Equal(names, []string{goodName}) {
				t.Errorf("the server was called by %q", names)
			}
		})
	}
}
