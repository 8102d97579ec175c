package pool

import (
	"fmt"
	"net"
	"net/netip"
)

// HostPrefixes lists the IPv4 prefixes on this network namespace's interfaces, but for loopback's and those of the
// interface named own, which is the bottle's link from an earlier run.
func HostPrefixes(own string) ([]InUse, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []InUse
	for _, i := range ifs {
		if i.Name == own || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface went away between the two calls
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(n.IP)
			ones, size := n.Mask.Size()
			if ip = ip.Unmap(); ok && ip.Is4() && size != 0 {
				out = append(out, InUse{Prefix: netip.PrefixFrom(ip, ones-(size-32)).Masked(), Holder: i.Name})
			}
		}
	}
	return out, nil
}
