package redirect

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
)

// aliasPrefix begins the ifalias of every interface that the package created.
// A name says nothing about who made an interface; the alias does.
const aliasPrefix = "gatewayd:"

// alias is the ifalias of a bottle's link, and of lo in a namespace that was
// created for it.
func alias(instance, bottle string) string { return aliasPrefix + instance + ":" + bottle }

// aliasNetns marks, behind the alias of a veth, the namespace of its far end.
const aliasNetns = " netns "

// ownedByAnybody reports whether some instance of this program made the
// interface.
func ownedByAnybody(dev netlink.Link) bool { return strings.HasPrefix(dev.Attrs().Alias, aliasPrefix) }

// owned reports whether the interface carries the bottle's alias.
func owned(dev netlink.Link, instance, bottle string) bool {
	a, _, _ := strings.Cut(dev.Attrs().Alias, aliasNetns)
	return a == alias(instance, bottle)
}

// maxDumpTries is how often a netlink dump is repeated that was interrupted by
// a change.
const maxDumpTries = 8

// dump repeats a listing until it is consistent.
func dump[T any](list func() (T, error)) (T, error) {
	var got T
	var err error
	for range maxDumpTries {
		if got, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return got, err
}

// findLink returns nil without an error if there is no interface of that name.
func findLink(name string) (netlink.Link, error) {
	dev, err := dump(func() (netlink.Link, error) { return netlink.LinkByName(name) })
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	return dev, nil
}

func findLinkByIndex(index int) (netlink.Link, error) {
	dev, err := dump(func() (netlink.Link, error) { return netlink.LinkByIndex(index) })
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find interface %d: %w", index, err)
	}
	return dev, nil
}

func isUp(dev netlink.Link) bool { return dev.Attrs().Flags&net.FlagUp != 0 }

// hostMAC is the Ethernet address of the host's end of a link that the package
// makes: locally administered (IEEE 802), and always the same for a bottle, so
// that a link made again finds the guest's ARP cache right.
func hostMAC(instance string, l Link) net.HardwareAddr {
	sum := sha256.Sum256([]byte("capture link\x00" + instance + "\x00" + l.Bottle))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	if mac.String() == l.MAC.String() {
		mac[5] ^= 0x01
	}
	return mac
}

// ensureMTU sets the MTU if it differs.
func ensureMTU(dev netlink.Link, mtu int) (changed bool, err error) {
	if dev.Attrs().MTU == mtu {
		return false, nil
	}
	if err := netlink.LinkSetMTU(dev, mtu); err != nil {
		return false, fmt.Errorf("set mtu %d: %w", mtu, err)
	}
	return true, nil
}

// ensureAddress adds the address if it is missing. Others are left alone, unless
// the interface is the package's own and only says so; those are of an earlier
// configuration, and the datapath would take them for spoofed.
func ensureAddress(dev netlink.Link, addr netip.Addr, bits int, only bool) (changed bool, err error) {
	have, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(dev, netlink.FAMILY_V4) })
	if err != nil {
		return false, fmt.Errorf("list addresses: %w", err)
	}
	there := false
	for i := range have {
		ones, _ := have[i].Mask.Size()
		if ip, ok := netip.AddrFromSlice(have[i].IP.To4()); ok && ip == addr && ones == bits {
			there = true
		} else if only {
			if err := netlink.AddrDel(dev, &have[i]); err != nil {
				return changed, fmt.Errorf("remove address %v: %w", have[i].IPNet, err)
			}
			changed = true
		}
	}
	if there {
		return changed, nil
	}
	want := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, 32)}}
	if err := netlink.AddrReplace(dev, want); err != nil {
		return changed, fmt.Errorf("add address %v/%d: %w", addr, bits, err)
	}
	return true, nil
}

// ensureNeighbour makes the bottle's address a permanent neighbour entry, so
// that the host never asks who has it and no answer can change it.
func ensureNeighbour(dev netlink.Link, l Link) (changed bool, err error) {
	index := dev.Attrs().Index
	have, err := dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(index, netlink.FAMILY_V4) })
	if err != nil {
		return false, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range have {
		if ip, ok := netip.AddrFromSlice(n.IP.To4()); ok && ip == l.Guest &&
			n.State == netlink.NUD_PERMANENT && n.HardwareAddr.String() == l.MAC.String() {
			return false, nil
		}
	}
	want := &netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: l.Guest.AsSlice(), HardwareAddr: l.MAC}
	if err := netlink.NeighSet(want); err != nil {
		return false, fmt.Errorf("set neighbour %v: %w", l.Guest, err)
	}
	return true, nil
}

// setDown sets the interface down if it is up.
func setDown(dev netlink.Link) error {
	if !isUp(dev) {
		return nil
	}
	if err := netlink.LinkSetDown(dev); err != nil {
		return fmt.Errorf("set interface %s down: %w", dev.Attrs().Name, err)
	}
	return nil
}

// device finds the link's interface, or creates it where its kind says so. It
// returns the names of what it had to change. An interface that it creates is
// down. One that was found and cannot be used comes with the error.
func device(instance string, l Link) (dev netlink.Link, changes []string, err error) {
	switch l.Kind {
	case Tap:
		return ensureTap(instance, l)
	case Netns:
		return ensureVeth(instance, l)
	case Adopted:
		dev, err = ensureAdopted(l)
		return dev, nil, err
	}
	if dev, err = findLink(l.Name); err != nil {
		return nil, nil, err
	}
	if dev == nil {
		return nil, nil, &StateError{Object: "interface " + l.Name, Cause: "there is none",
			Remedy: "create it: the link is set up as soon as it appears"}
	}
	if master := dev.Attrs().MasterIndex; master != 0 {
		return dev, nil, enslaved(l.Name, master)
	}
	return dev, nil, nil
}

// enslaved is the refusal of a port of a bridge or bond. The program would see
// its frames, but what it lets go on would be switched to the other ports, where
// neither the firewall table nor the link's sysctls know it for the bottle's.
func enslaved(name string, master int) error {
	return &StateError{Object: "interface " + name, Cause: fmt.Sprintf("it is part of interface %d", master),
		Remedy: "take it out of its bridge or bond: ip link set " + name + " nomaster"}
}

// foreign is the refusal of an interface that is in the way.
func foreign(l Link) error {
	return &StateError{Object: "interface " + l.Name, Cause: "it exists and was not made for this bottle",
		Remedy: "delete it with ip link delete " + l.Name + ", or give the link as an existing interface"}
}
