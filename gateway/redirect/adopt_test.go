package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// pod is a namespace such as a CNI plugin leaves it, with the host's end of its
// veth in the test's namespace.
type pod struct {
	t              testing.TB
	path           string
	ns             *os.File
	host           netlink.Link
	guest, gateway netip.Addr
	bits           int
}

// newPod makes pod n as the plugin ptp does: the gateway's address with 32 bits
// on the host's end, and a route to the guest. With 32 bits the guest, too, is
// alone on the link.
func newPod(t testing.TB, n byte, bits int) *pod {
	t.Helper()
	p := &pod{t: t, path: filepath.Join(t.TempDir(), "pod"), bits: bits,
		guest: netip.AddrFrom4([4]byte{198, 18, 100 + n, 7}), gateway: netip.AddrFrom4([4]byte{198, 18, 100 + n, 1})}
	p.make(fmt.Sprintf("veth%08x", n), net.HardwareAddr{0x0a, 0x58, 0, 0, 1, n}, 1400)
	t.Cleanup(p.remove)
	return p
}

func (p *pod) make(name string, mac net.HardwareAddr, mtu int) {
	t := p.t
	t.Helper()
	must(t, makeNetns(p.path))
	ns, err := openNetns(p.path)
	must(t, err)
	p.ns = ns
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU, veth.PeerNamespace = guestInterface, mac, uint32(mtu), netlink.NsFd(ns.Fd())
	must(t, netlink.LinkAdd(veth))
	p.host, err = netlink.LinkByName(name)
	must(t, err)
	_, err = ensureAddress(p.host, p.gateway, 32, false)
	must(t, err)
	must(t, netlink.LinkSetUp(p.host))
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: p.host.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: netlink.NewIPNet(p.guest.AsSlice())}))
	p.inside(func(eth0 netlink.Link) error {
		if _, err := ensureAddress(eth0, p.guest, p.bits, false); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(eth0); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: p.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
	})
}

// inside changes something in the pod's namespace.
func (p *pod) inside(change func(eth0 netlink.Link) error) {
	p.t.Helper()
	must(p.t, inNetns(p.ns, func() error {
		eth0, err := netlink.LinkByName(guestInterface)
		if err != nil {
			return err
		}
		return change(eth0)
	}))
}

func (p *pod) remove() {
	p.ns.Close()
	if dev, _ := findLink(p.host.Attrs().Name); dev != nil {
		if err := netlink.LinkDel(dev); err != nil && !errors.Is(err, unix.ENODEV) { // it went with the namespace meanwhile
			p.t.Error(err)
		}
	}
	if err := removeNetns(p.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Error(err)
	}
}

// adopted is the pod's link as a bottle's.
func (p *pod) adopted(bottle string) Link {
	p.t.Helper()
	l, err := Adopt(p.path)
	must(p.t, err)
	l.Bottle, l.InterceptPort, l.DNSPort = bottle, 15001, 53
	return l
}

