package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
)

// cardDeadline is how long the network card may take to appear once its driver is loaded.
const cardDeadline = 10 * time.Second

// poll is how often the init looks for a device. Nothing tells it of one: there is no udev.
const poll = 20 * time.Millisecond

// network is network.json of the guest files.
type network struct {
	Interface string `json:"interface"`
	Address   string `json:"address"`
	Gateway   string `json:"gateway"`
	DNS       string `json:"dns"`
	MTU       int    `json:"mtu"`
	IPv6      bool   `json:"ipv6"`
}

func readNetwork(dir string) (network, error) {
	var n network
	data, err := os.ReadFile(filepath.Join(dir, "network.json"))
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return n, fmt.Errorf("read network.json: %w", err)
	}
	return n, nil
}

// setUp gives the card its address, and writes resolv.conf and hosts to the directory etc.
func (n network) setUp(etc string) error {
	prefix, err := netip.ParsePrefix(n.Address)
	if err != nil {
		return fmt.Errorf("read network.json: address: %w", err)
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil {
		return fmt.Errorf("read network.json: gateway: %w", err)
	}
	if err := os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte("nameserver "+n.DNS+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(etc, "hosts"), []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	card, err := await(cardDeadline, func() (netlink.Link, error) { return netlink.LinkByName(n.Interface) })
	if err != nil {
		return fmt.Errorf("find network card %s: %w", n.Interface, err)
	}
	if !n.IPv6 { // absent in a kernel without IPv6
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+n.Interface+"/disable_ipv6", []byte("1"), 0o644)
	}
	if err := netlink.LinkSetMTU(card, n.MTU); err != nil {
		return fmt.Errorf("set mtu %d: %w", n.MTU, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}}
	if err := netlink.AddrReplace(card, addr); err != nil {
		return fmt.Errorf("add address %s: %w", prefix, err)
	}
	if err := netlink.LinkSetUp(card); err != nil {
		return fmt.Errorf("bring up %s: %w", n.Interface, err)
	}
	// On the link, though a prefix of 32 bits does not say so.
	route := &netlink.Route{LinkIndex: card.Attrs().Index, Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	return nil
}

// await tries until it works, and returns the last error after the deadline.
func await[T any](most time.Duration, try func() (T, error)) (T, error) {
	end := time.NewTimer(most)
	defer end.Stop()
	again := time.NewTicker(poll)
	defer again.Stop()
	for {
		got, err := try()
		if err == nil {
			return got, nil
		}
		select {
		case <-end.C:
			return got, errors.Join(errors.New("it did not appear"), err)
		case <-again.C:
		}
	}
}
