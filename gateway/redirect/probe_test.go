package redirect

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"gatewayd/lab/privileged"
)

func find(checks []Check, name string) (Check, bool) {
	for _, c := range checks {
		if c.Name == name {
			return c, true
		}
	}
	return Check{}, false
}

// TestProbeOnAGoodMachine expects nothing but the state of the clock to be
// other than well, and a remedy wherever it is not.
func TestProbeOnAGoodMachine(t *testing.T) {
	s := newStage(t, func(o *Options) { o.Uplink = "up0" })
	for _, c := range Probe(t.Context(), s.options) {
		t.Logf("%-16s %-5s %s", c.Name, c.Status, c.Detail)
		if c.Status != Pass && c.Name != "clock" && c.Name != "iptables" {
			t.Errorf("%+v", c)
		}
		if c.Status != Pass && c.Remedy == "" {
			t.Errorf("no remedy: %+v", c)
		}
	}
}

func TestProbeSeesObstacles(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF)
	nft := func(t *testing.T, line string) {
		t.Helper()
		if out, err := exec.Command("nft", line).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v: %s", line, err, out)
		}
	}
	rule := func(t *testing.T, priority int, mark, table int) {
		t.Helper()
		r := netlink.NewRule()
		r.Family, r.Priority, r.Mark, r.Table = netlink.FAMILY_V4, priority, uint32(mark), table
		must(t, netlink.RuleAdd(r))
		t.Cleanup(func() { must(t, netlink.RuleDel(r)) })
	}
	tests := []struct {
		name, check string
		status      CheckStatus
		options     Options
		obstruct    func(t *testing.T)
	}{
		{"forward policy", "firewall forward", Warn, Options{}, func(t *testing.T) {
			nft(t, "table ip docker { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
			t.Cleanup(func() { nft(t, "delete table ip docker") })
		}},
		{"input policy", "firewall input", Warn, Options{}, func(t *testing.T) {
			nft(t, "table inet ufw { chain INPUT { type filter hook input priority 0; policy drop; }; }")
			t.Cleanup(func() { nft(t, "delete table inet ufw") })
		}},
		{"output policy", "firewall output", Warn, Options{}, func(t *testing.T) {
			nft(t, "table inet strict { chain OUTPUT { type filter hook output priority 0; policy drop; }; }")
			t.Cleanup(func() { nft(t, "delete table inet strict") })
		}},
		{"rule that takes all", "routing rules", Warn, Options{}, func(t *testing.T) { rule(t, 100, 0, 77) }},
		{"rule of the same mark", "routing rules", Warn, Options{}, func(t *testing.T) { rule(t, 100, int(gatewayMarkMARK_INTERCEPT), 77) }},
		{"rule of our priority", "routing rules", Fail, Options{}, func(t *testing.T) { rule(t, rulePriority, 0x77, 77) }},
		{"no uplink", "uplink", Warn, Options{Uplink: "nowhere0"}, func(*testing.T) {}},
		{"no bpffs", "bpffs", Fail, Options{BPFFS: "/proc/gatewayd"}, func(*testing.T) {}},
		{"bad option", "options", Fail, Options{Instance: "a b"}, func(*testing.T) {}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tc.obstruct(t)
			c, ok := find(Probe(t.Context(), tc.options), tc.check)
			if !ok || c.Status != tc.status || c.Remedy == "" {
				t.Errorf("check is %+v, want status %s and a remedy", c, tc.status)
			}
		})
	}
}

// TestRulesThatDoNotMatter are left without a word.
func TestRulesThatDoNotMatter(t *testing.T) {
	mask := uint32(0x000000ff)
	for _, r := range []netlink.Rule{
		{Priority: 100, Mark: 0x77, Mask: &mask},
		{Priority: 100, Mark: 0x77},
		{Priority: 100, IifName: "eth1"},
	} {
		if takesMark(&r) {
			t.Errorf("rule %v is said to take the mark", r)
		}
	}
}

// TestConfigRefusals has one entry per refusal, each with what the error says.
func TestConfigRefusals(t *testing.T) {
	base := (&stage{t: t}).link(1)
	tests := []struct {
		name, want string
		change     func(*Link)
	}{
		{"no bottle", "no name", func(l *Link) { l.Bottle = "" }},
		{"no interface", "interface name", func(l *Link) { l.Name = "" }},
		{"long interface", "interface name", func(l *Link) { l.Name = "gw-0123456789abc" }},
		{"slash", "interface name", func(l *Link) { l.Name = "gw/b" }},
		{"pattern", "interface name", func(l *Link) { l.Name = "gw-*" }},
		{"template", "interface name", func(l *Link) { l.Name = "gw%d" }},
		{"kind", "unknown", func(l *Link) { l.Kind = 9 }},
		{"relative namespace", "absolute path", func(l *Link) { l.Netns = "ns" }},
		{"namespace of a tap", "leave it out", func(l *Link) { l.Kind = Tap }},
		{"mtu", "write 576 to 65535", func(l *Link) { l.MTU = 575 }},
		{"short mac", "six bytes", func(l *Link) { l.MAC = l.MAC[:5] }},
		{"multicast mac", "unicast", func(l *Link) { l.MAC = multicast }},
		{"zero mac", "unicast", func(l *Link) { l.MAC = nobodyMAC }},
		{"no port", "neither 0", func(l *Link) { l.InterceptPort = 0 }},
		{"same ports", "two different", func(l *Link) { l.InterceptPort = l.DNSPort }},
		{"IPv6 guest", "IPv4", func(l *Link) { l.Guest = netip.MustParseAddr("fd00::2") }},
		{"no gateway", "IPv4", func(l *Link) { l.Gateway = netip.Addr{} }},
		{"bits", "write 8 to 30", func(l *Link) { l.Bits = 31 }},
		{"same addresses", "two addresses", func(l *Link) { l.Guest = l.Gateway }},
		{"loopback", "unicast", func(l *Link) { l.Guest, l.Gateway = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2") }},
		{"off link", "not on the link", func(l *Link) { l.Guest = called }},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			l := base
			tc.change(&l)
			if err := l.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want an error with %q", err, tc.want)
			}
		})
	}
	if err := base.Validate(); err != nil {
		t.Errorf("a good link: %v", err)
	}
}

// TestConfigClashes gives two links the same of each thing that must differ.
func TestConfigClashes(t *testing.T) {
	s := &stage{t: t}
	for _, tc := range []struct {
		want   string
		change func(a, b *Link)
	}{
		{"the name", func(a, b *Link) { b.Bottle = a.Bottle }},
		{"interface", func(a, b *Link) { b.Name = a.Name }},
		{"namespace", func(a, b *Link) { b.Netns = a.Netns + "/" }},
		{"subnet", func(a, b *Link) { b.Guest, b.Gateway = a.Guest, a.Gateway }},
	} {
		a, b := s.link(1), s.link(2)
		tc.change(&a, &b)
		if err := (Config{Links: []Link{a, b}}).Validate(); err == nil || !strings.Contains(err.Error(), tc.want+" ") {
			t.Errorf("%v, want an error with %q", err, tc.want)
		}
	}
}
