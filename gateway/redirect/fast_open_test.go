package redirect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// silent is an address of the internet where nobody answers but the test.
var silent = netip.MustParseAddr("198.19.77.11")

// rawUpstream is called by a rawClient, and answers by frames of the test's making.
type rawUpstream struct {
	*rawClient
	to  func(frame []byte) // to the gateway's uplink
	mac []byte             // the uplink's
	out uint16             // the port that the bottle's connection has there
}

// callSilent has the bottle call the silent address, and waits for its SYN there.
func callSilent(t *testing.T, mode AttachMode) *rawUpstream {
	t.Helper()
	s := laneStage(t, mode)
	must(t, s.r.SetFast(s.l.Bottle, silent, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	u := &rawUpstream{rawClient: newRawClient(s)}
	u.rawClient.to = silent
	up, err := netlink.LinkByName("up0")
	must(t, err)
	u.mac = up.Attrs().HardwareAddr
	must(t, inNetns(s.net, func() error {
		dev, err := netlink.LinkByName("net0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		t.Cleanup(func() { unix.Close(fd) })
		u.to = func(frame []byte) {
			must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: dev.Attrs().Index}))
		}
		return err
	}))
	syn := tcpSegment{seq: u.start - 1, flags: flagSYN, options: []byte{2, 4, 5, 180}}
	eventually(t, "the SYN to leave", func() bool {
		u.send(syn)
		i := slices.IndexFunc(s.leaks.frames(), func(f []byte) bool {
			return len(f) >= 54 && f[23] == 6 && netip.AddrFrom4([4]byte(f[30:34])) == silent && f[47] == flagSYN
		})
		if i >= 0 {
			u.out = binary.BigEndian.Uint16(s.leaks.frames()[i][34:])
		}
		return i >= 0
	})
	return u
}

// answer sends a segment to the bottle's connection.
func (u *rawUpstream) answer(s tcpSegment) {
	u.t.Helper()
	s.sport, s.dport = 443, u.out
	f := frame{src: []byte{2, 0, 0, 0, 0, 9}, dst: u.mac, etype: 0x0800, ip: good(u.l).ip}
	f.ip.src, f.ip.dst, f.ip.ttl = silent, uplinkHost, 64
	f.body = s.bytes(silent, uplinkHost)
	u.to(f.bytes())
}

// theFlow is the only one.
func (s *fastStage) theFlow() (found gatewayFlow) {
	s.t.Helper()
	n := 0
	must(s.t, s.r.fast.eachFlow(func(_ gatewayFlowKey, f *gatewayFlow) { found, n = *f, n+1 }))
	if n != 1 {
		s.t.Fatalf("there are %d flows", n)
	}
	return found
}

// tracked is for how many seconds conntrack will keep what it has of the bottle's connections by the uplink: the most, -1 for none.
func (s *fastStage) tracked() (most int) {
	s.t.Helper()
	most = -1
	for line := range strings.Lines(string(conntrack(s.t))) {
		words := strings.Fields(line) // protocol, its number, seconds left, state, ...
		if strings.Contains(line, " src="+s.l.Guest.String()+" ") && strings.Contains(line, " dst="+uplinkHost.String()+" ") {
			seconds, err := strconv.Atoi(words[2])
			must(s.t, err)
			most = max(most, seconds)
		}
	}
	return most
}

// mss says that segments of n bytes are taken (RFC 9293 section 3.2).
func mss(n uint16) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }

// TestFastLaneBeginsWithTheAnswer answers a bottle's SYN. That answer already goes past the stack, and so does all that follows:
// netfilter has seen the SYN and nothing else, and keeps the port for as long as an idle flow has.
func TestFastLaneBeginsWithTheAnswer(t *testing.T) {
	for _, mode := range bothHooks {
		t.Run(string(mode), func(t *testing.T) {
			u := callSilent(t, mode)
			if f := u.theFlow(); f.OutPort != 0 || u.reverses() != 0 || u.tracked() > 120 {
				t.Fatalf("before the answer: %+v, kept for %d s", f, u.tracked())
			}
			u.answer(tcpSegment{seq: 500, ack: u.start, flags: flagSYN | flagACK, options: mss(1460)})
			got := u.await("SYN-ACK", flagSYN|flagACK)
			if !checksumsHold(got) || got[22] != 63 || netip.AddrFrom4([4]byte(got[26:30])) != silent ||
				netip.AddrFrom4([4]byte(got[30:34])) != u.l.Guest {
				t.Errorf("it came as %x", got)
			}
			f := u.theFlow()
			if hostOrder16(f.OutPort) != u.out || f.Lane == 0 || f.Opened == 0 || f.Expects != 501 ||
				gatewayFlowState(f.State) != gatewayFlowStateFLOW_UNVERIFIED || u.reverses() != 1 {
				t.Errorf("the flow is %+v", f)
			}
			if kept := u.tracked(); kept < 7440 {
				t.Errorf("conntrack keeps it for %d s", kept)
			}
			before := counters(t, u.r, u.l)
			u.ack = 501
			u.data(0, nil)
			u.data(0, clientHello(t, goodName))
			eventually(t, "the hello to leave", func() bool { return len(u.left()) > 0 })
			if d := difference(counters(t, u.r, u.l), before); d.Redirected != 2 || d.Forwarded != 2 || len(d.Drops) != 0 {
				t.Errorf("counted %+v", d)
			}
		})
	}
}

