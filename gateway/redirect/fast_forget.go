package redirect

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tracker deletes entries of connection tracking, in the namespace that it was made in. One goroutine at a time may use it.
type tracker struct {
	sockets map[int]*nl.SocketHandle
}

// newTracker opens the socket that all requests share. The caller closes.
func newTracker() (*tracker, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink to connection tracking: %w", err)
	}
	t := &tracker{map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}}
	if err := errors.Join(s.SetSendTimeout(&nl.SocketTimeoutTv), s.SetReceiveTimeout(&nl.SocketTimeoutTv)); err != nil {
		t.Close()
		return nil, fmt.Errorf("set time-outs of netlink: %w", err)
	}
	return t, nil
}

// Close gives the socket back.
func (t *tracker) Close() { t.sockets[unix.NETLINK_NETFILTER].Close() }

// forget deletes the entry of the TCP connection that src began to dst, if there is one. It names the entry to the kernel, which
// finds it by its hash; netlink.ConntrackDeleteFilters reads the whole table for that (Linux, ctnetlink_del_conntrack in
// net/netfilter/nf_conntrack_netlink.c).
func (t *tracker) forget(src, dst netip.AddrPort) error {
	req := nl.NewNetlinkRequest(int(netlink.ConntrackTable)<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.Sockets = t.sockets
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	tuple := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
	addrs := tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil)
	addrs.AddRtAttr(nl.CTA_IP_V4_SRC, src.Addr().AsSlice())
	addrs.AddRtAttr(nl.CTA_IP_V4_DST, dst.Addr().AsSlice())
	proto := tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
	proto.AddRtAttr(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_TCP})
	proto.AddRtAttr(nl.CTA_PROTO_SRC_PORT, nl.BEUint16Attr(src.Port()))
	proto.AddRtAttr(nl.CTA_PROTO_DST_PORT, nl.BEUint16Attr(dst.Port()))
	req.AddData(tuple)
	if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget connection from %v to %v: %w", src, dst, err)
	}
	return nil
}
