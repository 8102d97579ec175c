package redirect

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
	flagURG = 0x20
)

// tcpSegment is a segment under construction.
type tcpSegment struct {
	sport, dport uint16
	seq, ack     uint32
	flags        byte
	options      []byte // a multiple of four bytes
	payload      []byte
	badSum       bool
}

func (s tcpSegment) bytes(src, dst netip.Addr) []byte {
	b := binary.BigEndian.AppendUint16(nil, s.sport)
	b = binary.BigEndian.AppendUint16(b, s.dport)
	b = binary.BigEndian.AppendUint32(b, s.seq)
	b = binary.BigEndian.AppendUint32(b, s.ack)
	b = append(b, byte(5+len(s.options)/4)<<4, s.flags, 0xff, 0xff, 0, 0, 0, 0)
	b = append(append(b, s.options...), s.payload...)
	b = sealed(src, dst, 6, b)
	if s.badSum {
		b[16] ^= 0x55
	}
	return b
}

// clientHello returns the first flight of a TLS client that calls name: one that
// fits in a frame.
func clientHello(t testing.TB, name string) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: name, InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
		theirs.Close()
	}()
	defer ours.Close()
	buf := make([]byte, 1<<14)
	n, err := io.ReadAtLeast(ours, buf, 5)
	if err != nil {
		t.Fatal(err)
	}
	for n < 5+int(binary.BigEndian.Uint16(buf[3:])) {
		more, err := ours.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += more
	}
	return buf[:n]
}

// rawClient speaks TCP from the bottle by frames of its own making.
type rawClient struct {
	*fastStage
	to        netip.Addr
	sport     uint16
	start     uint32 // of the stream
	ack       uint32
	in        *catcher
	timestamp bool
	tsval     uint32
	tsecr     uint32
}

// rawPorts are the ports that raw clients have had. Each gets its own: a socket of the
// gateway's that an earlier test left half closed would answer for the next one. The
// kernel chooses none of these.
var rawPorts atomic.Uint32

// newRawClient takes the guest's address away, so that its kernel answers
// nothing, and catches what comes.
func newRawClient(s *fastStage) *rawClient {
	s.t.Helper()
	must(s.t, inNetns(s.g.ns, func() error {
		dev, err := netlink.LinkByName(guestInterface)
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(dev, netlink.FAMILY_V4)
		if err != nil || len(addrs) == 0 {
			return err
		}
		return netlink.AddrDel(dev, &addrs[0])
	}))
	return &rawClient{fastStage: s, to: origin, sport: uint16(61000 + rawPorts.Add(1)%4000), start: 1000, tsval: 1 << 20, in: newCatcher(s.t, s.g.ns, guestInterface)}
}

func (c *rawClient) send(s tcpSegment, change ...func(*frame)) {
	c.t.Helper()
	s.sport, s.dport = c.sport, 443
	if c.timestamp && s.options == nil && s.flags&flagSYN == 0 {
		s.options = c.stamp(c.tsval)
	}
	f := good(c.l)
	f.ip.dst = c.to
	f.body = s.bytes(c.l.Guest, c.to)
	for _, ch := range change {
		ch(f)
	}
	c.g.send(f.bytes())
}

// stamp returns a timestamps option (RFC 7323 section 3.2).
func (c *rawClient) stamp(val uint32) []byte {
	b := []byte{1, 1, 8, 10}
	b = binary.BigEndian.AppendUint32(b, val)
	return binary.BigEndian.AppendUint32(b, c.tsecr)
}

// data sends payload at an offset of the stream.
func (c *rawClient) data(at int, payload []byte) {
	c.t.Helper()
	c.send(tcpSegment{seq: c.start + uint32(at), ack: c.ack, flags: flagACK, payload: payload})
}

// open sends a SYN and returns the answer. Like a kernel it sends it again: what is sent before the kernel has taken note of the
// carrier of a new device is lost (dev_activate in net/sched/sch_generic.c).
func (c *rawClient) open(options []byte) []byte {
	c.t.Helper()
	syn := tcpSegment{seq: c.start - 1, flags: flagSYN, options: options}
	c.send(syn)
	sent := time.Now()
	return c.await("SYN-ACK", flagSYN|flagACK, func() {
		if time.Since(sent) > time.Second {
			c.send(syn)
			sent = time.Now()
		}
	})
}