// TestFastLaneOpensByNothingElse answers a bottle's SYN with everything that is no answer to it, and with one whose segment size
// is to be lowered on its way, or cannot be read: none of it goes past the stack, and none has conntrack keep an entry longer.
func TestFastLaneOpensByNothingElse(t *testing.T) {
	u := callSilent(t, AttachAuto)
	start := u.start
	stranger := func(s tcpSegment) { // to a port at which no connection is
		u.out++
		u.answer(s)
		u.out--
	}
	for _, try := range []func(){
		func() { u.answer(tcpSegment{seq: 500, ack: start + 1, flags: flagSYN | flagACK, options: mss(1460)}) },
		func() { u.answer(tcpSegment{seq: 500, ack: start - 1, flags: flagSYN | flagACK, options: mss(1460)}) },
		func() { u.answer(tcpSegment{seq: 500, flags: flagSYN, options: mss(1460)}) },
		func() { u.answer(tcpSegment{seq: 500, ack: start, flags: flagACK, options: mss(1460)}) },
		func() {
			u.answer(tcpSegment{seq: 500, ack: start, flags: flagSYN | flagACK | flagRST, options: mss(1460)})
		},
		func() { stranger(tcpSegment{seq: 500, ack: start, flags: flagSYN | flagACK, options: mss(1460)}) },
	} {
		try()
		if f := u.theFlow(); f.OutPort != 0 || f.Lane != 0 || u.reverses() != 0 || u.tracked() > 120 {
			t.Fatalf("the flow is %+v, kept for %d s", f, u.tracked())
		}
	}
}

// TestFastLaneLeavesSegmentSizesToTheStack answers a bottle's SYN with a segment size that is to be lowered on its way, or that
// is not where it is looked for: the answer goes through the stack, and the flow into the lane with its hello.
func TestFastLaneLeavesSegmentSizesToTheStack(t *testing.T) {
	for _, options := range [][]byte{mss(1461), nil, append([]byte{1, 1, 1, 1}, mss(1460)...)} {
		t.Run(fmt.Sprintf("%x", options), func(t *testing.T) {
			u := callSilent(t, AttachAuto)
			u.answer(tcpSegment{seq: 500, ack: u.start, flags: flagSYN | flagACK, options: options})
			got := u.await("SYN-ACK", flagSYN|flagACK)
			if f := u.theFlow(); f.OutPort != 0 || f.Lane != 0 || f.Opened == 0 || u.reverses() != 0 {
				t.Errorf("the flow is %+v", f)
			}
			if len(options) == 4 && binary.BigEndian.Uint16(got[56:]) != 1460 {
				t.Errorf("the segment size was not lowered: %x", got)
			}
			u.ack = 501
			u.data(0, nil)
			u.data(0, clientHello(t, goodName))
			u.inLane(1)
		})
	}
}

