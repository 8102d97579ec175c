package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// podLink is the interface that a runtime of VMs finds in a pod's namespace.
const podLink = "eth0"

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
