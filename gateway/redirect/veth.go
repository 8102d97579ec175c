package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guestInterface is the name of the veth's far end; it is what runtimes look
// for in a pod's namespace.
const guestInterface = "eth0"

// ensureVeth makes the bottle's namespace with a configured eth0, whose other
// end is the capture link. What is there and was made for this bottle is kept.
func ensureVeth(instance string, l Link) (netlink.Link, []string, error) {
	var changes []string
	host, err := findLink(l.Name)
	if err != nil {
		return nil, nil, err
	}
	if host != nil && (host.Type() != "veth" || !owned(host, instance, l.Bottle)) {
		return nil, nil, foreign(l)
	}
	ns, created, err := ensureNetns(instance, l)
	if err != nil {
		return nil, nil, err
	}
	defer ns.Close()
	if created {
		changes = append(changes, "created namespace")
	}
	paired, err := pairedWith(ns, host, instance, l)
	if err != nil {
		return nil, nil, err
	}
	if !paired {
		if host != nil {
			if err := netlink.LinkDel(host); err != nil {
				return nil, nil, fmt.Errorf("delete unpaired veth: %w", err)
			}
		}
		if host, err = makeVeth(ns, instance, l); err != nil {
			return nil, nil, err
		}
		changes = append(changes, "created veth")
	}
	configured, err := configureGuest(ns, l)
	return host, append(changes, configured...), err
}

// ensureNetns opens the namespace, or creates it and marks its lo.
func ensureNetns(instance string, l Link) (ns *os.File, created bool, err error) {
	ns, err = openNetns(l.Netns)
	if !errors.Is(err, fs.ErrNotExist) {
		return ns, false, err
	}
	if err := makeNetns(l.Netns); err != nil {
		return nil, false, err
	}
	if ns, err = openNetns(l.Netns); err != nil {
		return nil, false, err
	}
	err = inNetns(ns, func() error {
		lo, err := netlink.LinkByIndex(loopbackIndex)
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		return netlink.LinkSetAlias(lo, alias(instance, l.Bottle))
	})
	if err != nil {
		ns.Close()
		return nil, false, fmt.Errorf("mark namespace: %w", err)
	}
	return ns, true, nil
}

// pairedWith reports whether eth0 in ns is the other end of host. An eth0 that
// was not made for this bottle is an error.
func pairedWith(ns *os.File, host netlink.Link, instance string, l Link) (paired bool, err error) {
	err = inNetns(ns, func() error {
		eth0, err := findLink(guestInterface)
		if err != nil || eth0 == nil {
			return err
		}
		if !owned(eth0, instance, l.Bottle) {
			return &StateError{Object: guestInterface + " in " + l.Netns, Cause: "it was not made for this bottle",
				Remedy: "name another namespace in the link, delete that interface, or write adopt: true to take the namespace as it is"}
		}
		paired = host != nil && host.Attrs().ParentIndex == eth0.Attrs().Index && eth0.Attrs().ParentIndex == host.Attrs().Index
		if paired {
			return nil
		}
		return netlink.LinkDel(eth0)
	})
	return paired, err
}

// makeVeth creates the pair, both ends down.
func makeVeth(ns *os.File, instance string, l Link) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = l.Name
	attrs.MTU = l.mtu()
	attrs.HardwareAddr = hostMAC(instance, l)
	veth := netlink.NewVeth(attrs)
	veth.PeerName = guestInterface
	veth.PeerHardwareAddr = l.MAC
	veth.PeerMTU = uint32(l.mtu())
	veth.PeerNamespace = netlink.NsFd(ns.Fd())
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("create veth %s: %w", l.Name, err)
	}
	if err := netlink.LinkSetAlias(veth, alias(instance, l.Bottle)+aliasNetns+l.Netns); err != nil {
		return nil, fmt.Errorf("set alias: %w", err)
	}
	err := inNetns(ns, func() error {
		eth0, err := netlink.LinkByName(guestInterface)
		if err != nil {
			return fmt.Errorf("find %s: %w", guestInterface, err)
		}
		return netlink.LinkSetAlias(eth0, alias(instance, l.Bottle))
	})
	if err != nil {
		return nil, fmt.Errorf("mark far end: %w", err)
	}
	host, err := findLink(l.Name)
	if err == nil && host == nil {
		err = fmt.Errorf("find veth %s: it was deleted at once", l.Name)
	}
	return host, err
}

// configureGuest gives the namespace's eth0 its address, MTU, MAC and default
// route, and returns what it had to change.
func configureGuest(ns *os.File, l Link) (changes []string, err error) {
	note := func(changed bool, what string, failed error) error {
		if changed {
			changes = append(changes, what)
		}
		return failed
	}
	err = inNetns(ns, func() error {
		eth0, err := netlink.LinkByName(guestInterface)
		if err != nil {
			return fmt.Errorf("find %s: %w", guestInterface, err)
		}
		lo, err := netlink.LinkByIndex(loopbackIndex)
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		changed, err := ensureMAC(eth0, l.MAC)
		if err := note(changed, "guest mac", err); err != nil {
			return err
		}
		changed, err = ensureMTU(eth0, l.mtu())
		if err := note(changed, "guest mtu", err); err != nil {
			return err
		}
		changed, err = ensureAddress(eth0, l.Guest, l.Bits, true)
		if err := note(changed, "guest address", err); err != nil {
			return err
		}
		for _, dev := range []netlink.Link{lo, eth0} {
			changed, err = ensureUp(dev)
			if err := note(changed, dev.Attrs().Name+" up", err); err != nil {
				return err
			}
		}
		changed, err = ensureDefaultRoute(eth0, l.Gateway)
		return note(changed, "guest route", err)
	})
	if err != nil {
		return changes, fmt.Errorf("configure namespace %s: %w", l.Netns, err)
	}
	return changes, nil
}

func ensureMAC(dev netlink.Link, mac net.HardwareAddr) (changed bool, err error) {
	if dev.Attrs().HardwareAddr.String() == mac.String() {
		return false, nil
	}
	if err := netlink.LinkSetHardwareAddr(dev, mac); err != nil {
		return false, fmt.Errorf("set hardware address %v: %w", mac, err)
	}
	return true, nil
}

func ensureUp(dev netlink.Link) (changed bool, err error) {
	if isUp(dev) {
		return false, nil
	}
	if err := netlink.LinkSetUp(dev); err != nil {
		return false, fmt.Errorf("set interface %s up: %w", dev.Attrs().Name, err)
	}
	return true, nil
}

// ensureDefaultRoute corrects a default route through dev. One through another
// interface is left alone: a runtime may have its own reasons.
func ensureDefaultRoute(dev netlink.Link, gateway netip.Addr) (changed bool, err error) {
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if !isDefault(r.Dst) {
			continue
		}
		if gw, ok := netip.AddrFromSlice(r.Gw.To4()); r.LinkIndex != dev.Attrs().Index || ok && gw == gateway {
			return false, nil
		}
	}
	route := &netlink.Route{LinkIndex: dev.Attrs().Index, Gw: gateway.AsSlice(), Protocol: unix.RTPROT_STATIC}
	if err := netlink.RouteReplace(route); err != nil {
		return false, fmt.Errorf("add default route: %w", err)
	}
	return true, nil
}
