package redirect

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

func flushRuleset(t *testing.T) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	c.FlushRuleset()
	must(t, c.Flush())
}

// watch runs Watch until the test or the returned function ends it.
func (s *stage) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := s.r.Watch(ctx); err != nil {
			s.t.Errorf("watch: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); watching.Wait() })
	s.t.Cleanup(stop)
	return stop
}

// breakage is one thing that somebody else does to the machine.
type breakage struct {
	name string
	do   func(t *testing.T, s *stage, l Link, index int)
	// shared is set if the repair is counted for the instance, not the link.
	shared bool
	// silent is set if the kernel reports the change to nobody.
	silent bool
}

func breakages() []breakage {
	sysctl := func(path, value string) func(*testing.T, *stage, Link, int) {
		return func(t *testing.T, _ *stage, _ Link, _ int) { must(t, os.WriteFile(path, []byte(value), 0)) }
	}
	nft := func(args ...string) func(*testing.T, *stage, Link, int) {
		return func(t *testing.T, _ *stage, _ Link, _ int) {
			if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
				t.Fatalf("nft %v: %v: %s", args, err, out)
			}
		}
	}
	return []breakage{
		{"routing rule deleted", func(t *testing.T, _ *stage, _ Link, _ int) { must(t, netlink.RuleDel(interceptRule())) }, true, false},
		{"local route deleted", func(t *testing.T, _ *stage, _ Link, _ int) {
			lo, err := netlink.LinkByIndex(loopbackIndex)
			must(t, err)
			must(t, netlink.RouteDel(localRoute(lo)))
		}, true, false},
		{"ruleset flushed", func(t *testing.T, _ *stage, _ Link, _ int) { flushRuleset(t) }, true, false},
		{"table dormant", nft("add table inet stage { flags dormant; }"), true, false},
		{"chain flushed", nft("flush chain inet stage from_bottle"), true, false},
		{"accepting rule inserted", nft("insert rule inet stage to_host accept"), true, false},
		{"rules of the hook flushed", nft("flush chain inet stage forward"), true, false},
		{"another uplink added", nft("add element inet stage uplinks { up0 }"), true, false},
		{"special ranges removed", nft("flush set inet stage special"), true, false},
		{"programs detached", func(t *testing.T, s *stage, _ Link, index int) { must(t, s.r.hooks.detach(index)) }, false, true},
		{"a program before ours", func(t *testing.T, s *stage, _ Link, index int) {
			if s.options.Attach == AttachTCX {
				before(t, index)
			} else {
				must(t, s.r.hooks.detach(index)) // there is no place before ours
			}
		}, false, true},
		{"entry shut", func(t *testing.T, s *stage, _ Link, index int) { must(t, s.r.table.shut(index)) }, false, true},
		{"link set down", func(t *testing.T, _ *stage, l Link, _ int) {
			dev, err := netlink.LinkByName(l.Name)
			must(t, err)
			must(t, netlink.LinkSetDown(dev))
		}, false, false},
		{"address removed", func(t *testing.T, _ *stage, l Link, _ int) {
			dev, err := netlink.LinkByName(l.Name)
			must(t, err)
			addrs, err := netlink.AddrList(dev, netlink.FAMILY_V4)
			must(t, err)
			must(t, netlink.AddrDel(dev, &addrs[0]))
		}, false, false},
		{"link deleted", func(t *testing.T, _ *stage, l Link, _ int) {
			dev, err := netlink.LinkByName(l.Name)
			must(t, err)
			must(t, netlink.LinkDel(dev))
		}, false, false},
		{"forwarding on everywhere", func(t *testing.T, s *stage, l Link, index int) {
			sysctl("/proc/sys/net/ipv4/ip_forward", "0")(t, s, l, index)
			sysctl("/proc/sys/net/ipv4/ip_forward", "1")(t, s, l, index)
		}, false, false},
		{"rp_filter off", sysctl("/proc/sys/net/ipv4/conf/gw-b1/rp_filter", "0"), false, true},
	}
}

