package redirect

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// holdPriority is behind the rule that delivers to the gateway's sockets and
// before the main table. The table has one route, which leads nowhere.
const (
	holdPriority = rulePriority + 1
	holdTable    = routeTable + 1
)

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
	r.Table = holdTable
	return r
}

func nowhere() *netlink.Route {
	return &netlink.Route{
		Table: holdTable, Type: unix.RTN_BLACKHOLE, Scope: netlink.SCOPE_UNIVERSE, Protocol: unix.RTPROT_STATIC,
		Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
	}
}

func haveNowhere() (bool, error) {
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: holdTable, Type: unix.RTN_BLACKHOLE},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return false, fmt.Errorf("list routes of table %d: %w", holdTable, err)
	}
	for _, r := range routes {
		if isDefault(r.Dst) {
			return true, nil
		}
	}
	return false, nil
}

// ensureNowhere puts the table's route in place.
func ensureNowhere() (changed bool, err error) {
	there, err := haveNowhere()
	if there || err != nil {
		return false, err
	}
	if err := netlink.RouteReplace(nowhere()); err != nil {
		return false, fmt.Errorf("add blackhole route to table %d: %w", holdTable, err)
	}
	if there, err = haveNowhere(); err == nil && !there {
		err = fmt.Errorf("read back blackhole route of table %d: it is not there", holdTable)
	}
	return true, err
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
			r.Mask != nil && *r.Mask == uint32(gatewayMarkMARK_FORWARD) && r.Table == holdTable {
			held[r.IifName] = r
		}
	}
	return held, nil
}

// ensureHeld puts the rule in place and reads it back. It reports whether it had
// to.
func ensureHeld(ifname string) (changed bool, err error) {
	changed, err = ensureNowhere()
	if err != nil {
		return changed, err
	}
	held, err := holdRules()
	if err != nil {
		return changed, err
	}
	if _, ok := held[ifname]; ok {
		return changed, nil
	}
	if err := netlink.RuleAdd(holdRule(ifname)); err != nil && !errors.Is(err, unix.EEXIST) {
		return changed, fmt.Errorf("add routing rule %d: %w", holdPriority, err)
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
		delete(held, name)
	}
	if there, err := haveNowhere(); err != nil || !there || len(held) > 0 {
		return removed, err
	}
	if err := netlink.RouteDel(nowhere()); err != nil {
		return removed, fmt.Errorf("delete blackhole route of table %d: %w", holdTable, err)
	}
	return append(removed, fmt.Sprintf("blackhole route of table %d", holdTable)), nil
}
