package redirect

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// randomise sets the flag fully-random on the rule that translates.
// github.com/google/nftables leaves a masquerade's flags out where it has ports,
// so the rule is put in its own place once more, in a transaction of its own. The
// comparison that follows reads the flag back.
func (r *ruleset) randomise() error {
	i := slices.IndexFunc(r.chains, func(c filledChain) bool { return c.chain.Name == chainTranslate })
	if i < 0 {
		return nil
	}
	translate := r.chains[i]
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	rules, err := c.GetRules(r.table, translate.chain)
	if err != nil {
		return fmt.Errorf("list nftables chain %s: %w", chainTranslate, err)
	}
	if len(rules) != len(translate.rules) {
		return fmt.Errorf("list nftables chain %s: %d rules, and %d were written", chainTranslate, len(rules), len(translate.rules))
	}
	batch := []netlink.Message{batchMessage(unix.NFNL_MSG_BATCH_BEGIN)}
	for n, exprs := range translate.rules {
		m, err := r.replacement(rules[n].Handle, exprs)
		if err != nil {
			return fmt.Errorf("build rule of nftables chain %s: %w", chainTranslate, err)
		}
		batch = append(batch, m)
	}
	if err := transact(append(batch, batchMessage(unix.NFNL_MSG_BATCH_END))); err != nil {
		return fmt.Errorf("apply fully-random to nftables chain %s: %w", chainTranslate, err)
	}
	return nil
}

// transact sends a batch and waits for the answer to each message that asks for one.
func transact(batch []netlink.Message) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.SendMessages(batch); err != nil {
		return err
	}
	for range len(batch) - 2 { // but for its beginning and its end
		if _, err := conn.Receive(); err != nil {
			return err
		}
	}
	return nil
}

// nfgenmsg is the header of messages for nftables (linux/netfilter/nfnetlink.h).
func nfgenmsg(family byte, resource uint16) []byte {
	return append([]byte{family, unix.NFNETLINK_V0}, binaryutil.BigEndian.PutUint16(resource)...)
}

// batchMessage begins or ends a transaction.
func batchMessage(kind netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: nfgenmsg(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES),
	}
}

// replacement puts the expressions in place of those of the rule with this handle.
func (r *ruleset) replacement(handle uint64, exprs []expr.Any) (netlink.Message, error) {
	family := byte(r.table.Family)
	a := netlink.NewAttributeEncoder()
	a.String(unix.NFTA_RULE_TABLE, r.table.Name)
	a.String(unix.NFTA_RULE_CHAIN, chainTranslate)
	a.Bytes(unix.NFTA_RULE_HANDLE, binaryutil.BigEndian.PutUint64(handle))
	a.Nested(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) error {
		for _, e := range exprs {
			b, err := marshalExpr(family, e)
			if err != nil {
				return err
			}
			list.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, b)
		}
		return nil
	})
	data, err := a.Encode()
	return netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Replace,
		},
		Data: append(nfgenmsg(family, 0), data...),
	}, err
}

// marshalExpr is expr.Marshal, but for a masquerade with ports and flags.
func marshalExpr(family byte, e expr.Any) ([]byte, error) {
	m, ok := e.(*expr.Masq)
	if !ok || !m.FullyRandom {
		return expr.Marshal(family, e)
	}
	a := netlink.NewAttributeEncoder()
	a.String(unix.NFTA_EXPR_NAME, "masq")
	a.Nested(unix.NFTA_EXPR_DATA, func(data *netlink.AttributeEncoder) error {
		for kind, v := range map[uint16]uint32{
			unix.NFTA_MASQ_FLAGS:         expr.NF_NAT_RANGE_PROTO_SPECIFIED | expr.NF_NAT_RANGE_PROTO_RANDOM_FULLY,
			unix.NFTA_MASQ_REG_PROTO_MIN: m.RegProtoMin,
			unix.NFTA_MASQ_REG_PROTO_MAX: m.RegProtoMax,
		} {
			data.Bytes(kind, binaryutil.BigEndian.PutUint32(v))
		}
		return nil
	})
	return a.Encode()
}