// TestFastLaneBeforeTheVerdict ends flows that are in the lane and whose hello has not been judged: each leaves nothing at the
// uplink, and in conntrack no more than it does behind the stack.
func TestFastLaneBeforeTheVerdict(t *testing.T) {
	hello, evil := clientHello(t, goodName), clientHello(t, evilName)
	half := len(hello) / 2
	for _, tc := range []struct {
		name string
		try  func(u *rawUpstream)
		why  FastReason
		left int // bytes of payload that may have left
	}{
		{"another name", func(u *rawUpstream) { u.data(0, evil) }, FastName, 0},
		{"other bytes in place of the hello", func(u *rawUpstream) {
			u.data(0, hello)
			u.data(0, evil)
		}, FastChanged, len(hello)},
		{"other bytes in place of a part", func(u *rawUpstream) {
			u.data(0, hello[:half])
			u.data(half-1, append([]byte{hello[half-1] ^ 1}, evil...))
		}, FastChanged, half},
		{"a second hello before the first is acknowledged", func(u *rawUpstream) {
			u.data(0, hello)
			u.data(len(hello), evil)
		}, FastName, len(hello)},
		{"a RST of the bottle, and a hello behind it", func(u *rawUpstream) {
			u.send(tcpSegment{seq: u.start, ack: u.ack, flags: flagRST | flagACK})
			u.dropped(gatewayDropReasonDROP_FLOW_ORDER, 1, func() { u.data(0, hello) })
		}, FastReset, 0},
		{"a RST of the upstream, and a hello behind it", func(u *rawUpstream) {
			u.answer(tcpSegment{seq: 501, ack: u.start, flags: flagRST | flagACK})
			u.await("RST to the bottle", flagRST)
			u.dropped(gatewayDropReasonDROP_FLOW_ORDER, 1, func() { u.data(0, hello) })
		}, FastReset, 0},
		{"another connection with the same ports", func(u *rawUpstream) {
			u.send(tcpSegment{seq: u.start + 1<<20, flags: flagSYN})
		}, FastReplaced, 0},
		{"silence", func(u *rawUpstream) {
			must(u.t, u.r.fast.eachFlow(func(k gatewayFlowKey, f *gatewayFlow) {
				f.Began -= uint64(21 * time.Second)
				must(u.t, u.r.objects.Flows.Put(k, f))
			}))
		}, FastHelloTimeout, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := callSilent(t, AttachAuto)
			u.answer(tcpSegment{seq: 500, ack: u.start, flags: flagSYN | flagACK, options: mss(1460)})
			u.await("SYN-ACK", flagSYN|flagACK)
			u.ack = 501
			u.data(0, nil)
			if f := u.theFlow(); f.OutPort == 0 {
				t.Fatalf("the flow is %+v", f)
			}
			tc.try(u)
			eventually(t, "the record: "+tc.why.String(), func() bool {
				must(t, u.r.CollectFast())
				return slices.ContainsFunc(u.events(), func(e FastEvent) bool { return e.Reason == tc.why })
			})
			eventually(t, "conntrack to let go", func() bool { return u.tracked() <= 10 })
			if n := u.reverses(); n != 0 {
				t.Errorf("%d entries are left at the uplink", n)
			}
			if got := u.left(); len(got) != tc.left {
				t.Errorf("%d bytes left, want %d", len(got), tc.left)
			}
			if n := u.untranslated(); n != 0 {
				t.Errorf("%d frames left untranslated", n)
			}
		})
	}
}

// TestFastLaneBelievesNoFarRST resets a flow in the lane, before its hello, by a number that is not near what the bottle expects:
// the flow goes on, and its hello is still compared.
func TestFastLaneBelievesNoFarRST(t *testing.T) {
	u := callSilent(t, AttachAuto)
	u.answer(tcpSegment{seq: 500, ack: u.start, flags: flagSYN | flagACK, options: mss(1460)})
	u.await("SYN-ACK", flagSYN|flagACK)
	u.answer(tcpSegment{seq: 501 + 1<<24, flags: flagRST})
	u.await("RST to the bottle", flagRST)
	if f := u.theFlow(); f.Reset != 0 || f.Slot == 0 {
		t.Errorf("the flow is %+v", f)
	}
	u.answer(tcpSegment{seq: 501, flags: flagRST})
	eventually(t, "the RST to count", func() bool { f := u.theFlow(); return f.Reset != 0 && f.Slot == 0 })
}

// TestFastLaneSYNAgain repeats the SYN of a flow that is in the lane: conntrack, which sees that, must not forget the connection
// sooner for it.
func TestFastLaneSYNAgain(t *testing.T) {
	u := callSilent(t, AttachAuto)
	answer := tcpSegment{seq: 500, ack: u.start, flags: flagSYN | flagACK, options: mss(1460)}
	u.answer(answer)
	u.await("SYN-ACK", flagSYN|flagACK)
	u.send(tcpSegment{seq: u.start - 1, flags: flagSYN, options: mss(1460)})
	eventually(t, "the SYN to leave", func() bool { kept := u.tracked(); return kept >= 0 && kept <= 120 })
	u.in.forget()
	u.answer(answer)
	u.await("SYN-ACK again", flagSYN|flagACK)
	u.ack = 501
	u.data(0, nil)
	u.data(0, clientHello(t, goodName))
	eventually(t, "the hello to leave", func() bool { return len(u.left()) > 0 })
	if f, kept := u.theFlow(), u.tracked(); kept < 7440 || f.OutPort == 0 || gatewayFlowState(f.State) != gatewayFlowStateFLOW_VERIFIED {
		t.Errorf("kept for %d s, the flow is %+v", kept, f)
	}
}
