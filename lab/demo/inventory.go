package demo

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// inventory is what a gatewayd could have left in the caller's own network
// namespace, by a name that says what it is.
type inventory map[string]bool

// rulePriority is that of gatewayd's ip rule.
const rulePriority = 2051

func takeInventory() (inventory, error) {
	inv := inventory{}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		inv["interface "+l.Attrs().Name] = true
	}
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list ip rules: %w", err)
	}
	for _, r := range rules {
		if r.Priority == rulePriority {
			inv["ip rule "+r.String()] = true
		}
	}
	tables, err := new(nftables.Conn).ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	for _, t := range tables {
		inv[fmt.Sprintf("nft table %d %s", t.Family, t.Name)] = true
	}
	return inv, nil
}

// beyond lists what is in the inventory and was not in an earlier one.
func (inv inventory) beyond(before inventory) []string {
	var more []string
	for _, k := range slices.Sorted(maps.Keys(inv)) {
		if !before[k] {
			more = append(more, k)
		}
	}
	return more
}