// TestAdopt takes up namespaces that somebody else made: what eth0 says is the
// link's, flows reach the listener, raw frames are dropped, and uninstall leaves
// the namespace as it was and the host's end down.
func TestAdopt(t *testing.T) {
	for _, bits := range []int{24, 30, 32} {
		t.Run(fmt.Sprintf("%d bits", bits), func(t *testing.T) {
			s := newStage(t)
			p := newPod(t, 1, bits)
			if bits == 30 { // the only other address of its prefix
				p.inside(func(eth0 netlink.Link) error {
					err := netlink.RouteDel(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: p.gateway.AsSlice()})
					p.gateway = netip.AddrFrom4([4]byte{198, 18, 101, 6})
					return errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: p.gateway.AsSlice()}))
				})
			}
			l := p.adopted("dev")
			want := Link{Bottle: "dev", Name: "veth00000001", Kind: Adopted, Netns: p.path, Owner: -1, Guest: p.guest, Gateway: p.gateway,
				Bits: bits, MAC: net.HardwareAddr{0x0a, 0x58, 0, 0, 1, 1}, MTU: 1400, InterceptPort: 15001, DNSPort: 53}
			if got, want := fmt.Sprintf("%+v", l), fmt.Sprintf("%+v", want); got != want {
				t.Fatalf("adopted\n%s, want\n%s", got, want)
			}
			s.set(l)
			s.listeners(l)
			g := s.enter(l)
			conn, err := g.dial(netip.AddrPortFrom(called, 443), patience)
			must(t, err)
			conn.Close()
			for _, c := range rawCases()[:8] {
				g.send(c.frame(l).bytes())
			}
			eventually(t, "the drops", func() bool { return counters(t, s.r, l).Dropped() >= 8 })
			before := s.r.Status().Links[0].Repairs
			s.set(l)
			if st := s.r.Status().Links[0]; st.Repairs != before || !st.Up {
				t.Errorf("a second look: %+v", st)
			}
			must(t, s.r.Close())
			removed, err := Uninstall(t.Context(), s.options)
			if err != nil || !strings.Contains(strings.Join(removed, "\n"), "programs on interface veth00000001, which is left down") {
				t.Errorf("uninstall: %q, %v", removed, err)
			}
			dev, err := findLink(l.Name)
			if err != nil || dev == nil || isUp(dev) {
				t.Errorf("the host's end: %+v, %v", dev, err)
			}
			if again := p.adopted("dev"); fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", l) {
				t.Errorf("the namespace has changed: %+v", again)
			}
			s.open()
		})
	}
}

// TestAdoptRefuses spoils a pod in every way that is refused.
func TestAdoptRefuses(t *testing.T) {
	newStage(t)
	other := func(eth0 netlink.Link, kind func(netlink.LinkAttrs) netlink.Link) error {
		if err := netlink.LinkSetName(eth0, "veth0"); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = guestInterface
		attrs.ParentIndex = eth0.Attrs().Index
		return netlink.LinkAdd(kind(attrs))
	}
	for _, c := range []struct {
		name  string
		spoil func(p *pod)
		want  string
	}{
		{"no namespace", func(p *pod) { must(t, unix.Unmount(p.path, unix.MNT_DETACH)) }, "there is none (create it and its eth0"},
		{"no eth0", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				return errors.Join(netlink.LinkSetDown(eth0), netlink.LinkSetName(eth0, "net1"))
			})
		}, "eth0 in POD: there is none (have it made before the bottle"},
		{"a bridge", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				return errors.Join(netlink.LinkSetDown(eth0), other(eth0, func(a netlink.LinkAttrs) netlink.Link { a.ParentIndex = 0; return &netlink.Bridge{LinkAttrs: a} }))
			})
		}, "it is of type bridge, and only a veth has a host end"},
		{"a macvlan", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				return errors.Join(netlink.LinkSetDown(eth0), other(eth0, func(a netlink.LinkAttrs) netlink.Link {
					return &netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE}
				}))
			})
		}, "it is of type macvlan"},
		{"gatewayd's own", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error { return netlink.LinkSetAlias(eth0, alias("gatewayd", "x")) })
		}, "gatewayd made it (leave out adopt)"},
		{"no address", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error { return p.delAddress(eth0) })
		}, "it has 0 IPv4 addresses (give it exactly one"},
		{"two addresses", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				_, err := ensureAddress(eth0, netip.MustParseAddr("198.18.200.9"), 24, false)
				return err
			})
		}, "it has 2 IPv4 addresses"},
		{"no default route", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				return netlink.RouteDel(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: p.gateway.AsSlice()})
			})
		}, "it has no default route by a gateway (add one"},
		{"two default routes", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				gw := p.gateway.Next()
				return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gw.AsSlice(), Priority: 7})
			})
		}, "it has default routes by 198.18.105.1 and by 198.18.105.2"},
		{"the other end elsewhere", func(p *pod) {
			ns := filepath.Join(t.TempDir(), "far")
			must(t, makeNetns(ns))
			t.Cleanup(func() { must(t, removeNetns(ns)) })
			f, err := openNetns(ns)
			must(t, err)
			defer f.Close()
			must(t, netlink.LinkSetNsFd(p.host, int(f.Fd())))
		}, "its other end is not in gatewayd's network namespace (run gatewayd in the namespace"},
		{"the other end beside it", func(p *pod) { must(t, netlink.LinkSetNsFd(p.host, int(p.ns.Fd()))) }, "its other end is not in gatewayd's"},
		{"a port of a bridge", func(p *pod) { p.bridge() }, "ip link set veth00000005 nomaster"},
		{"a network of the host's", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				if err := p.delAddress(eth0); err != nil {
					return err
				}
				if _, err := ensureAddress(eth0, netip.MustParseAddr("198.19.0.77"), 32, false); err != nil {
					return err
				}
				return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: p.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
			})
		}, "its address 198.19.0.77 and gateway 198.18.105.1 meet the host's own 198.19.0.1/24 (give the namespace a network of its own)"},
		{"the host's address as gateway", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				return errors.Join(netlink.RouteDel(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: p.gateway.AsSlice()}),
					netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: uplinkHost.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}))
			})
		}, "and gateway 198.19.0.1 meet the host's own 198.19.0.1/24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPod(t, 5, 24)
			c.spoil(p)
			l, err := Adopt(p.path)
			var state *StateError
			want := strings.ReplaceAll(c.want, "POD", p.path)
			if !errors.As(err, &state) || !strings.Contains(err.Error(), want) {
				t.Errorf("adopted %+v, %v; want %q", l, err, want)
			}
		})
	}
}

