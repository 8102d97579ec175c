package redirect

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatewayd/lab/privileged"
)

// crowd is a stage with a second bottle, which calls on the fast path while the first uses its budgets up.
type crowd struct {
	*fastStage
	other *fastStage // the second bottle's view of the same stage
	open  *tls.Conn  // the first bottle's, verified before the budgets are used up
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	s := newFastStage(t, AttachAuto)
	second := s.link(2)
	s.listeners(second)
	s.set(s.l, second)
	other := &fastStage{stage: s.stage, l: second, g: s.enter(second)}
	s.pin(goodName)
	other.pin(goodName)
	open, err := s.call(goodName)
	must(t, err)
	must(t, echoed(open, "before"))
	return &crowd{s, other, open}
}

// holds looks that the budget that was used up is the first bottle's alone: its verified connection goes on, new ones are
// the relay's, and the other bottle's take the fast path.
func (c *crowd) holds() {
	c.t.Helper()
	if err := echoed(c.open, strings.Repeat("after", 10_000)); err != nil {
		c.t.Errorf("the verified connection: %v", err)
	}
	before := counters(c.t, c.r, c.l)
	if got := c.g.ask(netip.AddrPortFrom(origin, 443)); !strings.Contains(got, origin.String()) {
		c.t.Errorf("the listener answered %q", got)
	}
	if d := difference(counters(c.t, c.r, c.l), before); d.Assigned == 0 {
		c.t.Errorf("counted %+v", d)
	}
	c.otherBottle()
}

// otherBottle calls from the second bottle.
func (c *crowd) otherBottle() {
	c.t.Helper()
	before := counters(c.t, c.r, c.other.l)
	conn, err := c.other.call(goodName)
	if err == nil {
		err = echoed(conn, strings.Repeat("other", 10_000))
	}
	if d := difference(counters(c.t, c.r, c.other.l), before); err != nil || d.Forwarded == 0 || d.Assigned != 0 {
		c.t.Errorf("the other bottle: %v, counted %+v", err, d)
	}
}

