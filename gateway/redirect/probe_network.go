package redirect

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// probeTables looks at nftables itself, and at the base chains of others that
// drop what they do not know: theirs is as good a drop as any.
func probeTables(o Options) []Check {
	c, err := nftables.New()
	if err != nil {
		return []Check{failed("nftables", fmt.Errorf("open nftables: %w", err), "modprobe nf_tables")}
	}
	chains, err := c.ListChains()
	if err != nil {
		return []Check{failed("nftables", fmt.Errorf("list nftables chains: %w", err), "use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET")}
	}
	checks := []Check{passed("nftables", fmt.Sprintf("%d chains", len(chains)))}
	for _, ch := range chains {
		if ch.Hooknum == nil || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop || ch.Table.Name == o.Instance {
			continue
		}
		where := fmt.Sprintf("chain %s of table %s drops by default", ch.Name, ch.Table.Name)
		switch *ch.Hooknum {
		case *nftables.ChainHookInput:
			checks = append(checks, warned("firewall input", where+": bottles will not reach the gateway unless it accepts them",
				fmt.Sprintf("accept packets with mark %#x/%#x there, which only the gateway's program sets", gatewayMarkMARK_INTERCEPT, gatewayMarkMARK_MASK)))
		case *nftables.ChainHookForward:
			checks = append(checks, warned("firewall forward", where+": nothing that is forwarded will pass; the relay and intercept lanes are not concerned",
				fmt.Sprintf("accept packets with mark %#x/%#x there, and replies", gatewayMarkMARK_FORWARD, gatewayMarkMARK_MASK)))
		case *nftables.ChainHookOutput:
			checks = append(checks, warned("firewall output", where+": the gateway's answers to bottles will not leave unless it accepts them",
				"accept what goes out by the capture links there"))
		}
	}
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && strings.Contains(string(b), "filter") {
		checks = append(checks, warned("iptables", "rules of the older iptables are loaded, which cannot be seen from here",
			"iptables-legacy -S; see that INPUT accepts what comes from the capture links"))
	}
	return checks
}

// probeRules looks for routing rules that come first and would take the packets
// elsewhere, and for other uses of the rule's priority and table.
func probeRules(Options) []Check {
	rules, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return []Check{failed("routing rules", fmt.Errorf("list routing rules: %w", err), asRoot)}
	}
	var checks []Check
	for i := range rules {
		r := &rules[i]
		if isInterceptRule(r) {
			continue
		}
		switch {
		case r.Priority == rulePriority || r.Table == routeTable:
			checks = append(checks, failed("routing rules", fmt.Errorf("rule %d with table %d is somebody else's", r.Priority, r.Table),
				fmt.Sprintf("give it another priority and table than %d", rulePriority)))
		case r.Priority > 0 && r.Priority < rulePriority && takesMark(r):
			checks = append(checks, warned("routing rules", fmt.Sprintf("rule %d comes first and may take packets meant for the gateway to table %d", r.Priority, r.Table),
				fmt.Sprintf("give it a priority above %d, or exclude mark %#x/%#x", rulePriority, gatewayMarkMARK_INTERCEPT, gatewayMarkMARK_MASK)))
		}
	}
	if len(checks) == 0 {
		checks = append(checks, passed("routing rules", fmt.Sprintf("%d rules, none in the way", len(rules))))
	}
	return checks
}

// takesMark reports whether the rule matches packets with the intercept mark
// that come from any interface.
func takesMark(r *netlink.Rule) bool {
	mask := uint32(0)
	switch {
	case r.Mask != nil:
		mask = *r.Mask
	case r.Mark != 0:
		mask = ^uint32(0)
	}
	matches := uint32(gatewayMarkMARK_INTERCEPT)&mask == r.Mark&mask
	return matches != r.Invert && r.IifName == ""
}

// probeSysctls looks at settings for all interfaces that override those of a
// link (the kernel takes the logical or, or the greater).
func probeSysctls(Options) []Check {
	var checks []Check
	for _, key := range []string{"route_localnet", "accept_local", "proxy_arp"} {
		value, err := readSysctl(filepath.Join(procSysNet, "ipv4/conf/all", key))
		if err != nil {
			checks = append(checks, failed("sysctls", err, "mount /proc"))
		} else if value != "0" {
			checks = append(checks, warned("sysctls", "net.ipv4.conf.all."+key+" is "+value+", also on capture links",
				"sysctl -w net.ipv4.conf.all."+key+"=0 and set it on the interfaces that need it"))
		}
	}
	if len(checks) == 0 {
		checks = append(checks, passed("sysctls", "none overrides those of the links"))
	}
	return checks
}

func probeUplink(o Options) []Check {
	if o.Uplink == "" {
		return nil
	}
	dev, err := findLink(o.Uplink)
	switch {
	case err != nil:
		return []Check{failed("uplink", err, asRoot)}
	case dev == nil:
		return []Check{warned("uplink", "there is no interface "+o.Uplink, "name the interface of the default route: ip route show default")}
	case !isUp(dev):
		return []Check{warned("uplink", "interface "+o.Uplink+" is down", "ip link set "+o.Uplink+" up")}
	}
	return []Check{passed("uplink", o.Uplink)}
}
