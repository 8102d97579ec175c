package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
)

// TestApplyOrder has names answered before the links are up, and flows taken only after.
func TestApplyOrder(t *testing.T) {
	w := newWorld(t, nil)
	dev, other := namedBottle(t, "dev", 1), namedBottle(t, "other", 2)
	w.apply(t, dev, other)
	got := w.order.list()
	if len(got) != 5 || got[2] != "set" || !slices.Contains(got[3:], "listen "+listenerOf(dev).String()) || !slices.Contains(got[3:], "listen "+listenerOf(other).String()) {
		t.Errorf("happened %v: want the listeners for names, the links, and then those for flows", got)
	}
	if links := w.redirect.links(); !slices.Equal(links, []string{"dev", "other"}) {
		t.Errorf("links of %v", links)
	}
	for _, b := range w.g.Bottles() {
		if !b.Up || b.Plan != "digest-1" {
			t.Errorf("bottle %+v: want it up with its plan", b)
		}
	}
}

// TestApplyShutsTheLinkFirst makes sure that on the way down no packet can find a listener gone while its link is open
// for anything else: the link goes first.
func TestApplyShutsTheLinkFirst(t *testing.T) {
	w := newWorld(t, nil)
	w.apply(t, testBottle(t))
	b := w.bottle("dev")
	w.redirect.before = func() {
		if b.ctx.Err() != nil {
			t.Error("the bottle was shut before its link")
		}
	}
	w.apply(t)
	if b.ctx.Err() == nil || len(w.redirect.links()) != 0 {
		t.Error("the bottle or its link is still there")
	}
}

func TestApplyEndsTheFlowsOfARemovedBottle(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("pass.test", "127.0.0.1")
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	relayed := w.sockets.call(t, testLink("dev", 1), anywhere(port))
	silent := w.sockets.call(t, testLink("dev", 1), anywhere(443)) // has not sent its hello
	if _, err := relayed.Write(clientHello(t, "pass.test")); err != nil {
		t.Fatal(err)
	}
	w.waitOpen(t, func(i FlowInfo) bool { return i.Upstream.IsValid() })
	w.apply(t)
	for name, c := range map[string]net.Conn{"relayed": relayed, "silent": silent} {
		if _, err := c.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("%s connection: %v; want a RST", name, err)
		}
		if r := w.records.flowOf(t, c); r.Reason != ReasonShut {
			t.Errorf("%s connection: record %+v; want it shut", name, r)
		}
	}
}

func TestBrokenPlanKeepsTheOldOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Bottle)
		want   string
	}{
		{"no table", func(b *Bottle) { b.Table = nil }, "no route table"},
		{"an answerer that is not there", func(b *Bottle) {
			b.Table = mustTable(t, routes.Route{Host: "a.test", Answer: "tokens"})
		}, `no answerer named "tokens"`},
		{"somebody else's link", func(b *Bottle) { b.Link.Bottle = "other" }, "link is of bottle"},
		{"a denied answer that is none", func(b *Bottle) { b.DeniedDNS = "shrug" }, "write block or nxdomain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			good := testBottle(t, routes.Route{Host: "a.test"})
			w.apply(t, good)
			bad := good
			bad.PlanDigest = "digest-2"
			c.change(&bad)
			before := w.bottle("dev")
			err := w.g.Apply(context.Background(), []Bottle{bad, namedBottle(t, "other", 2)})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "dev") {
				t.Fatalf("apply: %v; want it to name the bottle and %q", err, c.want)
			}
			if b := w.bottle("dev"); b != before || b.current().digest != "digest-1" {
				t.Error("the old plan is no longer in force")
			}
			if w.bottle("other") == nil || !slices.Equal(w.redirect.links(), []string{"dev", "other"}) {
				t.Errorf("links of %v: the other bottle was held up", w.redirect.links())
			}
			if i := w.g.Bottles()[0]; i.PlanError == "" || i.Plan != "digest-1" {
				t.Errorf("shown as %+v; want the error and the plan in force", i)
			}
			w.apply(t, good, namedBottle(t, "other", 2))
			if i := w.g.Bottles()[0]; i.PlanError != "" {
				t.Errorf("error %q still shown after a good plan", i.PlanError)
			}
		})
	}
}

func mustTable(t testing.TB, rs ...routes.Route) *routes.Table {
	t.Helper()
	table, err := routes.NewTable(rs)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestBrokenNewBottleIsNotRun(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t)
	b.Table = nil
	if err := w.g.Apply(context.Background(), []Bottle{b}); err == nil {
		t.Fatal("a bottle without a table was applied")
	}
	if w.bottle("dev") != nil || len(w.redirect.links()) != 0 {
		t.Error("it runs")
	}
}

