package redirect

import (
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
