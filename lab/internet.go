package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
)

// Internet is the far side of the uplink: addresses, names, servers, and the
// counter of what came in.
type Internet struct {
	// Netns is the internet's own namespace.
	Netns *Namespace
	// CA signs the servers' certificates.
	CA *CA
	// Names is the DNS.
	Names *Names
	// Counter counts every frame that came over the uplink.
	Counter *Counter

	log *slog.Logger

	mu      sync.Mutex
	next    netip.Addr
	have    map[netip.Addr]bool
	closers []func() error
}

func newInternet(_ context.Context, ns *Namespace, log *slog.Logger) (*Internet, error) {
	ca, err := NewCA("Example Internet CA")
	if err != nil {
		return nil, err
	}
	n := &Internet{
		Netns: ns, CA: ca, log: log,
		next: netip.MustParseAddr("198.19.1.0"),
		have: map[netip.Addr]bool{Resolver.Addr(): true, Private: true, Metadata: true, Far: true},
	}
	if n.Counter, err = newCounter(ns, farLink); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.onClose(n.Counter.Close)
	if n.Names, err = newNames(n, Resolver); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.onClose(n.Names.Close)
	return n, nil
}

// NewAddress returns an address in Public that nothing uses yet.
func (n *Internet) NewAddress() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next = n.next.Next()
	return n.next
}

// Listen listens on a TCP address of the internet, which it adds to the
// namespace when it is not there yet. The caller closes the listener.
func (n *Internet) Listen(addr netip.AddrPort) (net.Listener, error) {
	var l net.Listener
	err := n.Netns.Do(func() error {
		if err := n.addAddress(addr.Addr()); err != nil {
			return err
		}
		var err error
		l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen in the internet: %w", err)
	}
	return l, nil
}

// ListenPacket is Listen for UDP.
func (n *Internet) ListenPacket(addr netip.AddrPort) (*net.UDPConn, error) {
	var c *net.UDPConn
	err := n.Netns.Do(func() error {
		if err := n.addAddress(addr.Addr()); err != nil {
			return err
		}
		var err error
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen in the internet: %w", err)
	}
	return c, nil
}

func (n *Internet) addAddress(a netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.have[a] {
		return nil
	}
	if err := configure("lo", netip.PrefixFrom(a, 32)); err != nil {
		return err
	}
	n.have[a] = true
	return nil
}

func (n *Internet) onClose(f func() error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closers = append(n.closers, f)
}

// Close stops every server and waits for them. World.Close calls it.
func (n *Internet) Close() error {
	n.mu.Lock()
	closers := n.closers
	n.closers = nil
	n.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(errs...)
}
