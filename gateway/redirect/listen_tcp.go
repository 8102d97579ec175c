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

// ListenTCP opens the listener for a link's TCP connections, or for DNS over
// TCP. addr is the link's Gateway address with its InterceptPort or DNSPort;
// the address need not exist yet, so that sockets can be there before links.
//
// Accepted connections have the original destination as their LocalAddr, and
// the bottle as their RemoteAddr. A bottle that calls the listener itself is
// seen as such: LocalAddr is then addr. The datapath gives connections only to
// a socket made here, which it knows by its mark; CAP_NET_ADMIN is needed. The
// caller closes the listener.
func ListenTCP(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	if err := checkListenAddr(addr); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: markTransparent}
	// The kernel would look for a subflow of MPTCP, which is no socket of ours.
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp4", addr.String())
	if err != nil {
		return nil, listenError("tcp", addr, err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen tcp %v: got a %T", addr, l), l.Close())
	}
	return tcp, nil
}

func checkListenAddr(addr netip.AddrPort) error {
	if !addr.Addr().Is4() || addr.Addr().IsUnspecified() || addr.Port() == 0 {
		return fmt.Errorf("listen on %v: write the IPv4 address of the gateway on the link, and a port", addr)
	}
	return nil
}

// markTransparent makes the socket one that may act for any address (ip(7),
// IP_TRANSPARENT) and that the datapath recognises. Accepted sockets inherit
// both.
func markTransparent(_, _ string, c syscall.RawConn) error {
	var err error
	control := c.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			err = fmt.Errorf("set IP_TRANSPARENT: %w", err)
			return
		}
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(gatewayMarkMARK_SOCKET)); err != nil {
			err = fmt.Errorf("set SO_MARK: %w", err)
		}
	})
	return errors.Join(control, err)
}

func listenError(network string, addr netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("listen %s %v: %w (another program holds the port; see ss -lnp sport = :%d)", network, addr, err, addr.Port())
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("listen %s %v: %w (CAP_NET_ADMIN is needed)", network, addr, err)
	}
	return fmt.Errorf("listen %s %v: %w", network, addr, err)
}
