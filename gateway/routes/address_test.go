package routes

import (
	"errors"
	"net/netip"
	"testing"
)

func TestClassify(t *testing.T) {
	for class, addrs := range map[AddrClass][]string{
		Public: {
			"8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
			"169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.31.196.1", "192.52.193.1", "192.175.48.1",
			"192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.17",
			"2606:4700::1111", "2001:200::1", "2620:4f:8000::1", "2a00::1", "3ffe::1",
			"::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
		},
		Loopback: {
			"127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1",
			"64:ff9b::127.0.0.1", "2002:7f00:1::", "2002:7f00:1::8.8.8.8", "2001:0:808:808:0:0:80ff:fffe",
		},
		Private:       {"10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fec0::1", "::ffff:10.1.2.3", "64:ff9b::192.168.0.1", "2002:a01:203::1"},
		ULA:           {"fc00::1", "fdff::1"},
		CGNAT:         {"100.64.0.0", "100.127.255.255", "::ffff:100.64.0.1"},
		LinkLocal:     {"169.254.0.1", "169.254.255.255", "fe80::1", "fe80::1%eth0", "febf::1"},
		Metadata:      {"169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "::169.254.169.254", "2001:0:0:0:0:0:5601:5601"},
		Benchmark:     {"198.18.0.1", "198.19.255.255", "2001:2::1"},
		Documentation: {"192.0.2.1", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff::1"},
		Multicast:     {"224.0.0.1", "239.255.255.255", "233.252.0.1", "ff02::1", "::ffff:224.0.0.1"},
		Broadcast:     {"255.255.255.255", "::ffff:255.255.255.255"},
		Unspecified:   {"0.0.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::"},
		Reserved: {
			"0.0.0.1", "0.255.255.255", "192.0.0.1", "192.0.0.9", "192.88.99.1", "240.0.0.1", "255.255.255.254",
			"100::1", "100:0:0:1::1", "64:ff9b:1::1", "2001::808:808", "2001:10::1", "2001:20::1", "2001:30::1", "2001:1::1",
			"2002:808:808::1", "::8.8.8.8", "::ffff:0:8.8.8.8", "5f00::1", "4000::1", "1::1", "fbff::1",
		},
	} {
		for _, s := range addrs {
			if got := Classify(netip.MustParseAddr(s)); got != class {
				t.Errorf("Classify(%s) = %s, want %s", s, got, class)
			}
		}
	}
	if Classify(netip.Addr{}) != Invalid {
		t.Error("the zero address has a class")
	}
}

func TestAddrClassNames(t *testing.T) {
	seen := make(map[string]bool)
	for c := range addrClasses {
		if s := c.String(); s == "" || seen[s] {
			t.Errorf("class %d has the name %q", c, s)
		} else {
			seen[s] = true
		}
	}
	if AddrClass(200).String() != "invalid" {
		t.Error("a class out of range has a name")
	}
}

func TestGuard(t *testing.T) {
	prefixes := func(ss ...string) (ps []netip.Prefix) {
		for _, s := range ss {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		return ps
	}
	self := func(a netip.Addr) bool {
		return a == netip.MustParseAddr("203.0.114.7") || a == netip.MustParseAddr("198.18.0.1") || a == netip.MustParseAddr("127.0.0.1")
	}
	all := prefixes("0.0.0.0/0", "::/0")
	for _, c := range []struct {
		name   string
		ranges []netip.Prefix
		self   bool // whether the guard knows the host's addresses
		addr   string
		public bool // allowed without allow_private
		priv   bool // allowed with it
	}{
		{"public", nil, true, "8.8.8.8", true, true},
		{"public v6", nil, true, "2606:4700::1", true, true},
		{"private", nil, false, "10.0.0.1", false, true},
		{"ula", nil, false, "fd12::1", false, true},
		{"cgnat", nil, false, "100.64.0.1", false, true},
		{"benchmark", nil, false, "198.18.0.2", false, true},
		{"mapped private", nil, false, "::ffff:10.0.0.1", false, true},
		{"link-local", nil, false, "169.254.1.1", false, false},
		{"link-local v6", nil, false, "fe80::1", false, false},
		{"metadata", nil, false, "169.254.169.254", false, false},
		{"metadata v6", nil, false, "fd00:ec2::254", false, false},
		{"metadata in cgnat", nil, false, "100.100.100.200", false, false},
		{"metadata mapped", nil, false, "::ffff:169.254.169.254", false, false},
		{"metadata by NAT64", nil, false, "64:ff9b::169.254.169.254", false, false},
		{"loopback", nil, false, "127.0.0.1", false, false},
		{"loopback v6", nil, false, "::1", false, false},
		{"loopback mapped", nil, false, "::ffff:127.0.0.1", false, false},
		{"unspecified", nil, false, "0.0.0.0", false, false},
		{"documentation", nil, false, "192.0.2.1", false, false},
		{"reserved", nil, false, "240.0.0.1", false, false},
		{"self in public space", nil, true, "203.0.114.7", false, false},
		{"self in private space", nil, true, "198.18.0.1", false, false},
		{"self by NAT64", nil, true, "64:ff9b::203.0.114.7", false, false},
		{"range", prefixes("198.18.0.0/15"), true, "198.18.0.2", true, true},
		{"range mapped", prefixes("198.18.0.0/15"), true, "::ffff:198.18.0.2", true, true},
		{"range does not name self", prefixes("198.18.0.0/15"), true, "198.18.0.1", false, false},
		{"range names self", prefixes("198.18.0.1/32"), true, "198.18.0.1", true, true},
		{"range names loopback", prefixes("127.0.0.0/8"), false, "127.0.0.2", true, true},
		{"range names loopback, not self", prefixes("127.0.0.0/8"), true, "127.0.0.1", false, false},
		{"range of link-local", prefixes("169.254.0.0/16"), false, "169.254.1.1", true, true},
		{"range does not name metadata", prefixes("169.254.0.0/16"), false, "169.254.169.254", false, false},
		{"range names metadata", prefixes("169.254.169.254/32"), false, "169.254.169.254", true, true},
		{"everything: private", all, false, "10.0.0.1", true, true},
		{"everything: loopback", all, false, "127.0.0.1", false, false},
		{"everything: loopback v6", all, false, "::1", false, false},
		{"everything: metadata", all, false, "169.254.169.254", false, false},
		{"everything: self", all, true, "203.0.114.7", false, false},
		{"everything: unspecified", all, false, "0.0.0.0", false, false},
		{"everything: multicast", all, false, "224.0.0.1", false, false},
		{"everything: broadcast", all, false, "255.255.255.255", false, false},
	} {
		g := Guard{AllowRanges: c.ranges}
		if c.self {
			g.Self = self
		}
		a := netip.MustParseAddr(c.addr)
		for allow, want := range map[bool]bool{false: c.public, true: c.priv} {
			err := g.Check(a, allow)
			if (err == nil) != want {
				t.Errorf("%s: Check(%s, %v) = %v", c.name, a, allow, err)
			}
			var ae *AddrError
			if err != nil && (!errors.As(err, &ae) || ae.Addr != a.Unmap() || ae.Class != Classify(a) || err.Error() == "") {
				t.Errorf("%s: error %#v", c.name, err)
			}
		}
	}
	if (Guard{}).Check(netip.Addr{}, true) == nil {
		t.Error("the zero address passes")
	}
}

// FuzzClassify checks that no spelling of an IPv4 address inside an IPv6 one
// is judged more kindly than the address itself.
func FuzzClassify(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add([]byte{169, 254, 169, 254})
	f.Add([]byte{8, 8, 8, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 4 {
			return
		}
		a4 := netip.AddrFrom4([4]byte(b[:4]))
		plain := Classify(a4)
		var guard Guard
		for _, head := range [][]byte{
			{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff},
			{0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0},
			{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0},
		} {
			a6 := netip.AddrFrom16([16]byte(append(append([]byte{}, head...), b[:4]...)))
			class := Classify(a6)
			if class != plain && !(plain == Public && class == Reserved) {
				t.Fatalf("%s is %s, %s is %s", a4, plain, a6, class)
			}
			if guard.Check(a4, true) != nil && guard.Check(a6, true) == nil {
				t.Fatalf("%s is refused, %s passes", a4, a6)
			}
		}
	})
}