// connect goes through the handshake.
func (c *rawClient) connect() {
	c.t.Helper()
	c.in.forget()
	options := []byte{2, 4, 5, 180}
	if c.timestamp {
		options = append(options, c.stamp(c.tsval)...)
	}
	answer := c.open(options)
	c.ack = binary.BigEndian.Uint32(answer[38:]) + 1
	if i := bytes.Index(answer[54:], []byte{8, 10}); c.timestamp && i >= 0 {
		c.tsecr = binary.BigEndian.Uint32(answer[54+i+2:])
	}
	c.data(0, nil)
}

// await returns the first frame to the bottle with all the flags, and does what is to be done meanwhile.
func (c *rawClient) await(what string, flags byte, meanwhile ...func()) (found []byte) {
	c.t.Helper()
	eventually(c.t, what, func() bool {
		for _, do := range meanwhile {
			do()
		}
		for _, f := range c.in.frames() {
			if len(f) >= 54 && f[23] == 6 && binary.BigEndian.Uint16(f[36:]) == c.sport && f[47]&flags == flags {
				found = f
				return true
			}
		}
		return false
	})
	return found
}

// answered waits for application bytes of the server.
func (c *rawClient) answered() {
	c.t.Helper()
	eventually(c.t, "an answer of the server", func() bool {
		for _, f := range c.in.frames() {
			if len(f) > 60 && f[23] == 6 && netip.AddrFrom4([4]byte(f[26:30])) == origin && int(binary.BigEndian.Uint16(f[16:])) > 20+int(f[46]>>4)*4 {
				return true
			}
		}
		return false
	})
}

// left returns the TCP payload that reached the internet, in the order of frames.
func (c *rawClient) left() (all []byte) {
	for _, p := range c.payloads() {
		all = append(all, p.bytes...)
	}
	return all
}

// leftFirst is left for the connection that sent first: what comes by another port is another to the upstream.
func (c *rawClient) leftFirst() (all []byte) {
	list := c.payloads()
	for _, p := range list {
		if p.port == list[0].port {
			all = append(all, p.bytes...)
		}
	}
	return all
}

// payload is what a segment brought to the internet, and the port that it came by.
type payload struct {
	port  uint16
	bytes []byte
}

// payloads are those that reached the internet, in the order of frames.
func (c *rawClient) payloads() (all []payload) {
	for _, f := range c.leaks.frames() {
		if len(f) >= 54 && f[12] == 8 && f[13] == 0 && f[23] == 6 && netip.AddrFrom4([4]byte(f[30:34])) == c.to {
			from, to := 34+int(f[46]>>4)*4, 14+int(binary.BigEndian.Uint16(f[16:]))
			if from < to && to <= len(f) {
				all = append(all, payload{binary.BigEndian.Uint16(f[34:]), f[from:to]})
			}
		}
	}
	return all
}

// refusedAlone waits for the refusal, and for its end in conntrack.
func (c *rawClient) refusedAlone(why FastReason) {
	c.t.Helper()
	eventually(c.t, "the refusal: "+why.String(), func() bool {
		return slices.ContainsFunc(c.events(), func(e FastEvent) bool { return e.Refused && e.Reason == why })
	})
	c.await("RST to the bottle", flagRST)
	eventually(c.t, "the end of conntrack's entry", func() bool { return c.tracked() <= 10 })
}

// refused waits for the refusal, and sees that the upstream knows of it.
func (c *rawClient) refused(why FastReason) {
	c.t.Helper()
	c.refusedAlone(why)
	eventually(c.t, "RST to the upstream", func() bool {
		for _, f := range c.leaks.frames() {
			if len(f) >= 54 && f[23] == 6 && f[47]&flagRST != 0 && checksumsHold(f) {
				return true
			}
		}
		return false
	})
}

// checksumsHold verifies both checksums of a TCP frame.
func checksumsHold(f []byte) bool {
	n := int(binary.BigEndian.Uint16(f[16:])) - 20
	pseudo := append(slices.Clone(f[26:34]), 0, 6, byte(n>>8), byte(n))
	return checksum(f[14:34], 0) == 0 && checksum(append(pseudo, f[34:34+n]...), 0) == 0
}

// dropped waits for n more frames under a reason than before.
func (c *rawClient) dropped(why gatewayDropReason, n uint64, do func()) {
	c.t.Helper()
	before := counters(c.t, c.r, c.l).Drops[Reason(why)]
	do()
	eventually(c.t, "a drop: "+Reason(why).String(), func() bool {
		return counters(c.t, c.r, c.l).Drops[Reason(why)] >= before+n
	})
}

