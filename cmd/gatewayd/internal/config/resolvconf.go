package config

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"strings"
)

// HostNameservers reads the host's resolvers from a resolv.conf (resolv.conf(5)). Lines that it cannot use are passed
// over, and a file that is not there gives none: Resolve then asks for dns.upstreams.
func HostNameservers(path string) []netip.AddrPort {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return parseResolvConf(text)
}

func parseResolvConf(text []byte) []netip.AddrPort {
	var out []netip.AddrPort
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// parseUpstream reads ADDRESS or ADDRESS:PORT; the port is 53 when there is none.
func parseUpstream(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	return netip.ParseAddrPort(s)
}
