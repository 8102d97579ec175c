package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"gatewayd/lab"
)

// Addresses of the peers' side, of ranges that the lab and gatewayd leave free.
var (
	peerGuest = netip.MustParsePrefix("198.18.255.2/30")
	peerNear  = netip.MustParsePrefix("198.18.255.1/30") // where the peers listen, and the guest's router
	peerWAN   = netip.MustParsePrefix("198.19.254.2/30")
	peerFar   = netip.MustParsePrefix("198.19.254.1/30") // the internet's end
)

// peerRules are masquerading and nothing else: the least that a forwarding host does for its guests.
const peerRules = `table ip bench {
    chain post {
        type nat hook postrouting priority srcnat;
        oifname "wan0" masquerade
    }
}
`

// makePeerSide joins a second bottle over a second gateway to the same internet.
func (w *world) makePeerSide(ctx context.Context, o *options) error {
	var err error
	if w.peerGateway, err = lab.NewNamespace(w.ID + "-peergw"); err != nil { // removed by its name, as all of the world's
		return err
	}
	if w.peerBottle, err = lab.NewNamespace(w.ID + "-peer"); err != nil {
		return err
	}
	links := []struct {
		from, to           *lab.Namespace
		link, peer         string
		address, peersOwns netip.Prefix
	}{
		{w.peerGateway, w.Internet.Netns, "wan0", "peer0", peerWAN, peerFar},
		{w.peerGateway, w.peerBottle, "lan0", "eth0", peerNear, peerGuest},
	}
	for _, l := range links {
		if err := join(l.from, l.to, l.link, l.peer, l.address, l.peersOwns); err != nil {
			return err
		}
	}
	if err := defaultRoute(w.peerGateway, peerFar.Addr()); err != nil {
		return err
	}
	if err := defaultRoute(w.peerBottle, peerNear.Addr()); err != nil {
		return err
	}
	if err := errors.Join(tuneNamespace(w.peerGateway, allPorts), tuneNamespace(w.peerBottle, bottlePorts)); err != nil {
		return err
	}
	if err := w.peerGateway.Do(func() error { return sysctl("net/ipv4/ip_forward", "1") }); err != nil {
		return err
	}
	rules, err := w.write("masquerade.nft", peerRules)
	if err != nil {
		return err
	}
	if err := w.nft(ctx, o, w.peerGateway, "-f", rules); err != nil {
		return fmt.Errorf("set masquerading: %w", err)
	}
	if !o.takes(viaFlowtable) {
		return nil
	}
	return w.tryFlowtable(ctx, o)
}

// join makes a veth pair between two namespaces.
func join(from, to *lab.Namespace, link, peer string, address, peers netip.Prefix) error {
	h, err := netns.GetFromPath(to.Path)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", to.Name, err)
	}
	defer h.Close()
	err = from.Do(func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: link, MTU: 1500}, PeerName: peer, PeerNamespace: netlink.NsFd(int(h)),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make link %s: %w", link, err)
		}
		return raise(link, address)
	})
	if err != nil {
		return err
	}
	return to.Do(func() error { return raise(peer, peers) })
}

// raise gives an interface of the current namespace its address and brings it up.
func raise(link string, p netip.Prefix) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", link, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}
	if err := netlink.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link, p, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up %s: %w", link, err)
	}
	return nil
}

func defaultRoute(ns *lab.Namespace, via netip.Addr) error {
	return ns.Do(func() error {
		any4 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
		if err := netlink.RouteReplace(&netlink.Route{Dst: any4, Gw: via.AsSlice()}); err != nil {
			return fmt.Errorf("add default route in %s: %w", ns.Name, err)
		}
		return nil
	})
}

// portRange is where the kernel looks for the ports of connections.
const portRange = "net/ipv4/ip_local_port_range"

// tuneNamespace lets thousands of short connections follow one another without running out of ports, among those that are given. All
// sides get it.
func tuneNamespace(ns *lab.Namespace, among string) error {
	return ns.Do(func() error {
		if err := sysctl(portRange, among); err != nil {
			return err
		}
		return sysctl("net/ipv4/tcp_tw_reuse", "1")
	})
}

// Ports that the kernel chooses from elsewhere than in a bottle. Those of gatewayd's gateway are above what the fast path translates to.
const (
	allPorts     = "10000 65000"
	gatewayPorts = "32768 65000"
)

func sysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s: %w", strings.ReplaceAll(name, "/", "."), err)
	}
	return nil
}

// answers waits until somebody listens at an address of the namespace.
func (p *program) answers(ctx context.Context, ns *lab.Namespace, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, setupPatience)
	defer cancel()
	return lab.Poll(ctx, func() error {
		if err := p.ended(); err != nil {
			cancel()
			return err
		}
		return ns.Do(func() error {
			c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			return c.Close()
		})
	})
}
