package redirect

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

// ensureTap finds the bottle's persistent tap or creates it.
func ensureTap(instance string, l Link) (netlink.Link, []string, error) {
	dev, err := findLink(l.Name)
	if err != nil {
		return nil, nil, err
	}
	if dev != nil {
		if tap, ok := dev.(*netlink.Tuntap); !ok || tap.Mode != netlink.TUNTAP_MODE_TAP || !owned(dev, instance, l.Bottle) {
			return nil, nil, foreign(l)
		}
		return dev, nil, nil
	}
	if err := makeTap(l.Name, l.Owner); err != nil {
		return nil, nil, err
	}
	if dev, err = findLink(l.Name); err != nil {
		return nil, nil, err
	}
	if dev == nil {
		return nil, nil, fmt.Errorf("find tap %s: it was deleted at once", l.Name)
	}
	if err := netlink.LinkSetHardwareAddr(dev, hostMAC(instance, l)); err != nil {
		return nil, nil, fmt.Errorf("set hardware address: %w", err)
	}
	if err := netlink.LinkSetAlias(dev, alias(instance, l.Bottle)); err != nil {
		return nil, nil, fmt.Errorf("set alias: %w", err)
	}
	dev, err = findLink(l.Name)
	if err == nil && dev == nil {
		err = fmt.Errorf("find tap %s: it was deleted at once", l.Name)
	}
	return dev, []string{"created tap"}, err
}

// makeTap creates a persistent tap with virtio headers and without packet
// information, which is what virtual machine monitors open it with. An owner
// below 0 leaves it to those who have CAP_NET_ADMIN.
//
// It makes the calls itself since the netlink library also sets the tap's
// group, to 0 if nothing else was asked for, and then the kernel wants a
// non-root owner to be of that group as well (tun_not_capable in
// drivers/net/tun.c).
func makeTap(name string, owner int) error {
	fd, err := openTap(name, unix.IFF_TUN_EXCL)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if owner >= 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, owner); err != nil {
			return fmt.Errorf("give tap to user %d: %w", owner, err)
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

// tapOpen reports whether some process has the tap open, by trying: a tap with
// one queue lets nobody else in (tun_attach in drivers/net/tun.c), and the
// kernel tells its users in no other way while the interface is down.
func tapOpen(name string) (bool, error) {
	fd, err := openTap(name, 0)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, unix.Close(fd)
}