// TestBreakagesAreRepaired breaks one thing at a time while Watch runs. It must
// be put right, counted, and the bottle must be served as before. Nothing
// leaks meanwhile, which the stage checks. What the kernel reports must not
// need the periodic look.
func TestBreakagesAreRepaired(t *testing.T) {
	for _, mode := range []AttachMode{AttachTCX, AttachClsact} {
		for recheck, silent := range map[time.Duration]bool{time.Hour: false, 50 * time.Millisecond: true} {
			t.Run(fmt.Sprintf("%s/recheck %v", mode, recheck), func(t *testing.T) {
				testBreakages(t, silent, func(o *Options) { o.Attach, o.Recheck = mode, recheck })
			})
		}
	}
}

func testBreakages(t *testing.T, silent bool, options func(*Options)) {
	s := newStage(t, options)
	l := s.link(1)
	s.listeners(l)
	s.set(l)
	s.watch()
	for _, b := range breakages() {
		if b.silent != silent {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			before := s.r.Status()
			b.do(t, s, l, before.Links[0].Ifindex)
			eventually(t, "the repair", func() bool {
				now := s.r.Status()
				if b.shared {
					return now.Repairs > before.Repairs
				}
				return now.Links[0].Repairs > before.Links[0].Repairs && now.Links[0].Up
			})
			g := s.enter(l)
			if got, want := g.ask(netip.AddrPortFrom(called, 443)), "15001 198.19.77.9:443\n"; got != want {
				t.Errorf("after the repair, the bottle is answered %q, want %q", got, want)
			}
			if now := s.r.Status(); now.Err() != nil || now.Links[0].Ifindex == 0 {
				t.Errorf("after the repair, the status is %+v", now)
			}
		})
	}
}

// try sends what would leave if nothing held: a SYN of the kernel's, one made
// by hand, and a datagram. It waits until they have been through the link.
func (g *guest) try(s *stage) {
	g.t.Helper()
	if conn, err := g.dial(netip.AddrPortFrom(uplinkInternet, 443), 300*time.Millisecond); err == nil {
		conn.Close()
		g.t.Error("the internet was reached")
	}
	f := good(g.link)
	f.body = sealed(g.link.Guest, called, 6, tcp(40000, 443, 0x02, nil))
	g.send(f.bytes())
	f.ip.proto, f.body = 17, sealed(g.link.Guest, called, 17, udp(40000, 9999, []byte("out")))
	g.send(f.bytes())
}

// TestEachLayerHoldsAlone takes layers away while nobody repairs. What is left
// must hold, up to the last one. For each combination the stage's packet socket
// on the internet's side must see nothing.
func TestEachLayerHoldsAlone(t *testing.T) {
	program := func(t *testing.T, s *stage, index int) { must(t, s.r.hooks.detach(index)) }
	table := func(t *testing.T, _ *stage, _ int) { flushRuleset(t) }
	forwarding := func(t *testing.T, _ *stage, _ int) {
		must(t, os.WriteFile("/proc/sys/net/ipv4/conf/gw-b1/forwarding", []byte("1"), 0))
	}
	rule := func(t *testing.T, _ *stage, _ int) { must(t, netlink.RuleDel(interceptRule())) }
	tests := []struct {
		name   string
		remove []func(*testing.T, *stage, int)
	}{
		{"table and sysctl gone: program holds", []func(*testing.T, *stage, int){table, forwarding}},
		{"program and sysctl gone: table holds", []func(*testing.T, *stage, int){program, forwarding}},
		{"program and table gone: sysctl holds", []func(*testing.T, *stage, int){program, table}},
		{"rule, table and sysctl gone: program holds", []func(*testing.T, *stage, int){rule, table, forwarding}},
	}
	for _, mode := range []AttachMode{AttachTCX, AttachClsact} {
		for _, tc := range tests {
			t.Run(string(mode)+"/"+tc.name, func(t *testing.T) {
				s := newStage(t, func(o *Options) { o.Attach = mode })
				l := s.link(1)
				s.listenTCP(netip.AddrPortFrom(l.Gateway, l.InterceptPort))
				index := s.set(l).Links[0].Ifindex
				g := s.enter(l)
				for _, remove := range tc.remove {
					remove(t, s, index)
				}
				// With the rule there the gateway would answer, which is no leak.
				if !slices.Contains([]string{tests[0].name}, tc.name) {
					g.try(s)
				} else if got := g.ask(netip.AddrPortFrom(called, 443)); got == "" {
					t.Error("the gateway did not answer")
				}
			})
		}
	}
}