// TestFastPathEvasions tries to get a name past the judge that it did not see.
// None of its bytes may reach the internet.
func TestFastPathEvasions(t *testing.T) {
	const evilName = "evil.test"
	hello, evil := clientHello(t, goodName), clientHello(t, evilName)
	half := len(hello) / 2
	for _, tc := range []struct {
		name  string
		stamp bool
		try   func(c *rawClient)
	}{
		{"another name", false, func(c *rawClient) { c.data(0, evil); c.refused(FastName) }},
		{"another name, cut before it", false, func(c *rawClient) {
			at := bytes.Index(evil, []byte(evilName))
			c.data(0, evil[:at])
			c.data(at, evil[at:])
			c.refused(FastName)
		}},
		{"bad checksum, then another name", false, func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: hello, badSum: true})
			c.data(0, evil)
			c.refused(FastChanged)
		}},
		{"stale time stamp, then another name", true, func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, options: c.stamp(c.tsval - 1<<16), payload: hello})
			c.data(0, evil)
			c.refused(FastChanged)
		}},
		{"a time to live of its choice", false, func(c *rawClient) {
			c.leaks.forget()
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: hello}, func(f *frame) { f.ip.ttl = 2 })
			c.answered()
			for _, f := range c.leaks.frames() {
				if len(f) > 60 && f[23] == 6 && netip.AddrFrom4([4]byte(f[30:34])) == origin && f[22] != 63 {
					c.t.Errorf("a packet left with a time to live of %d", f[22])
				}
			}
		}},
		{"the judged hello, then another before it is acknowledged", false, func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack - 1<<28, flags: flagACK, payload: hello}) // the upstream ignores it: RFC 9293 section 3.10.7.4
			c.data(0, evil)
			c.refused(FastChanged)
		}},
		{"overlap of the first half", false, func(c *rawClient) {
			c.data(0, hello[:half])
			c.data(0, evil)
			c.refused(FastChanged)
		}},
		{"one byte before the hello's end", false, func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: hello, badSum: true})
			c.data(len(hello)-1, append([]byte{hello[len(hello)-1] ^ 1}, evil...))
			c.refused(FastChanged)
		}},
		{"a segment from before the start", false, func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: hello, badSum: true})
			c.dropped(gatewayDropReasonDROP_FLOW_ORDER, 1, func() { c.data(-1, append([]byte{0}, evil...)) })
		}},
		{"out of order", false, func(c *rawClient) {
			c.dropped(gatewayDropReasonDROP_FLOW_ORDER, 1, func() { c.data(half, evil[half:]) })
			c.data(0, hello)
			c.answered()
		}},
		{"urgent", false, func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK | flagURG, payload: hello})
			c.refused(FastUrgent)
		}},
		{"MD5 option", false, func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, options: append([]byte{19, 18}, make([]byte, 18)...), payload: hello})
			c.refused(FastOption)
		}},
		{"IP options", false, func(c *rawClient) {
			c.dropped(gatewayDropReasonDROP_IP_OPTIONS, 1, func() {
				c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: evil}, func(f *frame) {
					f.ip.ihl, f.ip.options = 6, []byte{1, 1, 1, 0}
				})
			})
		}},
		{"fragment", false, func(c *rawClient) {
			c.dropped(gatewayDropReasonDROP_FRAGMENT, 1, func() {
				c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: evil}, func(f *frame) { f.ip.fragment = 0x2000 })
			})
		}},
		{"without ACK", false, func(c *rawClient) {
			c.dropped(gatewayDropReasonDROP_SYN_FORM, 1, func() { c.send(tcpSegment{seq: c.start, payload: evil}) })
		}},
		{"RST with data", false, func(c *rawClient) {
			c.dropped(gatewayDropReasonDROP_SYN_FORM, 1, func() {
				c.send(tcpSegment{seq: c.start, flags: flagACK | flagRST, payload: evil})
			})
		}},
		{"SYN with data on the connection", false, func(c *rawClient) {
			c.dropped(gatewayDropReasonDROP_SYN_FORM, 1, func() {
				c.send(tcpSegment{seq: c.start - 1, flags: flagSYN, payload: evil})
			})
		}},
		{"a new connection in place of a verified one", false, func(c *rawClient) {
			c.data(0, hello)
			c.answered()
			before := counters(c.t, c.r, c.l).Assigned
			c.send(tcpSegment{seq: c.start + 1<<20, flags: flagSYN})
			c.start += 1<<20 + 1
			c.data(0, evil)
			eventually(c.t, "the relay to have it", func() bool { return counters(c.t, c.r, c.l).Assigned >= before+2 })
		}},
		{"a second hello", false, func(c *rawClient) {
			c.data(0, hello)
			c.answered()
			c.data(len(hello), evil)
			c.refused(FastName)
		}},
		{"a second hello behind change_cipher_spec, in pieces", false, func(c *rawClient) {
			c.data(0, hello)
			c.answered()
			rest := append([]byte{20, 3, 3, 0, 1, 1}, evil...)
			for i := range 16 {
				c.data(len(hello)+i, rest[i:i+1])
			}
			c.data(len(hello)+16, rest[16:])
			// A server that has seen the record's header may have reset the connection by now.
			eventually(c.t, "the refusal, or a drop behind the server's RST", func() bool {
				return counters(c.t, c.r, c.l).Drops[Reason(gatewayDropReasonDROP_FLOW_ORDER)] > 0 ||
					slices.ContainsFunc(c.events(), func(e FastEvent) bool { return e.Refused && e.Reason == FastName })
			})
		}},
		{"a second hello of the first flight", false, func(c *rawClient) {
			c.data(0, append(slices.Clone(hello), evil...))
			c.refused(FastName)
		}},
		{"two records", false, func(c *rawClient) {
			n := len(evil) - 5
			split := append([]byte{22, 3, 1, 0, 100}, evil[5:105]...)
			split = append(split, 22, 3, 1, byte((n-100)>>8), byte(n-100))
			c.data(0, append(split, evil[105:]...))
			c.refused(FastMalformed)
		}},
		{"plain HTTP", false, func(c *rawClient) {
			c.data(0, []byte("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"))
			c.refused(FastNotTLS)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFastStage(t, AttachAuto)
			s.pin(goodName)
			c := newRawClient(s)
			c.timestamp = tc.stamp
			c.connect()
			tc.try(c)
			if got := c.left(); bytes.Contains(got, []byte(evilName)) {
				t.Errorf("the evil name is among the %d bytes that left", len(got))
			}
		})
	}
}