func (p *pod) delAddress(eth0 netlink.Link) error {
	return netlink.AddrDel(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: p.guest.AsSlice(), Mask: net.CIDRMask(p.bits, 32)}})
}

// bridge makes the host's end a port, as the CNI plugin bridge does.
func (p *pod) bridge() {
	p.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cni0"
	br := &netlink.Bridge{LinkAttrs: attrs}
	must(p.t, netlink.LinkAdd(br))
	p.t.Cleanup(func() { must(p.t, netlink.LinkDel(br)) })
	must(p.t, netlink.LinkSetMaster(p.host, br))
}

// TestAdoptedThatChanges: whatever becomes of an adopted eth0, its link is shut
// until it is adopted anew.
func TestAdoptedThatChanges(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(p *pod)
		again  bool // the changed one can be adopted
	}{
		{"address", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error {
				if err := p.delAddress(eth0); err != nil {
					return err
				}
				if _, err := ensureAddress(eth0, p.guest.Next(), p.bits, false); err != nil {
					return err
				}
				return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: p.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
			})
		}, true},
		{"MAC", func(p *pod) {
			p.inside(func(eth0 netlink.Link) error { return netlink.LinkSetHardwareAddr(eth0, otherMAC) })
		}, true},
		{"bridge", func(p *pod) { p.bridge() }, false},
		{"made anew", func(p *pod) {
			name := p.host.Attrs().Name
			p.remove()
			p.make(name, net.HardwareAddr{0x0a, 0x58, 0, 0, 9, 9}, 1500)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			p := newPod(t, 3, 24)
			l := p.adopted("dev")
			s.set(l)
			s.listeners(l)
			c.change(p)
			status, err := s.r.Set(t.Context(), Config{Links: []Link{l}})
			must(t, err)
			dev, err := findLink(l.Name)
			must(t, err)
			if status.Err() == nil || status.Links[0].Up || c.name != "made anew" && isUp(dev) {
				t.Errorf("the link is up: %+v", status.Links[0])
			}
			if !c.again {
				return
			}
			l = p.adopted("dev")
			s.set(l)
			g := s.enter(l)
			conn, err := g.dial(netip.AddrPortFrom(called, 443), patience)
			if err != nil {
				t.Fatalf("adopted anew: %v", err)
			}
			must(t, conn.SetDeadline(time.Now().Add(patience)))
			conn.Close()
		})
	}
}

