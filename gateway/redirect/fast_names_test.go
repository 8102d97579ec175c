package redirect

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"gatewayd/lab/privileged"
)

// TestFlowKeepsItsName withdraws the permission that a flow was judged by: for as long as the flow is there its number is given to
// no other name, and the flow has its own, also in the eyes of the next process.
func TestFlowKeepsItsName(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF)
	p := newProgram(t)
	table, err := newFastTable(&p.objects)
	must(t, err)
	const link = 7
	at := netip.MustParseAddr("198.19.100.1")
	pin := func(name string) grant {
		t.Helper()
		must(t, table.set(link, at, []FastPin{{Name: name, Port: 443, For: time.Hour}}))
		return table.grants[grantKey{link, networkOrder16(443), name}]
	}
	first := pin("first.test")
	key := gatewayFlowKey{Ifindex: link, Daddr: networkOrder32(at), Dport: networkOrder16(443)}
	flow := gatewayFlow{Grant: first.id, Epoch: first.epoch, State: uint8(gatewayFlowStateFLOW_VERIFIED)}
	must(t, p.objects.Flows.Put(key, flow))
	must(t, table.revoke(link, nil))
	look := func() {
		t.Helper()
		table.reclaimed = time.Time{}
		must(t, table.reclaim())
		if got := table.flowName(&flow); got != "first.test" {
			t.Errorf("the flow is of %q", got)
		}
		table.next = first.id - 1 // where it would be found at once
		if other := pin("other.test"); other.id == first.id {
			t.Error("another name has the flow's number")
		}
	}
	look()
	must(t, table.revoke(link, nil))
	if table, err = newFastTable(&p.objects); err != nil {
		t.Fatal(err)
	}
	look()
	must(t, p.objects.Flows.Delete(key))
	table.reclaimed = time.Time{}
	must(t, table.reclaim())
	var name gatewayName
	if err := p.objects.Names.Lookup(first.id, &name); err == nil {
		t.Errorf("the name %q is still there", nameText(&name))
	}
	table.next = first.id - 1
	if again := pin("again.test"); again.id != first.id || again.epoch == first.epoch {
		t.Errorf("the number is not given again under another epoch: %+v, then %+v", first, again)
	}
	if got := table.flowName(&flow); got != "" {
		t.Errorf("the flow's old permission is of %q", got)
	}
}

// TestPinsRunOut has pins end one after another: each goes when it has ended and not before, and a destination with the last of its pins.
func TestPinsRunOut(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF)
	p := newProgram(t)
	table, err := newFastTable(&p.objects)
	must(t, err)
	const link = 7
	must(t, table.expire()) // of nothing
	for i, left := range []time.Duration{time.Hour, 300 * time.Millisecond, 100 * time.Millisecond} {
		at := netip.AddrFrom4([4]byte{198, 19, 100, byte(i)})
		must(t, table.set(link, at, []FastPin{{Name: "n.test", Port: 443, For: left}}))
	}
	left := func() (pins, destinations int) {
		must(t, table.expire())
		var k gatewayPinKey
		var v gatewayPin
		for it := p.objects.Pins.Iterate(); it.Next(&k, &v); {
			pins++
		}
		var dk gatewayDestinationKey
		var dv gatewayDestination
		for it := p.objects.Destinations.Iterate(); it.Next(&dk, &dv); {
			destinations++
		}
		return pins, destinations
	}
	for want := 3; want > 0; want-- {
		eventually(t, fmt.Sprintf("%d pins", want), func() bool { n, d := left(); return n == want && d == want })
	}
	if n, _ := left(); n != 1 || table.counts[link] != 1 {
		t.Errorf("%d pins are left, and %d are counted", n, table.counts[link])
	}
}
