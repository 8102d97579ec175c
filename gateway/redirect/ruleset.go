package redirect

import (
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names in the table. fromBottle also tells one instance's table from a
// stranger's.
const (
	setLinks   = "links"
	setUplinks = "uplinks"
	setSpecial = "special"
	setGuarded = "guarded" // uplinks that forward for the fast path alone

	chainForward    = "forward"
	chainInput      = "input"
	chainOutput     = "output"
	chainFromBottle = "from_bottle"
	chainToBottle   = "to_bottle"
	chainToHost     = "to_host"
	chainFromSocket = "from_socket"
	chainTranslate  = "translate"
)

// chainPriority is ahead of the usual filter chains (0), so that counters here
// see what the bottle sent before anyone else drops it. An accept here ends
// only this chain: others may still drop.
const chainPriority nftables.ChainPriority = -10

// specialRanges are destinations to which nothing is forwarded, whatever its
// mark: RFC 6890's "this network", private, shared, loopback and link-local
// blocks (the last holds the metadata services), multicast and reserved.
var specialRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

// ruleset is the whole second layer as data, so that it can be applied in one
// transaction and compared with what the kernel has.
type ruleset struct {
	table  *nftables.Table
	sets   []filledSet
	chains []filledChain
}

type filledSet struct {
	set      *nftables.Set
	elements []nftables.SetElement
}

type filledChain struct {
	chain *nftables.Chain
	rules [][]expr.Any
}

// newRuleset builds the table for the links named, besides those that match
// NamePattern. Without the fast path nothing is forwarded at all.
func newRuleset(f firewall, links []string) *ruleset {
	r := &ruleset{table: &nftables.Table{Name: f.instance, Family: nftables.TableFamilyINet}}
	var uplinks []string
	if f.uplink != "" && f.fast {
		uplinks = []string{f.uplink}
	}
	r.addNames(setLinks, links)
	r.addNames(setUplinks, uplinks)
	var guarded []string
	if f.guard {
		guarded = []string{f.uplink}
	}
	r.addNames(setGuarded, guarded)
	r.addRanges(setSpecial, specialRanges)

	r.addChain(chainFromBottle, nil,
		concat(family(expr.CmpOpNeq, unix.NFPROTO_IPV4), drop()),
		concat(family(expr.CmpOpEq, unix.NFPROTO_IPV4), destinationIn(setSpecial), drop()),
		concat(markIs(expr.CmpOpNeq, gatewayMarkMARK_FORWARD), drop()),
		concat(connState(expr.CtStateBitINVALID), drop()),
		concat(nameIn(expr.MetaKeyOIFNAME, setUplinks), clampMSS()),
		concat(nameIn(expr.MetaKeyOIFNAME, setUplinks), counted(expr.VerdictAccept, "")),
		drop(),
	)
	r.addChain(chainToBottle, nil, toBottle()...)
	r.addChain(chainToHost, nil,
		concat(family(expr.CmpOpEq, unix.NFPROTO_IPV4), markIs(expr.CmpOpEq, gatewayMarkMARK_INTERCEPT), counted(expr.VerdictAccept, "")),
		drop(),
	)
	r.addChain(chainFromSocket, nil,
		concat(nameLike(expr.MetaKeyOIFNAME), counted(expr.VerdictAccept, "")),
		concat(nameIn(expr.MetaKeyOIFNAME, setLinks), counted(expr.VerdictAccept, "")),
		drop(),
	)
	r.addChain(chainForward, nftables.ChainHookForward,
		concat(nameLike(expr.MetaKeyIIFNAME), goTo(chainFromBottle)),
		concat(nameIn(expr.MetaKeyIIFNAME, setLinks), goTo(chainFromBottle)),
		concat(nameLike(expr.MetaKeyOIFNAME), goTo(chainToBottle)),
		concat(nameIn(expr.MetaKeyOIFNAME, setLinks), goTo(chainToBottle)),
		concat(nameIn(expr.MetaKeyIIFNAME, setGuarded), drop()),
	)
	if f.fast {
		r.addTranslation()
	}
	r.addChain(chainInput, nftables.ChainHookInput,
		concat(nameLike(expr.MetaKeyIIFNAME), goTo(chainToHost)),
		concat(nameIn(expr.MetaKeyIIFNAME, setLinks), goTo(chainToHost)),
	)
	// What the gateway's transparent sockets send is for a bottle. When its
	// link is gone the route to it is the default route; and whoever calls the
	// sockets from another side must not be answered.
	r.addChain(chainOutput, nftables.ChainHookOutput,
		concat(markIs(expr.CmpOpEq, gatewayMarkMARK_SOCKET), goTo(chainFromSocket)),
	)
	return r
}

func (r *ruleset) addNames(name string, interfaces []string) {
	set := &nftables.Set{Table: r.table, Name: name, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
	elements := make([]nftables.SetElement, 0, len(interfaces))
	for _, s := range interfaces {
		elements = append(elements, nftables.SetElement{Key: paddedName(s)})
	}
	r.sets = append(r.sets, filledSet{set, elements})
}

// addRanges needs prefixes in ascending order. An interval is a start and an
// exclusive end; one that reaches the last address has no end.
func (r *ruleset) addRanges(name string, prefixes []netip.Prefix) {
	set := &nftables.Set{Table: r.table, Name: name, KeyType: nftables.TypeIPAddr, Interval: true, KeyByteOrder: binaryutil.BigEndian}
	var elements []nftables.SetElement
	for _, p := range prefixes {
		elements = append(elements, nftables.SetElement{Key: p.Masked().Addr().AsSlice()})
		if end := lastAddr(p).Next(); end.IsValid() {
			elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	r.sets = append(r.sets, filledSet{set, elements})
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func (r *ruleset) addChain(name string, hook *nftables.ChainHook, rules ...[]expr.Any) {
	c := &nftables.Chain{Table: r.table, Name: name}
	if hook != nil {
		policy, priority := nftables.ChainPolicyAccept, chainPriority
		c.Type, c.Hooknum, c.Priority, c.Policy = nftables.ChainTypeFilter, hook, &priority, &policy
	}
	r.chains = append(r.chains, filledChain{c, rules})
}

// paddedName is an interface name as the kernel compares it: IFNAMSIZ bytes.
func paddedName(s string) []byte { return append([]byte(s), make([]byte, maxNameLen+1-len(s))...) }

func concat(parts ...[]expr.Any) []expr.Any {
	var rule []expr.Any
	for _, p := range parts {
		rule = append(rule, p...)
	}
	return rule
}

const register = 1 // NFT_REG_1, 16 bytes wide

// nameLike matches NamePattern: a comparison of fewer bytes than the register
// has is one of the prefix.
func nameLike(key expr.MetaKey) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte(strings.TrimSuffix(NamePattern, "*"))},
	}
}

func nameIn(key expr.MetaKey, set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: register},
		&expr.Lookup{SourceRegister: register, SetName: set},
	}
}

func family(op expr.CmpOp, proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		&expr.Cmp{Op: op, Register: register, Data: []byte{proto}},
	}
}

func markIs(op expr.CmpOp, m gatewayMark) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(uint32(gatewayMarkMARK_MASK)),
			Xor:  binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: op, Register: register, Data: binaryutil.NativeEndian.PutUint32(uint32(m))},
	}
}

// destinationIn looks up the destination address (RFC 791, offset 16).
func destinationIn(set string) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Lookup{SourceRegister: register, SetName: set},
	}
}

func counted(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind, Chain: chain}}
}

func drop() []expr.Any { return counted(expr.VerdictDrop, "") }

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}