// TestAdoptTwice: with one gateway for both, only one of two pods can be a bottle.
func TestAdoptTwice(t *testing.T) {
	a := Link{Bottle: "a", Name: "veth1", Kind: Adopted, Netns: "/run/netns/a", Guest: netip.MustParseAddr("198.18.1.2"), Gateway: netip.MustParseAddr("198.18.1.1"), Bits: 24,
		MAC: otherMAC, InterceptPort: 1, DNSPort: 2}
	b := a
	b.Bottle, b.Name, b.Netns, b.Guest = "b", "veth2", "/run/netns/b", netip.MustParseAddr("198.18.1.3")
	if err := b.Clash(a); err == nil || err.Error() != `validate link veth2 of bottle b: address 198.18.1.1 is already bottle "a"'s: give each bottle its own` {
		t.Error(err)
	}
	b.Gateway = netip.MustParseAddr("198.18.2.1")
	b.Bits = 32
	if err := b.Clash(a); err != nil {
		t.Error(err) // its prefix is the guest's idea alone
	}
	b.Guest = a.Guest
	if b.Clash(a) == nil {
		t.Error("two bottles have one address")
	}
	for _, l := range []Link{a, b} {
		if err := l.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// cniPlugins is where Debian has them.
const cniPlugins = "/usr/lib/cni/"

// cni runs a CNI plugin on the namespace, as containerd does.
func cni(t *testing.T, command, plugin, netns, data string) {
	t.Helper()
	cmd := exec.Command(cniPlugins + plugin)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=test", "CNI_NETNS="+netns, "CNI_IFNAME="+guestInterface, "CNI_PATH="+cniPlugins)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "bottle-dev", "type": %q, "bridge": "cni0", "isGateway": true, "mtu": 1450,
		"ipam": {"type": "host-local", "dataDir": %q, "subnet": "198.18.90.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}`, plugin, data))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", plugin, command, err, out)
	}
}

// TestAdoptCNI adopts what the real plugin ptp makes, and refuses what bridge
// makes.
func TestAdoptCNI(t *testing.T) {
	privileged.Require(t, privileged.File(cniPlugins+"ptp"), privileged.File(cniPlugins+"bridge"), privileged.File(cniPlugins+"host-local"))
	for _, plugin := range []string{"ptp", "bridge"} {
		t.Run(plugin, func(t *testing.T) {
			s := newStage(t)
			dir := t.TempDir()
			netns := filepath.Join(dir, "pod")
			must(t, makeNetns(netns))
			defer func() { must(t, removeNetns(netns)) }()
			cni(t, "ADD", plugin, netns, dir)
			defer cni(t, "DEL", plugin, netns, dir)
			l, err := Adopt(netns)
			if plugin == "bridge" {
				if br, _ := findLink("cni0"); br != nil {
					defer netlink.LinkDel(br)
				}
				if err == nil || !strings.Contains(err.Error(), "nomaster") {
					t.Errorf("adopted %+v, %v", l, err)
				}
				return
			}
			must(t, err)
			l.Bottle, l.InterceptPort, l.DNSPort = "dev", 15001, 53
			if l.MTU != 1450 || l.Bits != 24 || l.Gateway.String() != "198.18.90.1" || l.Guest.String() != "198.18.90.2" {
				t.Errorf("adopted %+v", l)
			}
			s.set(l)
			s.listeners(l)
			if got := s.enter(l).ask(netip.AddrPortFrom(called, 443)); got == "" {
				t.Error("the bottle was not answered")
			}
		})
	}
}