// TestFastPathHonestCases repeats and cuts as networks do; nothing is refused.
func TestFastPathHonestCases(t *testing.T) {
	hello := clientHello(t, goodName)
	for _, tc := range []struct {
		name string
		send func(c *rawClient)
	}{
		{"whole", func(c *rawClient) { c.data(0, hello) }},
		{"sent again", func(c *rawClient) { c.data(0, hello); c.data(0, hello); c.data(0, hello) }},
		{"first lost, second in smaller pieces", func(c *rawClient) {
			c.send(tcpSegment{seq: c.start, ack: c.ack, flags: flagACK, payload: hello, badSum: true})
			for at := 0; at < len(hello); at += 300 {
				c.data(at, hello[at:min(at+300, len(hello))])
			}
		}},
		{"pieces sent again together", func(c *rawClient) {
			c.data(0, hello[:100])
			c.data(100, hello[100:200])
			c.data(50, hello[50:])
		}},
		{"reordered", func(c *rawClient) {
			c.data(150, hello[150:])
			c.data(0, hello[:150])
			c.data(150, hello[150:])
		}},
		{"byte by byte", func(c *rawClient) {
			for i := range hello {
				c.data(i, hello[i:i+1])
			}
		}},
		{"SYN sent again", func(c *rawClient) {
			c.send(tcpSegment{seq: c.start - 1, flags: flagSYN, options: []byte{2, 4, 5, 180}})
			c.data(0, hello)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFastStage(t, AttachAuto)
			s.pin(goodName)
			c := newRawClient(s)
			c.connect()
			tc.send(c)
			c.answered()
			for _, e := range c.events() {
				t.Errorf("event %+v", e)
			}
			flows, err := s.r.FastFlows(s.l.Bottle)
			if err != nil || len(flows) != 1 || flows[0].Name != goodName || time.Since(flows[0].Began) > patience {
				t.Errorf("flows are %+v, %v", flows, err)
			}
		})
	}
}
