package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeQuery asks the kernel where addresses are routed to, in the namespace that it was made in. A guest waits for the answer,
// so the socket is kept. One goroutine at a time may use it.
type routeQuery struct {
	fd  int
	seq uint32
}

// routeReply is more than the kernel says of one route.
const routeReply = 4 << 10

// newRouteQuery opens the socket. The caller closes.
func newRouteQuery() (*routeQuery, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink to routes: %w", err)
	}
	q := &routeQuery{fd: fd}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &nl.SocketTimeoutTv); err != nil {
		return nil, errors.Join(fmt.Errorf("set time-out of netlink: %w", err), q.Close())
	}
	return q, nil
}

// Close gives the socket back.
func (q *routeQuery) Close() error { return unix.Close(q.fd) }

// indexOf returns the number of the interface of that name.
func (q *routeQuery) indexOf(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("find interface %q: %w", name, err)
	}
	if err := unix.IoctlIfreq(q.fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

// leavesBy tells whether forwarded packets of the fast path to addr go out by the interface. An error is a no.
func (q *routeQuery) leavesBy(addr netip.Addr, index int) bool {
	q.seq++
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, 0)
	req.Seq = q.seq
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Dst_len: 32}})
	req.AddData(nl.NewRtAttr(unix.RTA_DST, addr.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_MARK, nl.Uint32Attr(uint32(gatewayMarkMARK_FORWARD))))
	if err := unix.Sendto(q.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false
	}
	var buf [routeReply]byte
	for {
		n, from, err := unix.Recvfrom(q.fd, buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != nl.PidKernel {
			continue
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return false
		}
		for i := range messages {
			if messages[i].Header.Seq == q.seq {
				return routesTo(&messages[i], uint32(index))
			}
		}
	}
}

// routesTo tells whether m is a unicast route by the interface alone.
func routesTo(m *syscall.NetlinkMessage, index uint32) bool {
	if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg || nl.DeserializeRtMsg(m.Data).Type != unix.RTN_UNICAST {
		return false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return false
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.RTA_OIF && len(a.Value) == 4 {
			return nl.NativeEndian().Uint32(a.Value) == index
		}
	}
	return false
}