func TestApplyRefusals(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t)
	if err := w.g.Apply(context.Background(), []Bottle{b, b}); err == nil || !strings.Contains(err.Error(), "named twice") {
		t.Errorf("a bottle twice: %v", err)
	}
	if len(w.order.list()) != 0 {
		t.Errorf("something happened: %v", w.order.list())
	}
	for _, addr := range []netip.AddrPort{listenerOf(b), netip.AddrPortFrom(b.Link.Gateway, b.Link.DNSPort)} {
		w.sockets.fail = map[netip.AddrPort]error{addr: errors.New("address is in use")}
		other := namedBottle(t, "other", 2)
		if err := w.g.Apply(context.Background(), []Bottle{b, other}); err == nil || !strings.Contains(err.Error(), "address is in use") {
			t.Errorf("no listener at %v: %v", addr, err)
		}
		if got := w.redirect.links(); !slices.Equal(got, []string{"other"}) || w.bottle("dev") != nil {
			t.Errorf("without a listener at %v there are links %v", addr, got)
		}
	}
	w.sockets.fail = nil
	w.redirect.fail = errors.New("no such device")
	if err := w.g.Apply(context.Background(), []Bottle{b}); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("no link: %v", err)
	}
	w.redirect.fail = nil
	w.apply(t, b) // the same desired state again mends it
	if err := w.g.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := w.g.Apply(context.Background(), []Bottle{b}); !errors.Is(err, ErrStopped) {
		t.Errorf("apply after the end: %v", err)
	}
	if err := New(Options{}).Apply(context.Background(), nil); err == nil {
		t.Error("a gateway without a redirect applied something")
	}
}

func TestChangedLinkMovesTheBottle(t *testing.T) {
	w := newWorld(t, nil)
	b := testBottle(t)
	w.apply(t, b)
	before := w.bottle("dev")
	b.Link = testLink("dev", 7)
	w.apply(t, b)
	if w.bottle("dev") == before || before.ctx.Err() == nil {
		t.Error("the bottle still listens on its old link")
	}
	if err := w.g.checkAddr(netip.MustParseAddr("198.18.7.2"), true); err == nil {
		t.Error("the new link's address may be dialled")
	}
}

// TestLostListenerIsOpenedByTheNextApply closes a listener behind the bottle's back.
func TestLostListenerIsOpenedByTheNextApply(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Deadlines.Hello = 50 * time.Millisecond })
	b := testBottle(t)
	w.apply(t, b)
	before := w.bottle("dev")
	w.sockets.mu.Lock()
	l := w.sockets.tcp[netip.AddrPortFrom(b.Link.Gateway, b.Link.InterceptPort)]
	w.sockets.mu.Unlock()
	l.Close()
	waitFor(t, before.lost.Load)
	if got := metricValue(t, w, "gatewayd_listener_failures_total"); got != 1 {
		t.Errorf("%v listeners counted as lost, want 1", got)
	}
	w.apply(t, b)
	if w.bottle("dev") == before {
		t.Fatal("the bottle still has no listener")
	}
	w.sockets.wantReset(t, b.Link, anywhere(443)) // by the deadline of the hello: somebody is there
}

