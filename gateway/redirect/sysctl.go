package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const procSysNet = "/proc/sys/net"

// linkSysctls is the third layer: what the stack may do with packets from a
// capture link (Documentation/networking/ip-sysctl.rst). All of them are
// restored when somebody else sets them; writing ip_forward, for one, resets
// forwarding on every interface.
var linkSysctls = []struct{ family, key, value string }{
	{"ipv4", "rp_filter", "1"},
	{"ipv4", "route_localnet", "0"},
	{"ipv4", "accept_local", "0"},
	{"ipv4", "accept_redirects", "0"},
	{"ipv4", "secure_redirects", "0"},
	{"ipv4", "send_redirects", "0"},
	{"ipv4", "accept_source_route", "0"},
	{"ipv4", "proxy_arp", "0"},
	{"ipv4", "arp_ignore", "1"},
	{"ipv4", "arp_filter", "1"},
	{"ipv4", "arp_announce", "2"},
	{"ipv6", "disable_ipv6", "1"},
}

// ensureSysctls sets what differs, reads it back, and returns the names of what
// it changed. forward is whether packets from the link may be forwarded at all,
// which the fast path needs. A kernel without IPv6 has no directory for it, and
// needs none.
func ensureSysctls(ifname string, forward bool) (changed []string, err error) {
	value := "0"
	if forward {
		value = "1"
	}
	wrote, err := ensureSysctl(forwardingOf(ifname), value)
	if err != nil {
		return nil, err
	}
	if wrote {
		changed = append(changed, "forwarding")
	}
	for _, s := range linkSysctls {
		path := filepath.Join(procSysNet, s.family, "conf", ifname, s.key)
		wrote, err := ensureSysctl(path, s.value)
		if errors.Is(err, fs.ErrNotExist) && s.family == "ipv6" {
			continue
		}
		if err != nil {
			return changed, err
		}
		if wrote {
			changed = append(changed, s.key)
		}
	}
	return changed, nil
}

func ensureSysctl(path, value string) (changed bool, err error) {
	now, err := readSysctl(path)
	if err != nil || now == value {
		return false, err
	}
	if err := writeSysctl(path, value); err != nil {
		return false, err
	}
	if now, err = readSysctl(path); err != nil {
		return true, err
	}
	if now != value {
		return true, fmt.Errorf("read back sysctl %s: %s after writing %s", path, now, value)
	}
	return true, nil
}

func writeSysctl(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	return nil
}

func readSysctl(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