// TestLeakIsSeen is the control of the tests above: with every layer gone, the
// packet socket does see what leaves.
func TestLeakIsSeen(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	index := s.set(l).Links[0].Ifindex
	g := s.enter(l)
	must(t, s.r.hooks.detach(index))
	flushRuleset(t)
	must(t, os.WriteFile("/proc/sys/net/ipv4/conf/gw-b1/forwarding", []byte("1"), 0))
	f := good(l)
	f.body = sealed(l.Guest, called, 6, tcp(40000, 443, 0x02, nil))
	g.send(f.bytes())
	leaked := func() bool {
		return slices.ContainsFunc(s.leaks.frames(), func(b []byte) bool {
			return len(b) > 34 && net.IP(b[26:30]).Equal(l.Guest.AsSlice())
		})
	}
	eventually(t, "the leak", leaked)
	s.leaks.forget()
}

// TestRecreatedLinkStartsShut deletes an interface and makes it again under its
// name while no process watches: the new one has no program, and is shut by the
// other layers. A process that watches then guards it.
func TestRecreatedLinkStartsShut(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.listeners(l)
	s.set(l)
	dev, err := netlink.LinkByName(l.Name)
	must(t, err)
	must(t, netlink.LinkDel(dev))
	ns, err := openNetns(l.Netns)
	must(t, err)
	defer ns.Close()
	again, err := makeVeth(ns, "stage", l)
	must(t, err)
	_, err = configureGuest(ns, l)
	must(t, err)
	_, err = ensureAddress(again, l.Gateway, l.Bits, true)
	must(t, err)
	must(t, netlink.LinkSetUp(again))
	must(t, os.WriteFile("/proc/sys/net/ipv4/conf/gw-b1/forwarding", []byte("1"), 0))
	g := s.enter(l)
	g.try(s)
	s.noLeaks()

	s.watch()
	eventually(t, "the repair", func() bool {
		now := s.r.Status().Links[0]
		return now.Up && now.Repairs > 0 && now.Ifindex == again.Attrs().Index
	})
	if got, want := g.ask(netip.AddrPortFrom(called, 443)), "15001 198.19.77.9:443\n"; got != want {
		t.Errorf("after the repair, the bottle is answered %q, want %q", got, want)
	}
}

// TestListenerGone closes the gateway's sockets in the middle of a connection.
func TestListenerGone(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	listener, err := ListenTCP(t.Context(), netip.AddrPortFrom(l.Gateway, l.InterceptPort))
	must(t, err)
	s.set(l)
	g := s.enter(l)
	conn, err := g.dial(netip.AddrPortFrom(uplinkInternet, 443), patience)
	must(t, err)
	defer conn.Close()
	served, err := listener.Accept()
	must(t, err)
	must(t, listener.Close())
	must(t, served.(*net.TCPConn).SetLinger(0))
	must(t, served.Close())
	before := counters(t, s.r, l)
	conn.Write([]byte("more"))
	g.try(s)
	eventually(t, "drops", func() bool {
		d := difference(counters(t, s.r, l), before).Drops
		return d[Reason(gatewayDropReasonDROP_NO_LISTENER)] > 0
	})
}

