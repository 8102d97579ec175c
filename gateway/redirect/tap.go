package redirect

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

// ensureTap finds the bottle's persistent tap or creates it. A tap that was made
// for another owner or another number of queues is made anew once nobody has it
// open: both are the device's for life, and a virtual machine that runs on it
// loses more than its next one gains.
func ensureTap(instance string, l Link) (netlink.Link, []string, error) {
	dev, err := findLink(l.Name)
	if err != nil {
		return nil, nil, err
	}
	change := "created tap"
	if dev != nil {
		tap, ok := dev.(*netlink.Tuntap)
		if !ok || tap.Mode != netlink.TUNTAP_MODE_TAP || !owned(dev, instance, l.Bottle) {
			return nil, nil, foreign(l)
		}
		if fits(tap, l) {
			return dev, nil, nil
		}
		if open, err := tapOpen(tap); err != nil || open {
			return dev, nil, err
		}
		if err := netlink.LinkDel(dev); err != nil {
			return nil, nil, fmt.Errorf("delete tap %s: %w", l.Name, err)
		}
		change = "created tap for another owner or queues"
	}
	if dev, err = makeTap(instance, l); err != nil {
		return nil, nil, err
	}
	return dev, []string{change}, nil
}

// fits reports whether the tap has the owner and the kind of queues that the
// link asks for. The kernel leaves out an owner that was never set.
func fits(tap *netlink.Tuntap, l Link) bool {
	return int(tap.Owner) == max(l.Owner, 0) && tap.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 == l.MultiQueue
}

// makeTap creates the tap, down, with its address and the mark of whose it is.
func makeTap(instance string, l Link) (netlink.Link, error) {
	if err := createTap(l); err != nil {
		return nil, err
	}
	find := func() (netlink.Link, error) {
		dev, err := findLink(l.Name)
		if err == nil && dev == nil {
			err = fmt.Errorf("find tap %s: it was deleted at once", l.Name)
		}
		return dev, err
	}
	dev, err := find()
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetHardwareAddr(dev, hostMAC(instance, l)); err != nil {
		return nil, fmt.Errorf("set hardware address: %w", err)
	}
	if err := netlink.LinkSetAlias(dev, alias(instance, l.Bottle)); err != nil {
		return nil, fmt.Errorf("set alias: %w", err)
	}
	return find()
}

// createTap creates a persistent tap with virtio headers and without packet
// information, which is what virtual machine monitors open it with. Whether it
// has one queue or many is the monitor's matter, too: the kernel refuses who
// asks for the other (tun_set_iff in drivers/net/tun.c). An owner below 0 leaves
// it to those who have CAP_NET_ADMIN.
//
// It makes the calls itself since the netlink library also sets the tap's
// group, to 0 if nothing else was asked for, and then the kernel wants a
// non-root owner to be of that group as well (tun_not_capable in
// drivers/net/tun.c).
func createTap(l Link) error {
	flags := uint16(unix.IFF_TUN_EXCL)
	if l.MultiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	}
	fd, err := openTap(l.Name, flags)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if l.Owner >= 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, l.Owner); err != nil {
			return fmt.Errorf("give tap to user %d: %w", l.Owner, err)
		}
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make tap persistent: %w", err)
	}
	return nil
}

// openTap creates the tap or opens one that exists, which IFF_TUN_EXCL in extra
// forbids. The caller closes the descriptor.
func openTap(name string, extra uint16) (int, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | extra)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open tap %s: %w", name, err)
	}
	return fd, nil
}

// tapOpen reports whether some process has the tap open. A tap with many queues
// says how many there are. One with one queue lets nobody else in (tun_attach in
// drivers/net/tun.c), and tells its users in no other way while the interface is
// down: it is tried.
func tapOpen(tap *netlink.Tuntap) (bool, error) {
	if tap.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 {
		return tap.Queues+tap.DisabledQueues > 0, nil
	}
	fd, err := openTap(tap.Name, 0)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, unix.Close(fd)
}
