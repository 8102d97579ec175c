package gateway

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
)

// fakeFast is a redirect whose kernel is a map.
type fakeFast struct {
	*fakeRedirect
	mu     sync.Mutex
	pins   map[netip.Addr][]redirect.FastPin
	kept   func(name string, port uint16) bool
	events chan redirect.FastEvent
}

func (f *fakeFast) SetFast(_ string, addr netip.Addr, pins []redirect.FastPin) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pins[addr] = pins
	return nil
}

func (f *fakeFast) RevokeFast(_ string, keep func(string, uint16) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = keep
	return nil
}

func (f *fakeFast) FastFlows(string) ([]redirect.FastFlow, error) { return nil, nil }
func (f *fakeFast) CollectFast() error                            { return nil }
func (f *fakeFast) CountFast() (map[string]int, error)            { return map[string]int{"dev": 3}, nil }

func (f *fakeFast) FastEvents(ctx context.Context, handle func(redirect.FastEvent)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-f.events:
			handle(e)
		}
	}
}

// names returns what may be called at addr, sorted.
func (f *fakeFast) names(addr string) (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pins[netip.MustParseAddr(addr)] {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

func newFastWorld(t *testing.T) (*world, *fakeFast) {
	t.Helper()
	f := &fakeFast{pins: map[netip.Addr][]redirect.FastPin{}, events: make(chan redirect.FastEvent)}
	w := newWorld(t, func(o *Options) {
		f.fakeRedirect = o.Redirect.(*fakeRedirect)
		o.Redirect = f
	})
	return w, f
}

// resolve is what the name server does with an answer.
func resolve(t *testing.T, b *bottle, name, addr string) {
	t.Helper()
	addrs := []netip.Addr{netip.MustParseAddr(addr)}
	if err := b.pins.Add(name, addrs, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := b.pinFast(name, addrs, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// TestFastPins tells which addresses may be called without a proxy.
func TestFastPins(t *testing.T) {
	rs := []routes.Route{
		{Host: "pass.test", TLSPassthrough: true}, {Host: "*.wild.test", TLSPassthrough: true}, {Host: "icept.test"},
		{Host: "db.test", Port: 5432, Protocol: routes.TCP}, {Host: "inner.test", TLSPassthrough: true, AllowPrivate: true},
	}
	type answer struct{ name, addr string }
	for _, tc := range []struct {
		name    string
		answers []answer
		addr    string
		want    []string
	}{
		{"passes through", []answer{{"pass.test", "93.184.216.34"}}, "93.184.216.34", []string{"pass.test"}},
		{"under a wildcard, by its own name", []answer{{"a.wild.test", "93.184.216.34"}}, "93.184.216.34", []string{"a.wild.test"}},
		{"two that pass through", []answer{{"pass.test", "93.184.216.34"}, {"a.wild.test", "93.184.216.34"}}, "93.184.216.34", []string{"a.wild.test", "pass.test"}},
		{"intercepted", []answer{{"icept.test", "93.184.216.34"}}, "93.184.216.34", nil},
		{"shared with an intercepted one", []answer{{"pass.test", "93.184.216.34"}, {"icept.test", "93.184.216.34"}}, "93.184.216.34", nil},
		{"shared with one of another protocol", []answer{{"db.test", "93.184.216.34"}, {"pass.test", "93.184.216.34"}}, "93.184.216.34", nil},
		{"private, though the route allows it", []answer{{"inner.test", "10.1.2.3"}}, "10.1.2.3", nil},
		{"a bottle's own link", []answer{{"pass.test", "198.18.1.1"}}, "198.18.1.1", nil},
		{"metadata", []answer{{"pass.test", "169.254.169.254"}}, "169.254.169.254", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, f := newFastWorld(t)
			w.apply(t, testBottle(t, rs...))
			for _, a := range tc.answers {
				resolve(t, w.g.running()[0], a.name, a.addr)
			}
			if got := f.names(tc.addr); !slices.Equal(got, tc.want) {
				t.Errorf("the kernel lets %v be called, want %v", got, tc.want)
			}
		})
	}
}

// TestFastPlanChange swaps the plan: the kernel is told which flows go on, and
// which names may still be called.
func TestFastPlanChange(t *testing.T) {
	w, f := newFastWorld(t)
	both := testBottle(t, routes.Route{Host: "a.test", TLSPassthrough: true}, routes.Route{Host: "b.test", TLSPassthrough: true})
	w.apply(t, both)
	b := w.g.running()[0]
	resolve(t, b, "a.test", "93.184.216.34")
	resolve(t, b, "b.test", "93.184.216.35")
	one := testBottle(t, routes.Route{Host: "a.test", TLSPassthrough: true}, routes.Route{Host: "b.test"})
	one.CA = both.CA
	w.apply(t, one)
	if f.kept == nil || !f.kept("a.test", 443) || f.kept("b.test", 443) || f.kept("a.test", 444) || f.kept("c.test", 443) {
		t.Error("the wrong flows are kept")
	}
	if a, b := f.names("93.184.216.34"), f.names("93.184.216.35"); len(a) != 1 || len(b) != 0 {
		t.Errorf("the kernel lets %v and %v be called", a, b)
	}
}

// TestFastRecords turns events of the kernel into records, and leaves an address
// at which a flow was refused to the relay.
func TestFastRecords(t *testing.T) {
	w, f := newFastWorld(t)
	w.apply(t, testBottle(t, routes.Route{Host: "a.test", TLSPassthrough: true}))
	b := w.g.running()[0]
	resolve(t, b, "a.test", "93.184.216.34")
	now := time.Now()
	flow := redirect.FastFlow{ID: "0123", Bottle: "dev", Src: netip.MustParseAddrPort("198.18.1.2:40000"),
		Dst: netip.MustParseAddrPort("93.184.216.34:443"), Name: "a.test", Verified: true, Began: now.Add(-3 * time.Second), Seen: now,
		UpPackets: 1, UpBytes: 2, DownPackets: 3, DownBytes: 4}
	f.events <- redirect.FastEvent{Flow: flow, Reason: redirect.FastClosed}
	r := w.records.wait(t, func(r Record) bool { return r.ID == "f-0123" })
	if r.Type != RecordFlow || r.Lane != LaneFastPath || r.Decision != routes.Passthrough || r.Reason != routes.RouteMatched ||
		r.Rule != "a.test:443" || r.Host != "a.test" || r.Upstream != flow.Dst || r.DurationMS != 3000 ||
		r.PacketsUp != 1 || r.BytesUp != 2 || r.PacketsDown != 3 || r.BytesDown != 4 {
		t.Errorf("record %+v", r)
	}
	flow.ID, flow.Name, flow.Verified = "4567", "", false
	f.events <- redirect.FastEvent{Flow: flow, Refused: true, Reason: redirect.FastName}
	r = w.records.wait(t, func(r Record) bool { return r.ID == "f-4567" })
	if r.Decision != routes.Deny || r.Reason != ReasonFastName || r.Error == "" {
		t.Errorf("record %+v", r)
	}
	if got := f.names("93.184.216.34"); got != nil {
		t.Errorf("%v may still be called", got)
	}
	resolve(t, b, "a.test", "93.184.216.34")
	if got := f.names("93.184.216.34"); got != nil {
		t.Errorf("%v may be called again after another answer", got)
	}
	for r := redirect.FastNotTLS; r <= redirect.FastLost; r++ {
		if fastReason(r) == ReasonInternal && r != redirect.FastInternal {
			t.Errorf("%v has no reason of its own", r)
		}
	}
}

// TestFastFlowsAreCounted looks for the kernel's flows in the gauge and in the list of bottles.
func TestFastFlowsAreCounted(t *testing.T) {
	w, _ := newFastWorld(t)
	w.apply(t, testBottle(t))
	if got := metricValue(t, w, "gatewayd_flows_open"); got != 3 {
		t.Errorf("the gauge says that %v flows are open", got)
	}
	if got := w.g.Bottles(); len(got) != 1 || got[0].Flows != 3 {
		t.Errorf("the bottles are %+v", got)
	}
}

// TestFastRecordsOfBottlesThatAreGone has a flow end after its bottle was taken away, and one of a link that nobody knows.
func TestFastRecordsOfBottlesThatAreGone(t *testing.T) {
	w, f := newFastWorld(t)
	w.apply(t, testBottle(t))
	w.apply(t)
	for _, bottle := range []string{"dev", ""} {
		id := "0123" + bottle
		f.events <- redirect.FastEvent{Refused: true, Reason: redirect.FastRevoked,
			Flow: redirect.FastFlow{ID: id, Bottle: bottle, Name: "a.test", Verified: true, UpBytes: 2, Dst: netip.MustParseAddrPort("93.184.216.34:443")}}
		r := w.records.wait(t, func(r Record) bool { return r.ID == "f-"+id })
		if r.Bottle != bottle || r.Host != "a.test" || r.Reason != ReasonRevoked || r.Decision != routes.Passthrough || r.BytesUp != 2 {
			t.Errorf("record %+v", r)
		}
	}
}

// TestTripCutsTheFastPath cuts a bottle off: the kernel carries nothing for it either, until the operator lets it go on.
func TestTripCutsTheFastPath(t *testing.T) {
	w, f := newFastWorld(t)
	b := testBottle(t, routes.Route{Host: "a.test", TLSPassthrough: true})
	b.Trip = 1
	w.apply(t, b)
	r := w.g.running()[0]
	resolve(t, r, "a.test", "93.184.216.34")
	if got := f.names("93.184.216.34"); len(got) != 1 {
		t.Fatalf("the kernel lets %v be called", got)
	}
	r.record(&Record{Type: RecordFlow, Reason: ReasonLeak, Bottle: b.Name})
	if got := f.names("93.184.216.34"); got != nil || f.kept("a.test", 443) {
		t.Errorf("of a bottle that is cut off the kernel lets %v be called", got)
	}
	resolve(t, r, "a.test", "93.184.216.34")
	if got := f.names("93.184.216.34"); got != nil {
		t.Errorf("after another answer the kernel lets %v be called", got)
	}
	if err := w.g.Release(b.Name); err != nil {
		t.Fatal(err)
	}
	if got := f.names("93.184.216.34"); len(got) != 1 || !f.kept("a.test", 443) {
		t.Errorf("after the release the kernel lets %v be called", got)
	}
}

// TestFastUnanswered leaves an address from which nothing came back to the relay, and not one that answered and waited in
// vain for a hello.
func TestFastUnanswered(t *testing.T) {
	w, f := newFastWorld(t)
	w.apply(t, testBottle(t, routes.Route{Host: "a.test", TLSPassthrough: true}))
	b := w.g.running()[0]
	const dead, alive = "93.184.216.34", "93.184.216.35"
	resolve(t, b, "a.test", dead)
	resolve(t, b, "a.test", alive)
	for id, flow := range map[string]redirect.FastFlow{
		"dead":  {Dst: netip.MustParseAddrPort(dead + ":443"), UpPackets: 5},
		"alive": {Dst: netip.MustParseAddrPort(alive + ":443"), UpPackets: 2, DownPackets: 1},
	} {
		flow.ID, flow.Bottle = id, "dev"
		f.events <- redirect.FastEvent{Flow: flow, Reason: redirect.FastHelloTimeout}
		w.records.wait(t, func(r Record) bool { return r.ID == "f-"+id && r.Reason == ReasonHelloTimeout })
	}
	if d, a := f.names(dead), f.names(alive); d != nil || len(a) != 1 {
		t.Errorf("%v and %v may be called", d, a)
	}
}
