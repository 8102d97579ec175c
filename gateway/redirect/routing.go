package redirect

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The routing rule sends packets that the program has assigned to a socket to
// the local delivery path, whatever their destination. It is the same for all
// instances of a namespace, since the mark is.
const (
	rulePriority = 2051
	routeTable   = 2051
)

func interceptRule() *netlink.Rule {
	mask := uint32(gatewayMarkMARK_MASK)
	r := netlink.NewRule()
	r.Family = netlink.FAMILY_V4
	r.Priority = rulePriority
	r.Table = routeTable
	r.Mark = uint32(gatewayMarkMARK_INTERCEPT)
	r.Mask = &mask
	return r
}

func localRoute(lo netlink.Link) *netlink.Route {
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index, Table: routeTable, Type: unix.RTN_LOCAL,
		Scope: netlink.SCOPE_HOST, Protocol: unix.RTPROT_STATIC,
		Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
	}
}

// ensureRouting puts the rule and its route in place and reports whether it had
// to. Without either an assigned packet is dropped by the stack, not forwarded:
// ip_forward refuses a packet that carries a socket (net/ipv4/ip_forward.c).
func ensureRouting() (changed bool, err error) {
	lo, err := netlink.LinkByIndex(loopbackIndex)
	if err != nil {
		return false, fmt.Errorf("find lo: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(lo); err != nil {
			return false, fmt.Errorf("set lo up: %w", err)
		}
		changed = true
	}
	there, err := haveRoute()
	if err != nil {
		return changed, err
	}
	if !there {
		if err := netlink.RouteReplace(localRoute(lo)); err != nil {
			return changed, fmt.Errorf("add local route to table %d: %w", routeTable, err)
		}
		changed = true
	}
	if there, err = haveRule(); err != nil {
		return changed, err
	}
	if !there {
		if err := netlink.RuleAdd(interceptRule()); err != nil && !errors.Is(err, unix.EEXIST) {
			return changed, fmt.Errorf("add routing rule %d: %w", rulePriority, err)
		}
		changed = true
	}
	return changed, nil
}

func haveRoute() (bool, error) {
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: routeTable, Type: unix.RTN_LOCAL},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return false, fmt.Errorf("list routes of table %d: %w", routeTable, err)
	}
	for _, r := range routes {
		if isDefault(r.Dst) && r.LinkIndex == loopbackIndex {
			return true, nil
		}
	}
	return false, nil
}

func isDefault(n *net.IPNet) bool {
	if n == nil {
		return true
	}
	ones, _ := n.Mask.Size()
	return ones == 0
}

func haveRule() (bool, error) {
	rules, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return false, fmt.Errorf("list routing rules: %w", err)
	}
	for i := range rules {
		if isInterceptRule(&rules[i]) {
			return true, nil
		}
	}
	return false, nil
}

func isInterceptRule(r *netlink.Rule) bool {
	want := interceptRule()
	return r.Priority == want.Priority && r.Table == want.Table && r.Mark == want.Mark &&
		r.Mask != nil && *r.Mask == *want.Mask && !r.Invert && r.Src == nil && r.Dst == nil &&
		r.IifName == "" && r.OifName == ""
}

// removeRouting deletes the rule and the route, and reports what there was.
func removeRouting() (removed []string, err error) {
	if there, err := haveRule(); err != nil {
		return nil, err
	} else if there {
		if err := netlink.RuleDel(interceptRule()); err != nil {
			return removed, fmt.Errorf("delete routing rule %d: %w", rulePriority, err)
		}
		removed = append(removed, fmt.Sprintf("routing rule %d", rulePriority))
	}
	if there, err := haveRoute(); err != nil {
		return removed, err
	} else if there {
		lo, err := netlink.LinkByIndex(loopbackIndex)
		if err != nil {
			return removed, fmt.Errorf("find lo: %w", err)
		}
		if err := netlink.RouteDel(localRoute(lo)); err != nil {
			return removed, fmt.Errorf("delete local route of table %d: %w", routeTable, err)
		}
		removed = append(removed, fmt.Sprintf("local route of table %d", routeTable))
	}
	return removed, nil
}
