package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// steer runs in the VM: it makes one of the cards the way out.
func steer(args []string) error {
	var mac, address, router, resolver string
	f := flag.NewFlagSet("steer", flag.ContinueOnError)
	f.StringVar(&mac, "mac", "", "hardware address of the card")
	f.StringVar(&address, "address", "", "address with the length of its prefix that the card gets, unless empty")
	f.StringVar(&router, "router", "", "the next hop")
	f.StringVar(&resolver, "resolver", "", "DNS server")
	if err := f.Parse(args); err != nil {
		return err
	}
	hop, err := netip.ParseAddr(router)
	if err != nil {
		return fmt.Errorf("read router: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list cards: %w", err)
	}
	for _, l := range links {
		if l.Attrs().HardwareAddr.String() != mac {
			continue
		}
		if address != "" {
			p, err := netip.ParsePrefix(address)
			if err != nil {
				return fmt.Errorf("read address: %w", err)
			}
			if err := raise(l.Attrs().Name, p); err != nil {
				return err
			}
		}
		any4 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
		if err := netlink.RouteReplace(&netlink.Route{Dst: any4, Gw: hop.AsSlice(), LinkIndex: l.Attrs().Index}); err != nil {
			return fmt.Errorf("route by %s: %w", l.Attrs().Name, err)
		}
		if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver "+resolver+"\n"), 0o644); err != nil {
			return fmt.Errorf("name resolver: %w", err)
		}
		return nil
	}
	return errors.New("no card has the address " + mac)
}
