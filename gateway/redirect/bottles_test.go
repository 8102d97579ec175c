package redirect

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestTwoBottles serves two bottles at once. Neither reaches the other, and
// neither passes for the other, at either layer.
func TestTwoBottles(t *testing.T) {
	s := newStage(t)
	one, two := s.link(1), s.link(2)
	s.listeners(one)
	s.listeners(two)
	s.set(one, two)
	first, second := s.enter(one), s.enter(two)
	to := netip.AddrPortFrom(called, 443)
	for _, g := range []*guest{first, second} {
		if got, want := g.ask(to), "15001 198.19.77.9:443\n"; got != want {
			t.Errorf("%s is answered %q, want %q", g.link.Bottle, got, want)
		}
	}
	inside := newCatcher(t, second.ns, guestInterface)
	var service net.Listener
	must(t, inNetns(second.ns, func() (err error) {
		service, err = net.Listen("tcp4", "0.0.0.0:80")
		return err
	}))
	defer service.Close()
	// A call to the other bottle is the gateway's, like any.
	if got, want := first.ask(netip.AddrPortFrom(two.Guest, 80)), "15001 198.18.2.2:80\n"; got != want {
		t.Errorf("a call to the other bottle is answered %q, want %q", got, want)
	}
	before := counters(t, s.r, one)
	spoofed := []func(*frame){
		func(f *frame) { f.ip.src = two.Guest },
		func(f *frame) { f.src = two.MAC },
		func(f *frame) { f.ip.dst, f.ip.proto, f.body = two.Guest, 17, udp(1, 2, nil) },
		func(f *frame) { f.dst = two.MAC },
	}
	for _, change := range spoofed {
		f := good(one)
		change(f)
		first.send(f.bytes())
	}
	eventually(t, "the frames", func() bool {
		return counters(t, s.r, one).RxPackets >= before.RxPackets+uint64(len(spoofed))
	})
	d := difference(counters(t, s.r, one), before)
	for _, r := range []gatewayDropReason{gatewayDropReasonDROP_SOURCE_IP, gatewayDropReasonDROP_SOURCE_MAC,
		gatewayDropReasonDROP_UDP, gatewayDropReasonDROP_DESTINATION_MAC} {
		if d.Drops[Reason(r)] != 1 {
			t.Errorf("counted %v", d.Drops)
		}
	}
	for _, b := range inside.frames() {
		if len(b) > 34 && net.IP(b[26:30]).Equal(one.Guest.AsSlice()) {
			t.Errorf("the other bottle received %x", b)
		}
	}
}

// TestInstancesSideBySide opens a second instance in the same namespace; ending
// and uninstalling it leaves the first at work.
func TestInstancesSideBySide(t *testing.T) {
	s := newStage(t)
	one, two := s.link(1), s.link(2)
	s.listeners(one)
	s.set(one)
	other := &stage{t: t, options: Options{Instance: "second", Log: s.options.Log}}
	other.open()
	other.listeners(two)
	other.set(two)
	to := netip.AddrPortFrom(called, 443)
	for _, g := range []*guest{s.enter(one), other.enter(two)} {
		if got, want := g.ask(to), "15001 198.19.77.9:443\n"; got != want {
			t.Errorf("%s is answered %q, want %q", g.link.Bottle, got, want)
		}
	}
	must(t, other.r.Close())
	removed, err := Uninstall(t.Context(), other.options)
	must(t, err)
	t.Logf("removed %q", removed)
	if got, want := s.enter(one).ask(to), "15001 198.19.77.9:443\n"; got != want {
		t.Errorf("the first instance answers %q, want %q", got, want)
	}
}

// TestExistingLink captures an interface that somebody else made, waits for it
// when it is not there, and leaves it down at the end.
func TestExistingLink(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	l.Kind, l.Name = Existing, "vm7" // a name outside the pattern
	path := l.Netns
	l.Netns = ""
	s.listeners(l)
	status, err := s.r.Set(t.Context(), Config{Links: []Link{l}})
	must(t, err)
	if status.Err() == nil || status.Links[0].Up {
		t.Fatalf("a link without interface is %+v", status.Links[0])
	}
	s.watch()
	must(t, makeNetns(path))
	t.Cleanup(func() { must(t, removeNetns(path)) })
	ns, err := openNetns(path)
	must(t, err)
	defer ns.Close()
	dev, err := makeVeth(ns, "somebody", l)
	must(t, err)
	t.Cleanup(func() { netlink.LinkDel(dev) })
	must(t, netlink.LinkSetAlias(dev, ""))
	_, err = configureGuest(ns, l)
	must(t, err)
	must(t, netlink.LinkSetUp(dev))
	eventually(t, "the link", func() bool { return s.r.Status().Links[0].Up })
	inside := l
	inside.Netns = path
	if got, want := s.enter(inside).ask(netip.AddrPortFrom(called, 443)), "15001 198.19.77.9:443\n"; got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
}

// TestPortOfABottleIsItsOwn has both gateways listening, and takes one away.
func TestPortOfABottleIsItsOwn(t *testing.T) {
	s := newStage(t)
	one, two := s.link(1), s.link(2)
	s.listeners(two)
	s.set(one, two)
	if conn, err := s.enter(one).dial(netip.AddrPortFrom(called, 443), 200*time.Millisecond); err == nil {
		conn.Close()
		t.Error("a bottle without a listener was served by another's")
	}
	if c := counters(t, s.r, one); c.Drops[Reason(gatewayDropReasonDROP_NO_LISTENER)] == 0 {
		t.Errorf("counted %+v", c)
	}
}