// TestSwapUnderLoad swaps between a plan that lets a host pass and one that does not, while guests connect: each flow
// must go by one of the two plans whole, the last state must hold, and nothing may be lost or stuck.
func TestSwapUnderLoad(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("pass.test", "127.0.0.1")
	port := tlsEcho(t, w, "pass.test")
	open := testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true})
	shut := open
	shut.Table, shut.PlanDigest = mustTable(t), "digest-2"
	w.apply(t, open)
	const guests, calls = 4, 20
	var wg sync.WaitGroup
	for range guests {
		wg.Go(func() {
			for range calls {
				c := w.sockets.call(t, testLink("dev", 1), anywhere(port))
				guest := tls.Client(c, &tls.Config{ServerName: "pass.test", RootCAs: w.roots.pool()})
				if err := guest.Handshake(); err == nil {
					_, _ = guest.Write([]byte("x"))
				}
				c.Close()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for swapping := true; swapping; {
		w.apply(t, shut)
		w.apply(t, open)
		select {
		case <-done:
			swapping = false
		default:
		}
	}
	w.apply(t, shut)
	waitFor(t, func() bool { return len(w.g.Flows()) == 0 })
	flows := 0
	for _, r := range w.records.list() {
		if r.Type != RecordFlow {
			continue
		}
		flows++
		if r.Plan == "digest-2" && r.Lane == LaneRelay {
			t.Errorf("record %+v: relayed by a plan that allows nothing", r)
		}
	}
	if flows != guests*calls {
		t.Errorf("%d flow records; want one for each of %d connections", flows, guests*calls)
	}
}

func TestNewPlanRevokesWhatItDoesNotAllow(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("pass.test", "127.0.0.1")
	w.names.set("kept.test", "127.0.0.1")
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	pass := routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}
	kept := routes.Route{Host: "kept.test", Port: port, TLSPassthrough: true}
	b := testBottle(t, pass, kept)
	w.apply(t, b)
	gone := w.sockets.call(t, testLink("dev", 1), anywhere(port))
	stays := w.sockets.call(t, testLink("dev", 1), anywhere(port))
	for c, name := range map[net.Conn]string{gone: "pass.test", stays: "kept.test"} {
		if _, err := c.Write(clientHello(t, name)); err != nil {
			t.Fatal(err)
		}
		w.waitOpen(t, func(i FlowInfo) bool { return i.Host == name && i.Upstream.IsValid() })
	}
	kept.Origin = routes.Origin{File: "moved.yaml", Line: 9} // where a route is written does not matter
	b.Table, b.PlanDigest = mustTable(t, kept), "digest-2"
	w.apply(t, b)
	if _, err := gone.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("read gave %v; want a RST", err)
	}
	if r := w.records.flowOf(t, gone); r.Reason != ReasonRevoked {
		t.Errorf("record %+v; want it revoked", r)
	}
	if open := w.g.Flows(); len(open) != 1 || open[0].Host != "kept.test" {
		t.Errorf("open flows %+v; want the one that is still allowed", open)
	}
}

func TestSameGrant(t *testing.T) {
	auth := func(env string, dummies ...string) *routes.Auth {
		return &routes.Auth{Scheme: routes.Bearer, Secret: routes.SecretRef{Env: env}, Dummies: routes.Dummies{Values: dummies}}
	}
	base := routes.Route{Host: "a.test", Port: 443, Auth: auth("A", "dummy-1")}
	for _, c := range []struct {
		name string
		b    routes.Route
		want bool
	}{
		{"itself", base, true},
		{"other dummies", routes.Route{Host: "a.test", Port: 443, Auth: auth("A", "dummy-2")}, true},
		{"other secret", routes.Route{Host: "a.test", Port: 443, Auth: auth("B", "dummy-1")}, false},
		{"no secret", routes.Route{Host: "a.test", Port: 443}, false},
		{"fewer paths", routes.Route{Host: "a.test", Port: 443, Auth: auth("A", "dummy-1"), Paths: []string{"/x"}}, false},
	} {
		if got := sameGrant(&base, &c.b); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if sameGrant(nil, &base) || !sameGrant(nil, nil) {
		t.Error("nil routes")
	}
}

func TestOwnAddresses(t *testing.T) {
	w := newWorld(t, nil)
	w.apply(t, testBottle(t))
	for addr, own := range map[string]bool{
		"198.18.1.1": true, "198.18.1.2": true, "::ffff:198.18.1.1": true, "127.0.0.1": true, "127.77.0.1": true, "::1": true,
		"0.0.0.0": true, "203.0.113.9": false, "192.0.2.1": false,
	} {
		if got := w.g.isOwn(netip.MustParseAddr(addr)); got != own {
			t.Errorf("%s is own: %v, want %v", addr, got, own)
		}
	}
	s := newSelfAddrs(time.Hour)
	s.list = func() ([]net.Addr, error) { return nil, errors.New("no netlink") }
	if !s.has(netip.MustParseAddr("203.0.113.9")) {
		t.Error("with no list of addresses, one was taken for somebody else's")
	}
	s.list = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(203, 0, 113, 9), Mask: net.CIDRMask(24, 32)}}, nil
	}
	if !s.has(netip.MustParseAddr("203.0.113.9")) || s.has(netip.MustParseAddr("203.0.113.10")) {
		t.Error("the list of addresses is not what counts")
	}
}

func TestSubscribeSeesRecords(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Deadlines.Hello = time.Minute })
	w.apply(t, testBottle(t))
	sub := w.g.Subscribe(10)
	defer sub.Close()
	c := w.sockets.call(t, testLink("dev", 1), anywhere(443))
	if _, err := c.Write([]byte("SSH-2.0-guest\r\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-sub.Records():
		if r.Reason != ReasonNotTLS {
			t.Errorf("record %+v; want one of a flow that is not TLS", r)
		}
		if got, ok := w.g.Find(r.ID); !ok || got.ID != r.ID {
			t.Errorf("find %s: %+v, %v", r.ID, got, ok)
		}
		if got := w.g.Recent("dev", 5); len(got) != 1 || got[0].ID != r.ID {
			t.Errorf("recent: %+v", got)
		}
		if got := w.g.Recent("nobody", 5); len(got) != 0 {
			t.Errorf("recent of nobody: %+v", got)
		}
	case <-time.After(testWait):
		t.Fatal("no record came")
	}
}

var _ Redirector = (*redirect.Redirect)(nil)

// TestClashingLinkIsRefused: a bottle whose link has another's address is not run, and the other one is, whichever comes
// first.
func TestClashingLinkIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	good := testBottle(t)
	w.apply(t, good)
	before := w.bottle("dev")
	clashing := namedBottle(t, "alpha", 2)
	clashing.Link.Guest, clashing.Link.Gateway = good.Link.Guest, good.Link.Gateway
	err := w.g.Apply(context.Background(), []Bottle{clashing, good})
	if err == nil || !strings.Contains(err.Error(), "alpha") || !strings.Contains(err.Error(), `already bottle "dev"'s`) {
		t.Fatalf("apply: %v", err)
	}
	if w.bottle("dev") != before || w.bottle("alpha") != nil || !slices.Equal(w.redirect.links(), []string{"dev"}) {
		t.Errorf("links of %v", w.redirect.links())
	}
	w.apply(t, clashing)
	if !slices.Equal(w.redirect.links(), []string{"alpha"}) {
		t.Errorf("links of %v once the address is free", w.redirect.links())
	}
}
