package redirect

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

// fastObstacle says in words what keeps the kernel from forwarding fast-path
// flows, and what to do about it; "" for nothing. It changes nothing.
func fastObstacle(o Options) (obstacle, remedy string) {
	if o.Uplink == "" {
		return "no uplink is configured", "name the interface of the default route as uplink"
	}
	if _, err := os.Stat(kernelTypes); err != nil {
		return "the kernel publishes no type information", "use a kernel with CONFIG_DEBUG_INFO_BTF"
	}
	dev, err := findLink(o.Uplink)
	switch {
	case err != nil:
		return err.Error(), asRoot
	case dev == nil:
		return "there is no interface " + o.Uplink, "name the interface of the default route as uplink"
	case dev.Attrs().Flags&net.FlagUp == 0:
		return "uplink " + o.Uplink + " is down", "ip link set " + o.Uplink + " up"
	case dev.Attrs().Index == loopbackIndex || strings.HasPrefix(o.Uplink, strings.TrimSuffix(NamePattern, "*")):
		return "uplink " + o.Uplink + " leads nowhere", "name the interface of the default route as uplink"
	}
	if routed, err := routedBy(dev); err != nil {
		return err.Error(), asRoot
	} else if !routed {
		return "no default route is by uplink " + o.Uplink, "ip route show default; name its interface as uplink"
	}
	return forwardDroppers(o.Instance)
}

// routedBy tells whether a default route goes out by dev.
func routedBy(dev netlink.Link) (bool, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(dev, netlink.FAMILY_V4) })
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if isDefault(r.Dst) {
			return true, nil
		}
	}
	return false, nil
}

// forwardDroppers looks for other people's chains that drop forwarded packets by
// default and say nothing of the fast path's mark. What single rules drop cannot
// be known from here.
func forwardDroppers(instance string) (obstacle, remedy string) {
	accept := fmt.Sprintf("accept packets with mark %#x/%#x there, and established ones", gatewayMarkMARK_FORWARD, gatewayMarkMARK_MASK)
	c, err := nftables.New()
	if err != nil {
		return fmt.Sprintf("open nftables: %v", err), remedyFor(err, "modprobe nf_tables")
	}
	chains, err := c.ListChains()
	if err != nil {
		return fmt.Sprintf("list nftables chains: %v", err), remedyFor(err, "modprobe nf_tables")
	}
	for _, ch := range chains {
		if ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward || ch.Policy == nil ||
			*ch.Policy != nftables.ChainPolicyDrop || ch.Table.Name == instance || !seesIPv4(ch.Table.Family) {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil || !acceptsMark(rules) {
			return fmt.Sprintf("chain %s of table %s drops what is forwarded", ch.Name, ch.Table.Name), accept
		}
	}
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && strings.Contains(string(b), "filter") {
		return "rules of the older iptables are loaded, which cannot be seen from here", "move them to nftables: iptables-legacy-save"
	}
	return "", ""
}

func seesIPv4(f nftables.TableFamily) bool {
	return f == nftables.TableFamilyIPv4 || f == nftables.TableFamilyINet
}

// acceptsMark looks for a rule that compares with the fast path's mark and
// accepts.
func acceptsMark(rules []*nftables.Rule) bool {
	mark := binaryutil.NativeEndian.PutUint32(uint32(gatewayMarkMARK_FORWARD))
	for _, r := range rules {
		compares, accepts := false, false
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Cmp:
				compares = compares || e.Op == expr.CmpOpEq && bytes.Equal(e.Data, mark)
			case *expr.Verdict:
				accepts = e.Kind == expr.VerdictAccept
			}
		}
		if compares && accepts {
			return true
		}
	}
	return false
}

func probeFastPath(o Options) []Check {
	switch obstacle, remedy := fastObstacle(o); {
	case obstacle != "" && remedy == asRoot:
		return []Check{warned("fast path", "needs root to be looked at: "+obstacle, remedy)}
	case obstacle != "":
		return []Check{warned("fast path", obstacle+": passed-through flows take the relay", remedy)}
	}
	return []Check{passed("fast path", "by "+o.Uplink)}
}

// ensureForwarding lets the uplink forward replies while the fast path is used,
// and no longer. What the host forwards anyway is left alone: then the program
// is not who switched it on, and does not switch it off.
func (r *Redirect) ensureForwarding(use bool) (changed bool, err error) {
	var in gatewayInstance
	if err := r.objects.Instances.Lookup(uint32(0), &in); err != nil {
		return false, fmt.Errorf("read instance: %w", err)
	}
	before := in.Forwarding
	everywhere, err := readSysctl(filepath.Join(procSysNet, "ipv4/ip_forward"))
	if err != nil {
		return false, err
	}
	dev, err := findLink(r.options.Uplink)
	switch {
	case r.options.Uplink == "":
		return false, nil
	case err != nil:
		return false, err
	case dev == nil:
		in.Forwarding = 0
	default:
		path := forwardingOf(r.options.Uplink)
		index := uint32(dev.Attrs().Index)
		ours := in.Forwarding == index && everywhere == "0"
		if !ours {
			in.Forwarding = 0
		}
		now, err := readSysctl(path)
		if err != nil {
			return false, err
		}
		switch {
		case use && now == "0":
			if everywhere == "0" {
				in.Forwarding = index
			}
			// The note comes first: what is on and not noted would stay on.
			if err := r.objects.Instances.Put(uint32(0), in); err != nil {
				return false, fmt.Errorf("write instance: %w", err)
			}
			return true, writeSysctl(path, "1")
		case !use && ours:
			in.Forwarding = 0
			changed, err = ensureSysctl(path, "0")
			if err != nil {
				return changed, err
			}
		}
	}
	if in.Forwarding != before {
		if err := r.objects.Instances.Put(uint32(0), in); err != nil {
			return changed, fmt.Errorf("write instance: %w", err)
		}
	}
	return changed, nil
}

func forwardingOf(ifname string) string {
	return filepath.Join(procSysNet, "ipv4/conf", ifname, "forwarding")
}

// forwardsForUs tells whether the uplink forwards only because of the fast path,
// so that everything else that would be forwarded from it must be dropped.
func (r *Redirect) forwardsForUs() (bool, error) {
	var in gatewayInstance
	if err := r.objects.Instances.Lookup(uint32(0), &in); err != nil {
		return false, fmt.Errorf("read instance: %w", err)
	}
	return in.Forwarding != 0, nil
}
