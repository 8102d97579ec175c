package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// UDPConn is a transparent UDP socket: it receives datagrams for any address,
// tells which, and answers from there. Its methods may be called concurrently.
type UDPConn struct {
	conn *net.UDPConn
	port uint16
}

// ListenUDP opens the socket for a link's DNS datagrams. addr is the link's
// Gateway address with its DNSPort; the address need not exist yet. As for
// ListenTCP, the datapath gives datagrams only to a socket made here, and
// CAP_NET_ADMIN is needed. The caller closes the result.
func ListenUDP(ctx context.Context, addr netip.AddrPort) (*UDPConn, error) {
	if err := checkListenAddr(addr); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if err := markTransparent(network, address, c); err != nil {
			return err
		}
		var err error
		control := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1)
		})
		return errors.Join(control, err)
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", addr.String())
	if err != nil {
		return nil, listenError("udp", addr, err)
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen udp %v: got a %T", addr, pc), pc.Close())
	}
	return &UDPConn{conn: conn, port: addr.Port()}, nil
}

// oobSize holds one address control message, in or out, and leaves room for
// more that nobody asked for.
const oobSize = 128

// ReadFrom reads one datagram into b and returns its length, its sender and the
// address that the sender called. A datagram longer than b is cut. It blocks
// until there is one or the socket is closed (net.ErrClosed).
func (c *UDPConn) ReadFrom(b []byte) (n int, src, dst netip.AddrPort, err error) {
	var oob [oobSize]byte
	n, oobn, _, src, err := c.conn.ReadMsgUDPAddrPort(b, oob[:])
	if err != nil {
		return 0, netip.AddrPort{}, netip.AddrPort{}, fmt.Errorf("read datagram: %w", err)
	}
	src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
	dst, err = originalDestination(oob[:oobn])
	if err != nil {
		return 0, netip.AddrPort{}, netip.AddrPort{}, err
	}
	return n, src, dst, nil
}

// originalDestination finds the address in the control messages of a datagram
// (ip(7), IP_RECVORIGDSTADDR).
func originalDestination(oob []byte) (netip.AddrPort, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("parse control messages: %w", err)
	}
	for i := range messages {
		if messages[i].Header.Level != unix.SOL_IP || messages[i].Header.Type != unix.IP_ORIGDSTADDR {
			continue
		}
		sa, err := unix.ParseOrigDstAddr(&messages[i])
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("parse original destination: %w", err)
		}
		if sa4, ok := sa.(*unix.SockaddrInet4); ok {
			return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), uint16(sa4.Port)), nil
		}
	}
	return netip.AddrPort{}, errors.New("read datagram: the kernel gave no original destination")
}

// WriteTo answers a datagram that ReadFrom returned: it sends b to src, as if it
// came from dst. Names and order are those of ReadFrom.
func (c *UDPConn) WriteTo(b []byte, src, dst netip.AddrPort) (int, error) {
	if !src.Addr().Is4() || !dst.Addr().Is4() {
		return 0, fmt.Errorf("answer %v from %v: write IPv4 addresses", src, dst)
	}
	if dst.Port() != c.port {
		return answerFrom(b, src, dst)
	}
	// ip(7): ipi_spec_dst is the source address of a datagram that is sent,
	// and with IP_TRANSPARENT it need not be one of the host's.
	info := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: dst.Addr().As4()})
	n, _, err := c.conn.WriteMsgUDPAddrPort(b, info, src)
	if err != nil {
		return n, fmt.Errorf("write datagram: %w", err)
	}
	return n, nil
}

// answerFrom sends one datagram from a port that is not the socket's own, as is
// needed when the resolver listens on another port than the one that bottles
// call. The socket it uses is bound to the full foreign address.
func answerFrom(b []byte, src, dst netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	for _, option := range []struct{ level, name int }{{unix.SOL_IP, unix.IP_TRANSPARENT}, {unix.SOL_SOCKET, unix.SO_REUSEADDR}} {
		if err := unix.SetsockoptInt(fd, option.level, option.name, 1); err != nil {
			return 0, fmt.Errorf("set socket option: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: dst.Addr().As4(), Port: int(dst.Port())}); err != nil {
		return 0, fmt.Errorf("bind %v: %w", dst, err)
	}
	if err := unix.Sendto(fd, b, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: src.Addr().As4(), Port: int(src.Port())}); err != nil {
		return 0, fmt.Errorf("write datagram: %w", err)
	}
	return len(b), nil
}

// Close closes the socket; a blocked ReadFrom returns.
func (c *UDPConn) Close() error { return c.conn.Close() }

// LocalAddr returns the address that the socket is bound to.
func (c *UDPConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }
