package redirect

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// receiver is an upstream's TCP as far as its stream goes. It keeps no state of a SYN: the segment that comes with a good
// cookie begins the connection, at the segment's own number (RFC 4987 section 3.6, net/ipv4/syncookies.c).
type receiver struct {
	secret      uint32
	open        bool
	start, next uint32
	stream      []byte
}

func (r *receiver) cookie(syn uint32) uint32 { return r.secret + syn }

// take has a frame arrive, and returns the answer to it.
func (r *receiver) take(f []byte) (answer tcpSegment, ok bool) {
	seq, ack, flags := binary.BigEndian.Uint32(f[38:]), binary.BigEndian.Uint32(f[42:]), f[47]
	payload := f[34+int(f[46]>>4)*4 : 14+int(binary.BigEndian.Uint16(f[16:]))]
	switch {
	case flags&flagRST != 0:
		r.open = r.open && seq != r.next
		return answer, false
	case flags&flagSYN != 0 && !r.open:
		return tcpSegment{seq: r.cookie(seq), ack: seq + 1, flags: flagSYN | flagACK}, true
	case flags&flagSYN != 0:
		return r.ack(), true
	case flags&flagACK == 0:
		return answer, false
	case !r.open && ack != r.cookie(seq-1)+1:
		return tcpSegment{seq: ack, flags: flagRST}, true
	case !r.open:
		*r = receiver{secret: r.secret, open: true, start: seq, next: seq}
	}
	if mine := r.cookie(r.start-1) + 1; mine-ack > 1<<16 || seq-r.next > 0 && r.next-seq >= uint32(len(payload)) {
		return r.ack(), true
	}
	r.stream = append(r.stream, payload[r.next-seq:]...)
	r.next = seq + uint32(len(payload))
	return r.ack(), true
}

func (r *receiver) ack() tcpSegment {
	return tcpSegment{seq: r.cookie(r.start-1) + 1, ack: r.next, flags: flagACK}
}

