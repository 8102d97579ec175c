// Package pod puts a VM into a network namespace that has an eth0 for it, as the runtime of smolmachines does.
package pod

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// Link is the interface that a VM's runtime finds in the namespace.
	Link = "eth0"
	// Tap is the interface that it opens there.
	Tap = "tap0"
)

// ErrBusy says that there is a VM already.
var ErrBusy = errors.New(Tap + " is open: there is a VM already")

// Pod is what the VM gets: all that eth0 has.
type Pod struct {
	// Guest is eth0's address with its prefix, Gateway where its default route leads.
	Guest   netip.Prefix
	Gateway netip.Addr
	MAC     net.HardwareAddr
	// MTU is in bytes.
	MTU int
	// Classifier is the kind of filter that sends the frames on: matchall, or u32 where the kernel has none.
	Classifier string

	path string
}

// Open does what smolmachines' runtime does (smolvm's src/agent/pod_net.rs and crates/smolvm-network/src/netns_tap.rs) in the
// namespace at path: it reads eth0, makes a tap beside it without virtio headers or packet information, and has tc send
// every frame that comes in by one out by the other. A tap that a VM left behind is replaced, one that is open is ErrBusy.
// Close removes the tap.
func Open(path string) (*Pod, error) {
	p := &Pod{path: path}
	err := do(path, func() error {
		eth0, err := p.read()
		if err != nil {
			return err
		}
		if err := remove(eth0); err != nil {
			return err
		}
		return p.wire(eth0)
	})
	if err != nil {
		return nil, fmt.Errorf("open pod %s: %w", path, err)
	}
	return p, nil
}

// Close takes away what Open made. A namespace that is gone has nothing of it.
func (p *Pod) Close() error {
	err := do(p.path, func() error {
		eth0, err := netlink.LinkByName(Link)
		if err != nil {
			return fmt.Errorf("find %s: %w", Link, err)
		}
		return remove(eth0)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("close pod %s: %w", p.path, err)
	}
	return nil
}

// Enter puts the calling thread, which must be locked, into the namespace at path. There is no way back: the goroutine ends
// without unlocking it.
func Enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// do calls f on a thread in the namespace.
func do(path string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := Enter(path); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// read takes the VM's network from eth0.
func (p *Pod) read() (netlink.Link, error) {
	eth0, err := netlink.LinkByName(Link)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", Link, err)
	}
	p.MAC, p.MTU = eth0.Attrs().HardwareAddr, eth0.Attrs().MTU
	addrs, err := netlink.AddrList(eth0, netlink.FAMILY_V4)
	if err != nil || len(addrs) == 0 {
		return nil, fmt.Errorf("find address of %s: %w", Link, cmp.Or(err, errors.New("it has none")))
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

// remove takes away the tap and eth0's filter, if they are there.
func remove(eth0 netlink.Link) error {
	tap, err := netlink.LinkByName(Tap)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", Tap, err)
	}
	if tap.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 { // a tap's carrier is whoever has it open
		return ErrBusy
	}
	if err := netlink.LinkDel(tap); err != nil {
		return fmt.Errorf("remove %s: %w", Tap, err)
	}
	err = netlink.QdiscDel(&netlink.Ingress{QdiscAttrs: ingressOf(eth0)})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) { // there is none
		return fmt.Errorf("remove ingress qdisc of %s: %w", Link, err)
	}
	return nil
}

// wire makes the tap and connects it.
func (p *Pod) wire(eth0 netlink.Link) error {
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: Tap}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI}
	if err := netlink.LinkAdd(tap); err != nil {
		return fmt.Errorf("make %s: %w", Tap, err)
	}
	// The namespace's own kernel has nothing to say on the VM's link.
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+Tap+"/disable_ipv6", []byte("1"), 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("turn IPv6 off on %s: %w", Tap, err)
	}
	if err := netlink.LinkSetUp(tap); err != nil {
		return fmt.Errorf("bring up %s: %w", Tap, err)
	}
	for _, l := range []netlink.Link{eth0, tap} {
		if err := netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: ingressOf(l)}); err != nil {
			return fmt.Errorf("add ingress qdisc to %s: %w", l.Attrs().Name, err)
		}
	}
	return errors.Join(p.redirectAll(eth0, tap), p.redirectAll(tap, eth0))
}

func ingressOf(l netlink.Link) netlink.QdiscAttrs {
	return netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0)}
}

// redirectAll sends every frame that comes in by one interface out by the other. The runtime's classifier is matchall; on a
// kernel without it u32 with an empty mask takes every frame as well.
func (p *Pod) redirectAll(from, to netlink.Link) error {
	attrs := netlink.FilterAttrs{LinkIndex: from.Attrs().Index, Parent: netlink.MakeHandle(0xffff, 0), Priority: 1, Protocol: unix.ETH_P_ALL}
	actions := []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)} // egress redirect
	var filter netlink.Filter = &netlink.MatchAll{FilterAttrs: attrs, Actions: actions}
	err := netlink.FilterAdd(filter)
	if errors.Is(err, unix.ENOENT) {
		filter = &netlink.U32{FilterAttrs: attrs, Actions: actions}
		err = netlink.FilterAdd(filter)
	}
	if err != nil {
		return fmt.Errorf("send frames of %s to %s: %w", from.Attrs().Name, to.Attrs().Name, err)
	}
	p.Classifier = filter.Type()
	return nil
}
