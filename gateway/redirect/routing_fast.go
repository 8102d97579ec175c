package redirect

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// holdPriority is behind the rule that delivers to the gateway's sockets and
// before the main table.
const holdPriority = rulePriority + 1

// holdRule stands in for forwarding=0 on a link whose fast path is open: what
// comes from it without the fast path's mark goes nowhere, with or without the
// program and the table. The kernel compares marks under the mask alone
// (fib_rule_match in net/core/fib_rules.c).
func holdRule(ifname string) *netlink.Rule {
	mask := uint32(gatewayMarkMARK_FORWARD)
	r := netlink.NewRule()
	r.Family = netlink.FAMILY_V4
	r.Priority = holdPriority
	r.IifName = ifname
	r.Mask = &mask
	r.Type = unix.RTN_BLACKHOLE
	return r
}

// holdRules returns the interfaces that have such a rule.
func holdRules() (map[string]netlink.Rule, error) {
	rules, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	held := make(map[string]netlink.Rule)
	for _, r := range rules {
		if r.Priority == holdPriority && r.IifName != "" && !r.Invert && r.Mark == 0 && r.Src == nil && r.Dst == nil &&
			r.Mask != nil && *r.Mask == uint32(gatewayMarkMARK_FORWARD) && r.Type == unix.RTN_BLACKHOLE {
			held[r.IifName] = r
		}
	}
	return held, nil
}

// ensureHeld puts the rule in place and reads it back. It reports whether it had
// to.
func ensureHeld(ifname string) (changed bool, err error) {
	held, err := holdRules()
	if err != nil {
		return false, err
	}
	if _, ok := held[ifname]; ok {
		return false, nil
	}
	if err := netlink.RuleAdd(holdRule(ifname)); err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("add routing rule %d: %w", holdPriority, err)
	}
	if held, err = holdRules(); err != nil {
		return true, err
	}
	if _, ok := held[ifname]; !ok {
		return true, fmt.Errorf("read back routing rule %d: it is not there", holdPriority)
	}
	return true, nil
}

// removeHeld deletes the rules of the interfaces named, and of such as no longer
// exist, and returns what there was.
func removeHeld(named map[string]bool) (removed []string, err error) {
	held, err := holdRules()
	if err != nil {
		return nil, err
	}
	for name, r := range held {
		dev, err := findLink(name)
		if err != nil {
			return removed, err
		}
		if dev != nil && !named[name] {
			continue
		}
		if err := netlink.RuleDel(&r); err != nil {
			return removed, fmt.Errorf("delete routing rule %d: %w", holdPriority, err)
		}
		removed = append(removed, fmt.Sprintf("routing rule %d of interface %s", holdPriority, name))
	}
	return removed, nil
}
