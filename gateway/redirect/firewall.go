package redirect

import (
	"fmt"
	"slices"
	"sort"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// firewall keeps the second layer in the kernel as it should be.
type firewall struct {
	instance string
	uplink   string
	fast     bool   // fast-path flows are forwarded and translated
	guard    bool   // the uplink forwards for them alone
	refused  string // why the kernel refused the rules of the fast path, or ""
}

// ensure makes the kernel's table equal to the desired one and reads it back.
// The replacement is one transaction: there is no moment without rules. It
// reports whether it had to change anything.
func (f firewall) ensure(links []string) (changed bool, err error) {
	links = slices.Compact(slices.Sorted(slices.Values(links)))
	want := newRuleset(f, links)
	diff, err := want.compare()
	if err != nil {
		return false, err
	}
	if diff == "" {
		return false, nil
	}
	if err := want.replace(); err != nil {
		return false, err
	}
	if err := want.randomise(); err != nil {
		return true, err
	}
	if diff, err = want.compare(); err != nil {
		return true, err
	}
	if diff != "" {
		return true, fmt.Errorf("read back nftables table %s: %s", f.instance, diff)
	}
	return true, nil
}

// replace puts the table in place of whatever has its name.
func (r *ruleset) replace() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.AddTable(r.table) // so that there is something to delete
	c.DelTable(r.table)
	c.AddTable(r.table)
	for _, s := range r.sets {
		if err := c.AddSet(s.set, s.elements); err != nil {
			return fmt.Errorf("build nftables set %s: %w", s.set.Name, err)
		}
	}
	for _, ch := range r.chains {
		c.AddChain(ch.chain)
	}
	for _, ch := range r.chains {
		for _, exprs := range ch.rules {
			c.AddRule(&nftables.Rule{Table: r.table, Chain: ch.chain, Exprs: exprs})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("apply nftables table %s: %w", r.table.Name, err)
	}
	return nil
}

// compare returns "" if the kernel has exactly this table, else the first
// difference. Chains and sets that others added to the table are left alone:
// they cannot open what these drop.
func (r *ruleset) compare() (string, error) {
	c, err := nftables.New()
	if err != nil {
		return "", fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(r.table.Family)
	if err != nil {
		return "", fmt.Errorf("list nftables tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == r.table.Name })
	if i < 0 {
		return "no table", nil
	}
	if tables[i].Flags != 0 {
		return "table is dormant or owned", nil
	}
	if diff, err := r.compareSets(c); diff != "" || err != nil {
		return diff, err
	}
	return r.compareChains(c)
}

func (r *ruleset) compareSets(c *nftables.Conn) (string, error) {
	sets, err := c.GetSets(r.table)
	if err != nil {
		return "", fmt.Errorf("list nftables sets: %w", err)
	}
	for _, want := range r.sets {
		i := slices.IndexFunc(sets, func(s *nftables.Set) bool { return s.Name == want.set.Name })
		if i < 0 {
			return "no set " + want.set.Name, nil
		}
		elements, err := c.GetSetElements(sets[i])
		if err != nil {
			return "", fmt.Errorf("list nftables set %s: %w", want.set.Name, err)
		}
		if !slices.Equal(elementKeys(elements), elementKeys(want.elements)) {
			return "set " + want.set.Name + " differs", nil
		}
	}
	return "", nil
}

func elementKeys(elements []nftables.SetElement) []string {
	keys := make([]string, 0, len(elements))
	for _, e := range elements {
		keys = append(keys, fmt.Sprintf("%x %t", e.Key, e.IntervalEnd))
	}
	sort.Strings(keys)
	return keys
}

func (r *ruleset) compareChains(c *nftables.Conn) (string, error) {
	all, err := c.ListChainsOfTableFamily(r.table.Family)
	if err != nil {
		return "", fmt.Errorf("list nftables chains: %w", err)
	}
	for _, want := range r.chains {
		i := slices.IndexFunc(all, func(ch *nftables.Chain) bool {
			return ch.Table.Name == r.table.Name && ch.Name == want.chain.Name
		})
		if i < 0 {
			return "no chain " + want.chain.Name, nil
		}
		if !sameChain(all[i], want.chain) {
			return "chain " + want.chain.Name + " has another hook", nil
		}
		rules, err := c.GetRules(r.table, want.chain)
		if err != nil {
			return "", fmt.Errorf("list nftables chain %s: %w", want.chain.Name, err)
		}
		if !slices.EqualFunc(rules, want.rules, sameRule) {
			return "chain " + want.chain.Name + " has other rules", nil
		}
	}
	return "", nil
}

func sameChain(a, b *nftables.Chain) bool {
	return a.Type == b.Type && same(a.Hooknum, b.Hooknum) && same(a.Priority, b.Priority) && same(a.Policy, b.Policy)
}

func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func sameRule(got *nftables.Rule, want []expr.Any) bool {
	readable := slices.DeleteFunc(slices.Clone(want), unreadable)
	return slices.EqualFunc(got.Exprs, readable, func(a, b expr.Any) bool { return describe(a) == describe(b) })
}

// unreadable tells the expressions that github.com/google/nftables writes, but
// leaves out when it reads a rule.
func unreadable(e expr.Any) bool {
	switch e.(type) {
	case *expr.Rt, *expr.Byteorder:
		return true
	}
	return false
}

// describe renders what an expression does, without what it has counted and
// without numbers that only have a meaning inside one transaction.
func describe(e expr.Any) string {
	switch e := e.(type) {
	case *expr.Counter:
		return "counter"
	case *expr.Lookup:
		return fmt.Sprintf("lookup %s %t", e.SetName, e.Invert)
	case *expr.Meta:
		return fmt.Sprintf("meta %d %t", e.Key, e.SourceRegister)
	case *expr.Bitwise:
		return fmt.Sprintf("bitwise %x %x", e.Mask, e.Xor)
	case *expr.Masq:
		return fmt.Sprintf("masquerade %t %t %d %d", e.ToPorts, e.FullyRandom, e.RegProtoMin, e.RegProtoMax)
	case *expr.Payload:
		return fmt.Sprintf("payload %d %d %d", e.Base, e.Offset, e.Len)
	}
	return fmt.Sprintf("%T %+v", e, e)
}

// remove deletes the table and reports whether there was one.
func (f firewall) remove() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Name: f.instance, Family: nftables.TableFamilyINet}
	tables, err := c.ListTablesOfFamily(table.Family)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == f.instance }) {
		return false, nil
	}
	c.DelTable(table)
	if err := c.Flush(); err != nil {
		return false, fmt.Errorf("delete nftables table %s: %w", f.instance, err)
	}
	return true, nil
}

// others returns the names of other instances' tables, known by their chain.
func (f firewall) others() ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var names []string
	for _, ch := range chains {
		if ch.Name == chainFromBottle && ch.Table.Name != f.instance {
			names = append(names, ch.Table.Name)
		}
	}
	return names, nil
}
