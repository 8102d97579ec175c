package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// Adopt describes the capture link of a network namespace that somebody else
// made and configured, as a CNI plugin does: an eth0 that is one end of a veth
// whose other end is in the caller's namespace. Address, MAC, MTU and default
// route are eth0's. The result is of kind Adopted; the caller fills in Bottle
// and the ports. Nothing is changed.
//
// It blocks for a few system calls and needs root (CAP_SYS_ADMIN to enter the
// namespace). The error is a *StateError, which says what to do, if the
// namespace is not there yet or is not of that form.
func Adopt(path string) (Link, error) {
	l, _, err := adopt(path)
	return l, err
}

// adopt is Adopt, and returns the host's end besides. That one may be there
// even if it cannot be used, and then comes with the error.
func adopt(path string) (Link, netlink.Link, error) {
	ns, err := openNetns(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Link{}, nil, &StateError{Object: "namespace " + path, Cause: "there is none",
			Remedy: "create it and its " + guestInterface + ": it is adopted as soon as it appears; or leave out adopt, and gatewayd makes it"}
	}
	if err != nil {
		return Link{}, nil, err
	}
	defer ns.Close()
	l := Link{Kind: Adopted, Netns: path, Owner: -1}
	var eth0 netlink.Link
	err = inNetns(ns, func() error {
		if eth0, err = findLink(guestInterface); err == nil {
			err = l.readGuest(eth0)
		}
		return err
	})
	if err != nil {
		return Link{}, nil, err
	}
	peer, err := hostEnd(ns, eth0, path)
	if err != nil {
		return Link{}, nil, err
	}
	l.Name = peer.Attrs().Name
	if master := peer.Attrs().MasterIndex; master != 0 {
		return Link{}, peer, enslaved(l.Name, master)
	}
	return l, peer, l.meetsHost(peer)
}

// refuseGuest is the refusal of an eth0 that cannot be adopted.
func (l *Link) refuseGuest(cause, remedy string) error {
	return &StateError{Object: guestInterface + " in " + l.Netns, Cause: cause, Remedy: remedy}
}

// readGuest takes the link's guest side from eth0. It runs in the namespace.
func (l *Link) readGuest(eth0 netlink.Link) error {
	switch {
	case eth0 == nil:
		return l.refuseGuest("there is none", "have it made before the bottle: it is adopted as soon as it appears")
	case eth0.Type() != "veth":
		return l.refuseGuest("it is of type "+eth0.Type()+", and only a veth has a host end to capture on",
			"use a network that makes veth pairs, such as the CNI plugin ptp")
	case ownedByAnybody(eth0):
		return l.refuseGuest("gatewayd made it", "leave out adopt")
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(eth0, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list addresses of %s in %s: %w", guestInterface, l.Netns, err)
	}
	if len(addrs) != 1 {
		return l.refuseGuest(fmt.Sprintf("it has %d IPv4 addresses", len(addrs)), "give it exactly one: a bottle has one address")
	}
	l.Guest, _ = netip.AddrFromSlice(addrs[0].IP.To4())
	l.Bits, _ = addrs[0].Mask.Size()
	l.MAC, l.MTU = eth0.Attrs().HardwareAddr, eth0.Attrs().MTU
	return l.readGateway(eth0)
}

// readGateway takes the gateway from the default route.
func (l *Link) readGateway(eth0 netlink.Link) error {
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(eth0, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list routes of %s in %s: %w", guestInterface, l.Netns, err)
	}
	for _, r := range routes {
		gw, ok := netip.AddrFromSlice(r.Gw.To4())
		if !ok || !isDefault(r.Dst) {
			continue
		}
		if l.Gateway.IsValid() && l.Gateway != gw {
			return l.refuseGuest(fmt.Sprintf("it has default routes by %v and by %v", l.Gateway, gw), "leave one of them")
		}
		l.Gateway = gw
	}
	if !l.Gateway.IsValid() {
		return l.refuseGuest("it has no default route by a gateway", "add one: ip route add default via ADDRESS dev "+guestInterface)
	}
	return nil
}

// hostEnd finds the other end of eth0 in the caller's namespace. Interface
// numbers are each namespace's own, so that both ends must name each other, the
// host's also the namespace.
func hostEnd(ns *os.File, eth0 netlink.Link, path string) (netlink.Link, error) {
	elsewhere := &StateError{Object: guestInterface + " in " + path, Cause: "its other end is not in gatewayd's network namespace",
		Remedy: "run gatewayd in the namespace where that end is"}
	if eth0.Attrs().NetNsID < 0 {
		return nil, elsewhere // both ends are in one namespace
	}
	peer, err := findLinkByIndex(eth0.Attrs().ParentIndex)
	if err != nil {
		return nil, err
	}
	if peer == nil || peer.Type() != "veth" || peer.Attrs().ParentIndex != eth0.Attrs().Index {
		return nil, elsewhere
	}
	id, err := netlink.GetNetNsIdByFd(int(ns.Fd()))
	if err != nil {
		return nil, fmt.Errorf("ask for the number of namespace %s: %w", path, err)
	}
	if id < 0 || peer.Attrs().NetNsID != id {
		return nil, elsewhere
	}
	return peer, nil
}

// meetsHost refuses addresses that would take something from the host: a guest
// in a network that the host reaches by another interface, and a gateway that is
// the host's address elsewhere. Hosts of routed networks have the gateway with
// 32 bits on each veth, which takes nothing.
func (l *Link) meetsHost(peer netlink.Link) error {
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP.To4())
		bits, _ := a.Mask.Size()
		if !ok || a.LinkIndex == peer.Attrs().Index {
			continue
		}
		there := netip.PrefixFrom(ip, bits)
		if there.Contains(l.Guest) || ip == l.Gateway && bits < 32 {
			return l.refuseGuest(fmt.Sprintf("its address %v and gateway %v meet the host's own %v", l.Guest, l.Gateway, there),
				"give the namespace a network of its own")
		}
	}
	return nil
}

// ensureAdopted finds the host's end of a namespace that is still what it was
// when it was adopted. The interface is returned also with an error, to be shut.
func ensureAdopted(l Link) (netlink.Link, error) {
	now, peer, err := adopt(l.Netns)
	if err != nil {
		return peer, err
	}
	now.Bottle, now.InterceptPort, now.DNSPort = l.Bottle, l.InterceptPort, l.DNSPort
	if was, is := fmt.Sprintf("%+v", l), fmt.Sprintf("%+v", now); was != is {
		return peer, l.refuseGuest("it has changed since it was adopted", "nothing: gatewayd adopts it anew within a minute")
	}
	return peer, nil
}

// ensureRoute has the host reach the guest by the link alone. An adopted link's
// prefix says nothing of where the rest of its network is.
func ensureRoute(dev netlink.Link, guest netip.Addr) (changed bool, err error) {
	want := &netlink.Route{LinkIndex: dev.Attrs().Index, Dst: netlink.NewIPNet(guest.AsSlice()), Scope: netlink.SCOPE_LINK}
	have, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, want, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return false, fmt.Errorf("list routes to %v: %w", guest, err)
	}
	for _, r := range have {
		if r.LinkIndex != dev.Attrs().Index {
			return false, &StateError{Object: fmt.Sprintf("route to %v", guest), Cause: fmt.Sprintf("it leads to interface %d", r.LinkIndex),
				Remedy: "delete it: ip route del " + guest.String()}
		}
	}
	if len(have) > 0 {
		return false, nil
	}
	if err := netlink.RouteAdd(want); err != nil {
		return false, fmt.Errorf("add route to %v: %w", guest, err)
	}
	return true, nil
}