// TestAnswersStayOnTheLink takes a link away while the gateway is sending to
// its bottle. The way to the bottle is the default route then.
func TestAnswersStayOnTheLink(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	listener, err := ListenTCP(t.Context(), netip.AddrPortFrom(l.Gateway, l.InterceptPort))
	must(t, err)
	defer listener.Close()
	s.set(l)
	conn, err := s.enter(l).dial(netip.AddrPortFrom(called, 443), patience)
	must(t, err)
	defer conn.Close()
	served, err := listener.Accept()
	must(t, err)
	must(t, served.(*net.TCPConn).SetLinger(0))
	dev, err := netlink.LinkByName(l.Name)
	must(t, err)
	must(t, netlink.LinkDel(dev))
	before := tableCounter(t, chainFromSocket)
	served.Write([]byte("secret"))
	eventually(t, "the table to drop it", func() bool { return tableCounter(t, chainFromSocket) > before })
	served.Close()
	s.set(l)
}

// TestListenersServeBottlesOnly calls the gateway's sockets from the internet's
// side and from the host itself.
func TestListenersServeBottlesOnly(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.listeners(l)
	s.set(l)
	to := netip.AddrPortFrom(l.Gateway, l.InterceptPort).String()
	dial := func() error {
		conn, err := net.DialTimeout("tcp4", to, 200*time.Millisecond)
		if err == nil {
			conn.Close()
			t.Errorf("%s was reached", to)
		}
		return nil
	}
	must(t, inNetns(s.net, dial))
	must(t, dial())
	s.leaks.forget() // the SYNs were sent there
}

// tableCounter returns how many packets the last rule of a chain dropped.
func tableCounter(t *testing.T, chain string) uint64 {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	table := &nftables.Table{Name: "stage", Family: nftables.TableFamilyINet}
	rules, err := c.GetRules(table, &nftables.Chain{Name: chain, Table: table})
	must(t, err)
	counter, ok := rules[len(rules)-1].Exprs[0].(*expr.Counter)
	if !ok {
		t.Fatalf("the last rule of %s does not count", chain)
	}
	return counter.Packets
}

// before attaches a program that passes everything, ahead of all others.
func before(t *testing.T, index int) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	must(t, err)
	t.Cleanup(func() { p.Close() })
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	must(t, err)
	t.Cleanup(func() { l.Close() })
}

// TestNoTableNoLinks has the table's name taken by a process that owns it, so
// that it cannot be replaced: every link is shut until it is gone.
func TestNoTableNoLinks(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.listeners(l)
	s.set(l)
	g := s.enter(l)
	to := netip.AddrPortFrom(called, 443)
	g.ask(to)
	flushRuleset(t)
	release := ownTable(t)
	status, err := s.r.Set(t.Context(), Config{Links: []Link{l}})
	if err == nil || status.Err() == nil || status.Links[0].Up {
		t.Errorf("set: %v, status %+v", err, status)
	}
	dev, err := netlink.LinkByName(l.Name)
	must(t, err)
	if isUp(dev) {
		t.Error("the link is up without a table")
	}
	s.watch()
	release()
	eventually(t, "the repair", func() bool { return s.r.Status().Links[0].Up })
	if got := g.ask(to); got == "" {
		t.Error("the bottle is not answered after the repair")
	}
}

// ownTable creates the stage's table with the flag that keeps everybody but its
// owner from it. The function returned ends the owner, and the table with it.
func ownTable(t *testing.T) (release func()) {
	t.Helper()
	nft := exec.Command("nft", "-i")
	in, err := nft.StdinPipe()
	must(t, err)
	must(t, nft.Start())
	release = sync.OnceFunc(func() { in.Close(); nft.Wait() })
	t.Cleanup(release)
	_, err = io.WriteString(in, "add table inet stage { flags owner; }\n")
	must(t, err)
	eventually(t, "the table", func() bool {
		return exec.Command("nft", "list", "table", "inet", "stage").Run() == nil
	})
	return release
}
