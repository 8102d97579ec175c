package redirect

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The ports that fast-path flows leave by. They are below those that the kernel
// gives to the host's own connections (net.ipv4.ip_local_port_range, 32768 to
// 60999), so that neither can take the other's replies, and there are enough of
// them for the connections that conntrack still remembers when they are over:
// with some thousand it would have to search for a free one at every SYN.
const (
	translatePortMin = 10240
	translatePortMax = 32767
)

const (
	tcpOptionMSS    = 2 // RFC 9293 section 3.2
	tcpFlagsOffset  = 13
	tcpFlagSYN      = 0x02
	portRegisterMin = register
	portRegisterMax = register + 1
)

// connState matches packets whose connection is in one of the states.
func connState(states uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(states),
			Xor:  binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}

// replies matches packets in the direction opposite to the connection's first.
func replies() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{1}}, // IP_CT_DIR_REPLY
	}
}

func protocol(p byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{p}},
	}
}

// clampMSS lowers the segment size that a SYN announces to what the route takes.
func clampMSS() []expr.Any {
	return concat(protocol(unix.IPPROTO_TCP), []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{tcpFlagSYN}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: []byte{0}},
		&expr.Rt{Register: register, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: register, Type: tcpOptionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	})
}

// toBottle lets through what answers a fast-path flow, and the ICMP errors that
// concern one; both only from an uplink.
func toBottle() [][]expr.Any {
	fromUplink := nameIn(expr.MetaKeyIIFNAME, setUplinks)
	return [][]expr.Any{
		concat(family(expr.CmpOpNeq, unix.NFPROTO_IPV4), drop()),
		concat(connState(expr.CtStateBitINVALID), drop()),
		concat(fromUplink, replies(), connState(expr.CtStateBitESTABLISHED), clampMSS()),
		concat(fromUplink, protocol(unix.IPPROTO_TCP), replies(), connState(expr.CtStateBitESTABLISHED), counted(expr.VerdictAccept, "")),
		concat(fromUplink, protocol(unix.IPPROTO_ICMP), connState(expr.CtStateBitRELATED), counted(expr.VerdictAccept, "")),
		drop(),
	}
}

// addTranslation gives fast-path flows the uplink's address, and a random port
// of the range. Without fully-random the kernel keeps a port of the bottle's that
// is in the range (get_unique_tuple in nf_nat_core.c), so that a bottle could
// choose by which one its flows leave (CVE-2021-3773).
func (r *ruleset) addTranslation() {
	policy, priority := nftables.ChainPolicyAccept, *nftables.ChainPriorityNATSource
	c := &nftables.Chain{Table: r.table, Name: chainTranslate, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: &priority, Policy: &policy}
	port := func(register uint32, p uint16) expr.Any {
		return &expr.Immediate{Register: register, Data: binary.BigEndian.AppendUint16(nil, p)}
	}
	r.chains = append(r.chains, filledChain{c, [][]expr.Any{concat(
		family(expr.CmpOpEq, unix.NFPROTO_IPV4), markIs(expr.CmpOpEq, gatewayMarkMARK_FORWARD),
		nameIn(expr.MetaKeyOIFNAME, setUplinks), protocol(unix.IPPROTO_TCP),
		[]expr.Any{
			port(portRegisterMin, translatePortMin), port(portRegisterMax, translatePortMax),
			&expr.Masq{ToPorts: true, FullyRandom: true, RegProtoMin: portRegisterMin, RegProtoMax: portRegisterMax},
		},
	)}})
}