// TestFastPathOutOfHellos sends SYNs to an address where nobody answers, until as many hellos are awaited as one bottle may
// have: what is beyond is given to the relay.
func TestFastPathOutOfHellos(t *testing.T) {
	const beyond = 50
	c := newCrowd(t)
	must(t, c.r.SetFast(c.l.Bottle, called, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	before := counters(t, c.r, c.l)
	for i := range int(gatewayLimitsMAX_BOTTLE_HELLOS) + beyond {
		f := good(c.l)
		f.ip.dst = called
		f.body = tcpSegment{sport: 20000 + uint16(i), dport: 443, seq: 1000, flags: flagSYN}.bytes(c.l.Guest, called)
		c.g.send(f.bytes())
	}
	eventually(t, "the SYNs to be judged", func() bool {
		d := difference(counters(t, c.r, c.l), before)
		return d.Assigned >= beyond && d.Forwarded >= uint64(gatewayLimitsMAX_BOTTLE_HELLOS)
	})
	if n := hellosKept(t, c.r); n != int(gatewayLimitsMAX_BOTTLE_HELLOS) {
		t.Errorf("%d hellos are awaited, want %d", n, gatewayLimitsMAX_BOTTLE_HELLOS)
	}
	c.holds()
}

// TestFastPathOutOfFlows has the account of one bottle say that it has all the flows that it may have.
func TestFastPathOutOfFlows(t *testing.T) {
	c := newCrowd(t)
	index := uint32(c.r.Status().Links[0].Ifindex)
	var u gatewayUsage
	must(t, c.r.objects.Usages.Lookup(index, &u))
	u.Flows = uint64(gatewayLimitsMAX_BOTTLE_FLOWS)
	must(t, c.r.objects.Usages.Put(index, u))
	c.holds()
	must(t, c.r.objects.Usages.Lookup(index, &u))
	if u.Flows != uint64(gatewayLimitsMAX_BOTTLE_FLOWS) || u.Hellos != 0 {
		t.Errorf("the account says %+v after a refusal", u)
	}
}

// TestFastPathOutOfPins gives one bottle as many pins as it may have, each for a name of its own and so with a permission of
// its own.
func TestFastPathOutOfPins(t *testing.T) {
	c := newCrowd(t)
	at := netip.MustParseAddr("198.19.100.1")
	var err error
	n := 1 // what newCrowd pinned
	for ; err == nil && n <= maxBottlePins+64; n += 64 {
		pins := make([]FastPin, 64)
		for i := range pins {
			pins[i] = FastPin{Name: fmt.Sprintf("n%d-%d.test", n, i), Port: 443, For: time.Hour}
		}
		err = c.r.SetFast(c.l.Bottle, at, pins)
		at = at.Next()
	}
	if err == nil || n < maxBottlePins {
		t.Fatalf("%d pins, %v", n, err)
	}
	if err := echoed(c.open, "after"); err != nil {
		t.Errorf("the verified connection: %v", err)
	}
	must(t, c.r.SetFast(c.other.l.Bottle, at, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	c.otherBottle()
	must(t, c.r.RevokeFast(c.l.Bottle, func(name string, _ uint16) bool { return name == goodName }))
	must(t, c.r.SetFast(c.l.Bottle, at, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
}

// TestFastPathOutOfEvents ends flows until the ring has no room, while nobody reads it. What cannot be reported goes on, and
// is counted; every record is there when the ring is read again, the other bottle's as well.
func TestFastPathOutOfEvents(t *testing.T) {
	c := newCrowd(t)
	other, err := c.other.call(goodName)
	must(t, err)
	must(t, echoed(other, "before"))
	c.unwatch()
	must(t, c.r.SetFast(c.l.Bottle, called, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	before := counters(t, c.r, c.l)
	full := Reason(gatewayDropReasonDROP_EVENTS_FULL)
	var d Counters
	port := uint16(1024)
	eventually(t, "the ring to be full", func() bool {
		for range 1000 { // the second of each two ends what the first began
			port++
			for seq := range uint32(2) {
				f := good(c.l)
				f.ip.dst = called
				f.body = tcpSegment{sport: port, dport: 443, seq: seq, flags: flagSYN}.bytes(c.l.Guest, called)
				c.g.send(f.bytes())
			}
		}
		d = difference(counters(t, c.r, c.l), before)
		return d.Drops[full] > 100
	})
	must(t, echoed(c.open, "after"))
	must(t, echoed(other, "after"))
	must(t, c.r.RevokeFast(c.other.l.Bottle, nil))
	must(t, c.r.CollectFast()) // reports nothing: there is no room
	eventually(t, "the last SYN to be judged", func() bool {
		now := difference(counters(t, c.r, c.l), before)
		same := now.RxPackets == d.RxPackets
		d = now
		return same
	})
	c.watchEvents()
	eventually(t, "all records", func() bool {
		must(t, c.r.CollectFast())
		replaced, revoked := 0, 0
		for _, e := range c.events() {
			switch {
			case e.Reason == FastReplaced && e.Flow.Bottle == c.l.Bottle:
				replaced++
			case e.Reason == FastRevoked && e.Flow.Bottle == c.other.l.Bottle:
				revoked++
			}
		}
		return replaced > 1000 && revoked == 1
	})
	replaced := 0
	for _, e := range c.events() {
		if e.Reason == FastReplaced {
			replaced++
		}
	}
	// Each that was replaced is the relay's, whose answers the bottle's kernel resets.
	if replaced > int(d.Assigned) {
		t.Errorf("%d records of replaced flows, %d frames were assigned", replaced, d.Assigned)
	}
}

// TestFastPathOutOfPermissions has one bottle's flows hold as many permissions as it may have, for names that are no longer
// pinned. Another bottle is given one, and it as well when a flow has ended.
func TestFastPathOutOfPermissions(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF)
	p := newProgram(t)
	table, err := newFastTable(&p.objects)
	must(t, err)
	const one, two = 7, 8
	at := netip.MustParseAddr("198.19.100.1")
	pin := func(ifindex uint32, name string) error {
		return table.set(ifindex, at, []FastPin{{Name: name, Port: 443, For: time.Hour}})
	}
	key := gatewayFlowKey{Ifindex: one, Daddr: networkOrder32(at), Dport: networkOrder16(443)}
	for i := range maxBottlePins {
		name := fmt.Sprintf("n%d.test", i)
		must(t, pin(one, name))
		g := table.grants[grantKey{one, key.Dport, name}]
		key.Sport = networkOrder16(uint16(i))
		must(t, p.objects.Flows.Put(key, gatewayFlow{Grant: g.id, Epoch: g.epoch, State: uint8(gatewayFlowStateFLOW_VERIFIED)}))
	}
	if err := pin(one, "beyond.test"); err == nil {
		t.Error("the bottle has more permissions than it may have")
	}
	must(t, pin(two, "beyond.test"))
	must(t, p.objects.Flows.Delete(key))
	table.reclaimed = time.Time{} // a second later
	must(t, pin(one, "beyond.test"))
}
