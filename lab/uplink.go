package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// joinUplink makes the veth pair between the gateway and the internet. The
// gateway forwards and the internet routes answers to the bottles back, so a
// packet that the gateway fails to stop does arrive and is answered.
func joinUplink(gw, inet *Namespace) error {
	err := inet.Do(func() error { return nil })
	if err != nil {
		return err
	}
	peer, err := netns.GetFromPath(inet.Path)
	if err != nil {
		return fmt.Errorf("open namespace of the internet: %w", err)
	}
	defer peer.Close()
	err = gw.Do(func() error {
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: Uplink, MTU: 1500},
			PeerName:      farLink,
			PeerNamespace: netlink.NsFd(int(peer)),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make uplink: %w", err)
		}
		if err := withoutIPv6(Uplink); err != nil {
			return err
		}
		if err := configure(Uplink, netip.PrefixFrom(GatewayUplink, 30)); err != nil {
			return err
		}
		if err := sysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
		return addRoute(netip.MustParsePrefix("0.0.0.0/0"), Far)
	})
	if err != nil {
		return err
	}
	return inet.Do(func() error {
		if err := withoutIPv6(farLink); err != nil {
			return err
		}
		if err := configure(farLink, netip.PrefixFrom(Far, 30)); err != nil {
			return err
		}
		for _, a := range []netip.Addr{Resolver.Addr(), Private, Metadata} {
			if err := configure("lo", netip.PrefixFrom(a, 32)); err != nil {
				return err
			}
		}
		return addRoute(Bottles, GatewayUplink)
	})
}

// configure adds an address to an interface of the current namespace and
// brings it up.
func configure(link string, p netip.Prefix) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", link, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if err := netlink.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link, p, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up %s: %w", link, err)
	}
	return nil
}

// withoutIPv6 keeps an interface from speaking IPv6 of its own accord, so that
// whatever IPv6 crosses it has been let through.
func withoutIPv6(link string) error {
	if _, err := os.Stat("/proc/sys/net/ipv6/conf"); err != nil {
		return nil // this kernel has no IPv6
	}
	return sysctl("net/ipv6/conf/"+link+"/disable_ipv6", "1")
}

func addRoute(dst netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{Dst: ipNet(dst), Gw: via.AsSlice()}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("add route %s via %s: %w", dst, via, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// sysctl writes below /proc/sys, of which the net part is that of the calling
// thread's namespace.
func sysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}