// TestFastPathBesideAModel sends SYNs, payload in pieces, FINs and RSTs at random, some of which get lost behind the program, to
// a model of an upstream whose answers come at once or late. The stream that it takes never begins with a hello for a name
// that may not be called. GATEWAYD_TEST_MODEL is how long it goes on, two seconds if not set.
func TestFastPathBesideAModel(t *testing.T) {
	h := newJudgeHarness(t)
	h.allow(goodName)
	long := 2 * time.Second
	if s := os.Getenv("GATEWAYD_TEST_MODEL"); s != "" {
		var err error
		long, err = time.ParseDuration(s)
		must(t, err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	m := &modelRun{judgeHarness: h, r: random}
	hello, at := nested(t)
	turned, back := turned(t)
	good := clientHello(t, goodName)
	m.streams = [][]byte{good, clientHello(t, evilName), hello, hello[at:], turned, turned[back:]}
	m.marks = []uint32{0, uint32(at), uint32(back), uint32(len(good)), uint32(len(hello)), uint32(len(turned))}
	rounds, taken := 0, 0
	for end := time.Now().Add(long); time.Now().Before(end); rounds++ {
		if m.round(t) {
			taken++
		}
	}
	t.Logf("%d connections, %d segments; %d upstreams had a whole hello", rounds, m.sent, taken)
	if taken == 0 {
		t.Error("no upstream had a hello: the segments are too odd")
	}
}

// turned is nested the other way round: the good hello is outside.
func turned(t testing.TB) (hello []byte, at int) {
	t.Helper()
	outer, inner := clientHello(t, goodName), clientHello(t, evilName)
	extension := binary.BigEndian.AppendUint16([]byte{0xfa, 0xce}, uint16(len(inner)))
	at = len(outer) + len(extension)
	return grown(slices.Concat(outer, extension, inner), len(extension)+len(inner)), at
}

type modelRun struct {
	*judgeHarness
	r       *rand.Rand
	streams [][]byte
	marks   []uint32
	sent    int
	late    []tcpSegment
}

func (m *modelRun) mark() uint32 { return m.marks[m.r.IntN(len(m.marks))] }

// round is one tuple's life. It tells whether the upstream took a whole hello.
func (m *modelRun) round(t *testing.T) (taken bool) {
	m.begin()
	m.late = nil
	up := &receiver{secret: m.r.Uint32()}
	must(t, m.objects.Flows.Delete(m.key))
	must(t, fillSlots(&m.objects))
	must(t, m.objects.Usages.Put(uint32(loopbackIndex), gatewayUsage{}))
	must(t, m.objects.Stats.Put(uint32(loopbackIndex), make([]gatewayLinkStats, len(m.stats()))))
	m.step(up, tcpSegment{seq: 999, flags: flagSYN}, m.r.IntN(8) == 0)
	for range 4 + m.r.IntN(12) {
		m.step(up, m.segment(up), m.r.IntN(3) == 0)
		if m.r.IntN(40) == 0 {
			m.pastEnd()
		}
		switch name, _ := strict(up.stream); name {
		case "":
		case goodName:
			taken = true
		default:
			t.Fatalf("an upstream took a hello for %q: %x", name, up.stream)
		}
	}
	return taken
}

// segment is what the bottle sends next.
func (m *modelRun) segment(up *receiver) tcpSegment {
	base := uint32(1000)
	if m.r.IntN(4) == 0 {
		base += m.mark()
	}
	ack := up.cookie(999) + 1
	if m.r.IntN(4) == 0 {
		ack += m.mark()
	}
	switch m.r.IntN(12) {
	case 0, 1:
		return tcpSegment{seq: base - 1, flags: flagSYN}
	case 2:
		return tcpSegment{seq: base + m.mark(), ack: ack, flags: flagRST | flagACK}
	case 3:
		return tcpSegment{seq: base + m.mark(), ack: ack, flags: flagFIN | flagACK}
	case 4, 5:
		return tcpSegment{seq: base + m.mark(), ack: ack, flags: flagACK}
	}
	s := m.streams[m.r.IntN(len(m.streams))]
	from := min(m.mark(), uint32(len(s)))
	to := min(max(from, m.mark()), uint32(len(s)))
	if m.r.IntN(4) == 0 {
		to = from + uint32(m.r.IntN(int(uint32(len(s))-from)+1))
	}
	return tcpSegment{seq: base + from, ack: ack, flags: flagACK, payload: s[from:to]}
}

// step has the program judge a segment, and the upstream what it lets go on unless that gets lost.
func (m *modelRun) step(up *receiver, s tcpSegment, lost bool) {
	m.sent++
	ret, out := m.out(s)
	var f gatewayFlow
	ours := m.objects.Flows.Lookup(m.key, &f) == nil && gatewayFlowState(f.State) != gatewayFlowStateFLOW_ENDED
	if ret == tcActOK && ours && !lost {
		if a, ok := up.take(out); ok {
			m.late = append(m.late, a)
		}
	}
	for len(m.late) > 0 && m.r.IntN(3) > 0 {
		m.answer(m.late[0])
		m.late = m.late[1:]
	}
}

// pastEnd has the collector take the flow away, if it is over, and time pass as that does: what was late has come.
func (m *modelRun) pastEnd() {
	for _, a := range m.late {
		m.answer(a)
	}
	m.late = nil
	for range 3 {
		var f gatewayFlow
		if m.objects.Flows.Lookup(m.key, &f) != nil {
			return
		}
		f.Seen -= uint64(15 * time.Second)
		must(m.t, m.objects.Flows.Put(m.key, f))
		must(m.t, collect(m.objects.CollectFlows))
	}
	must(m.t, m.objects.Destinations.Put(m.dest, gatewayDestination{Expires: 1 << 62}))
}
