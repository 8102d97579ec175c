package redirect

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

var errTodo = errors.New("not built yet")

// Redirect is one instance of the datapath.
type Redirect struct{}

// Open loads or adopts the instance.
func Open(ctx context.Context, o Options) (*Redirect, error) { return nil, errTodo }

// Set makes c the desired state.
func (r *Redirect) Set(ctx context.Context, c Config) (Status, error) { return Status{}, errTodo }

// Watch repairs until ctx ends.
func (r *Redirect) Watch(ctx context.Context) error { return errTodo }

// Status returns the state of every link.
func (r *Redirect) Status() Status { return Status{} }

// Counters returns what the datapath counted for a bottle.
func (r *Redirect) Counters(bottle string) (Counters, error) { return Counters{}, errTodo }

// Close closes descriptors and removes nothing.
func (r *Redirect) Close() error { return nil }

// Uninstall removes what the instance made.
func Uninstall(ctx context.Context, o Options) (removed []string, err error) { return nil, errTodo }

// ListenTCP opens a transparent TCP listener.
func ListenTCP(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	return nil, errTodo
}

// UDPConn is a transparent UDP socket.
type UDPConn struct{}

// ListenUDP opens a transparent UDP socket.
func ListenUDP(ctx context.Context, addr netip.AddrPort) (*UDPConn, error) { return nil, errTodo }

// ReadFrom reads one datagram, its sender and the address it was sent to.
func (c *UDPConn) ReadFrom(b []byte) (n int, src, dst netip.AddrPort, err error) {
	return 0, src, dst, errTodo
}

// WriteTo sends b from dst to src.
func (c *UDPConn) WriteTo(b []byte, src, dst netip.AddrPort) (int, error) { return 0, errTodo }

// Close closes the socket.
func (c *UDPConn) Close() error { return nil }

// LocalAddr returns the bound address.
func (c *UDPConn) LocalAddr() net.Addr { return nil }

// CheckStatus is the outcome of one check.
type CheckStatus string

// The outcomes.
const (
	Pass CheckStatus = "pass"
	Warn CheckStatus = "warn"
	Fail CheckStatus = "fail"
)

// Check is one line of what Probe found.
type Check struct {
	Name   string
	Status CheckStatus
	Detail string
	Remedy string
}

// Probe looks at the machine.
func Probe(ctx context.Context, o Options) []Check { return nil }
