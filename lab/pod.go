package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// PodTap is the tap that a runtime of VMs opens in a pod's namespace.
const PodTap = "tap0"

// podLink is the interface that such a runtime finds there.
const podLink = "eth0"

// Pod is what a runtime of VMs finds in a namespace: eth0 as somebody else has
// configured it. The VM gets all of it.
type Pod struct {
	// Netns is where the VM's tap is.
	Netns *Namespace
	// Guest is eth0's address with its prefix, Gateway where its default route
	// leads.
	Guest   netip.Prefix
	Gateway netip.Addr
	MAC     net.HardwareAddr
	// MTU is in bytes.
	MTU int
}

// OpenPod plays the part of smolmachines' runtime (smolvm's src/agent/pod_net.rs
// and crates/smolvm-network/src/netns_tap.rs) in the namespace at path: it reads
// eth0, opens a tap beside it without virtio headers or packet information, and
// has tc send every frame that comes in by one out by the other. The tap stays
// until the namespace goes.
func OpenPod(path string) (*Pod, error) {
	ns, err := OpenNamespace(path)
	if err != nil {
		return nil, err
	}
	p := &Pod{Netns: ns}
	err = ns.Do(func() error {
		eth0, err := p.read()
		if err != nil {
			return err
		}
		tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: PodTap}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("make %s: %w", PodTap, err)
		}
		if err := withoutIPv6(PodTap); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(tap); err != nil {
			return fmt.Errorf("bring up %s: %w", PodTap, err)
		}
		for _, l := range []netlink.Link{eth0, tap} {
			if err := netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: ingressOf(l)}); err != nil {
				return fmt.Errorf("add ingress qdisc to %s: %w", l.Attrs().Name, err)
			}
		}
		return errors.Join(redirectAll(eth0, tap), redirectAll(tap, eth0))
	})
	if err != nil {
		return nil, fmt.Errorf("open pod %s: %w", path, err)
	}
	return p, nil
}

// read takes the VM's network from eth0.
func (p *Pod) read() (netlink.Link, error) {
	eth0, err := netlink.LinkByName(podLink)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", podLink, err)
	}
	p.MAC, p.MTU = eth0.Attrs().HardwareAddr, eth0.Attrs().MTU
	addrs, err := netlink.AddrList(eth0, netlink.FAMILY_V4)
	if err != nil || len(addrs) == 0 {
		return nil, fmt.Errorf("find address of %s: %d addresses, %w", podLink, len(addrs), err)
	}
	a, _ := netip.AddrFromSlice(addrs[0].IP.To4())
	bits, _ := addrs[0].Mask.Size()
	p.Guest = netip.PrefixFrom(a, bits)
	routes, err := netlink.RouteList(eth0, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if gw, ok := netip.AddrFromSlice(r.Gw.To4()); ok && (r.Dst == nil || r.Dst.IP.IsUnspecified()) {
			p.Gateway = gw
		}
	}
	return eth0, nil
}

func ingressOf(l netlink.Link) netlink.QdiscAttrs {
	return netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0)}
}

// redirectAll sends every frame that comes in by one interface out by the other.
// The runtime's classifier is matchall; on a kernel without it u32 with an empty
// mask takes every frame as well.
func redirectAll(from, to netlink.Link) error {
	attrs := netlink.FilterAttrs{LinkIndex: from.Attrs().Index, Parent: netlink.MakeHandle(0xffff, 0), Priority: 1, Protocol: unix.ETH_P_ALL}
	actions := []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)} // egress redirect
	err := netlink.FilterAdd(&netlink.MatchAll{FilterAttrs: attrs, Actions: actions})
	if errors.Is(err, unix.ENOENT) {
		err = netlink.FilterAdd(&netlink.U32{FilterAttrs: attrs, Actions: actions})
	}
	if err != nil {
		return fmt.Errorf("send frames of %s to %s: %w", from.Attrs().Name, to.Attrs().Name, err)
	}
	return nil
}

// MakePod makes at BottleNetns(bottle) what the CNI plugin ptp makes: a namespace
// with an eth0 of this address, MTU in bytes and default route, whose host end
// is in the gateway's namespace, with the gateway's address of 32 bits and a
// route to the guest. RemovePod or Close removes it. It returns the host end's
// name.
func (w *World) MakePod(bottle string, guest netip.Prefix, gateway netip.Addr, mtu int) (string, error) {
	host := "veth" + fmt.Sprintf("%x", guest.Addr().As4())
	pod, err := NewNamespace(w.ID + "-" + bottle)
	if err != nil {
		return "", err
	}
	far, err := netns.GetFromPath(pod.Path)
	if err != nil {
		return "", fmt.Errorf("open pod of %s: %w", bottle, err)
	}
	defer far.Close()
	err = w.Gateway.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: host, MTU: mtu}, PeerName: podLink, PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(int(far))}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make veth: %w", err)
		}
		if err := configure(host, netip.PrefixFrom(gateway, 32)); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Index, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.PrefixFrom(guest.Addr(), 32))})
	})
	if err == nil {
		err = pod.Do(func() error {
			if err := configure(podLink, guest); err != nil {
				return err
			}
			eth0, err := netlink.LinkByName(podLink)
			if err != nil {
				return fmt.Errorf("find %s: %w", podLink, err)
			}
			// Of 32 bits the gateway is on the link for this route alone.
			return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
		})
	}
	if err != nil {
		return "", fmt.Errorf("make pod of %s: %w", bottle, err)
	}
	return host, nil
}

// RemovePod removes the namespace that MakePod made, and its processes with it.
func (w *World) RemovePod(bottle string) error { return removeNamespace(w.ID + "-" + bottle) }
