package redirect

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wanted is a pin as the kernel should have it.
type wanted struct {
	addr netip.Addr
	name string
}

// kernelPins reads the pins that the kernel has, with the time that each has left. Every one must be of the permission in force
// and at a destination that is open for as long.
func (s *fastStage) kernelPins() map[wanted]time.Duration {
	s.t.Helper()
	now, err := monotonic()
	must(s.t, err)
	found := make(map[wanted]time.Duration)
	var k gatewayPinKey
	var p gatewayPin
	it := s.r.objects.Pins.Iterate()
	for it.Next(&k, &p) {
		name := string(k.Name[:k.NameLen])
		var epoch uint64
		must(s.t, s.r.objects.Grants.Lookup(p.Grant, &epoch))
		if epoch != p.Epoch {
			s.t.Errorf("%s has epoch %d, its permission %d", name, p.Epoch, epoch)
		}
		var d gatewayDestination
		must(s.t, s.r.objects.Destinations.Lookup(gatewayDestinationKey{Ifindex: k.Ifindex, Daddr: k.Daddr, Dport: k.Dport}, &d))
		if d.Expires+pinSlack < p.Expires {
			s.t.Errorf("the destination of %s ends %v before it", name, time.Duration(p.Expires-d.Expires))
		}
		found[wanted{addrOf(k.Daddr), name}] = time.Duration(p.Expires - now)
	}
	must(s.t, it.Err())
	return found
}

// TestSetFastWritesWhatChanged changes the names at an address one after another: what the kernel has is always what was asked
// for, though what stays is not written again.
func TestSetFastWritesWhatChanged(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	there := origin.Next()
	for _, step := range []struct {
		name string
		at   netip.Addr
		pins map[string]time.Duration
		want map[wanted]time.Duration
	}{
		{"one", origin, map[string]time.Duration{"a.test": time.Hour},
			map[wanted]time.Duration{{origin, "a.test"}: time.Hour}},
		{"another beside it", origin, map[string]time.Duration{"a.test": time.Hour, "b.test": time.Minute},
			map[wanted]time.Duration{{origin, "a.test"}: time.Hour, {origin, "b.test"}: time.Minute}},
		{"the same elsewhere", there, map[string]time.Duration{"a.test": time.Minute},
			map[wanted]time.Duration{{origin, "a.test"}: time.Hour, {origin, "b.test"}: time.Minute, {there, "a.test"}: time.Minute}},
		{"longer and shorter", origin, map[string]time.Duration{"a.test": time.Minute, "b.test": time.Hour},
			map[wanted]time.Duration{{origin, "a.test"}: time.Minute, {origin, "b.test"}: time.Hour, {there, "a.test"}: time.Minute}},
		{"one less", origin, map[string]time.Duration{"b.test": time.Hour},
			map[wanted]time.Duration{{origin, "b.test"}: time.Hour, {there, "a.test"}: time.Minute}},
		{"none", origin, nil, map[wanted]time.Duration{{there, "a.test"}: time.Minute}},
	} {
		pins := make([]FastPin, 0, len(step.pins))
		for name, left := range step.pins {
			pins = append(pins, FastPin{Name: name, Port: 443, For: left})
		}
		must(t, s.r.SetFast(s.l.Bottle, step.at, pins))
		s.comparePins(step.name, step.want)
	}
	must(t, s.r.RevokeFast(s.l.Bottle, nil))
	s.comparePins("revoked", nil)
	must(t, s.r.SetFast(s.l.Bottle, there, []FastPin{{Name: "a.test", Port: 443, For: time.Minute}}))
	s.comparePins("allowed again", map[wanted]time.Duration{{there, "a.test"}: time.Minute})
}

// comparePins compares what the kernel has with want; the time may be half a minute less.
func (s *fastStage) comparePins(step string, want map[wanted]time.Duration) {
	s.t.Helper()
	got := s.kernelPins()
	for k, left := range got {
		if w, ok := want[k]; !ok || left > w+time.Duration(pinSlack) || left < w-30*time.Second {
			s.t.Errorf("%s: %v has %v left, want %v", step, k, left, w)
		}
	}
	if len(got) != len(want) {
		s.t.Errorf("%s: %d pins, want %d: %v", step, len(got), len(want), got)
	}
}

// TestLeavesByTheUplink asks for routes as the fast path does: by the uplink, by another interface, by none, and after a change.
func TestLeavesByTheUplink(t *testing.T) {
	s := newFastStage(t, AttachAuto)
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	up, err := s.r.routes.indexOf("up0")
	must(t, err)
	lo, err := s.r.routes.indexOf("lo")
	must(t, err)
	if lo != loopbackIndex {
		t.Errorf("lo is interface %d", lo)
	}
	if _, err := s.r.routes.indexOf("none0"); err == nil {
		t.Error("an interface was found that is not there")
	}
	for _, q := range []struct {
		addr  netip.Addr
		index int
		want  bool
	}{
		{origin, up, true},
		{netip.MustParseAddr("93.184.216.34"), up, true},
		{origin, lo, false},
		{netip.MustParseAddr("127.0.0.1"), lo, false}, // local, not forwarded
		{s.l.Gateway, up, false},
		{s.l.Guest, up, false},
	} {
		if got := s.r.routes.leavesBy(q.addr, q.index); got != q.want {
			t.Errorf("%v by %d: %v", q.addr, q.index, got)
		}
	}
	blocked := netip.MustParseAddr("93.184.216.35")
	hole := &netlink.Route{Dst: netlink.NewIPNet(blocked.AsSlice()), Type: unix.RTN_BLACKHOLE}
	must(t, netlink.RouteAdd(hole))
	defer func() { must(t, netlink.RouteDel(hole)) }()
	if s.r.routes.leavesBy(blocked, up) {
		t.Error("an address leaves that has no way")
	}
}

// BenchmarkPin is what is written for an answer that names an address anew, which has as many other names.
func BenchmarkPin(b *testing.B) {
	for _, names := range []int{0, 60} {
		b.Run(fmt.Sprint(names), func(b *testing.B) {
			s := newStage(b, func(o *Options) { o.Uplink = "up0" })
			s.leaksAllowed = true
			l := s.link(1)
			s.set(l)
			until := time.Now().Add(time.Hour)
			told, pins := make([]Told, names+1), make([]FastPin, names+1)
			for i := range told {
				name := fmt.Sprintf("n%d.test", i)
				told[i] = Told{name, origin, until}
				pins[i] = FastPin{Name: name, Port: 443, For: time.Hour}
			}
			for b.Loop() {
				until := time.Now().Add(time.Hour)
				told[0].Expires = until.Add(time.Second)
				for i := range pins {
					pins[i].For = time.Until(told[i].Expires)
				}
				must(b, s.r.Remember(l.Bottle, told))
				must(b, s.r.SetFast(l.Bottle, origin, pins))
			}
			if len(s.r.fast.pins) == 0 {
				b.Fatal("nothing was pinned")
			}
		})
	}
}
