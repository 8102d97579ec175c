package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gatewayd/gateway/dns"
	"gatewayd/gateway/routes"
)

// Why an upstream could not be used, as the reason of a record.
const (
	ReasonUpstreamResolve  routes.Reason = "upstream_resolve"  // its name has no usable address
	ReasonUpstreamGuard    routes.Reason = "upstream_guard"    // its address is one that the guard refuses
	ReasonUpstreamDial     routes.Reason = "upstream_dial"     // no connection came about
	ReasonUpstreamTLS      routes.Reason = "upstream_tls"      // its certificate or its TLS was refused
	ReasonUpstreamExchange routes.Reason = "upstream_exchange" // the request or the response broke off
)

// UpstreamError says at which stage an upstream failed, and how.
type UpstreamError struct {
	Stage routes.Reason // one of the ReasonUpstream… constants
	Host  string        // the name that was asked for
	Err   error         // the cause
}

// Error returns the stage, the host and the cause.
func (e *UpstreamError) Error() string { return fmt.Sprintf("%s %s: %v", e.Stage, e.Host, e.Err) }

// Unwrap returns the cause.
func (e *UpstreamError) Unwrap() error { return e.Err }

// maxAttempts bounds how many addresses of one name are tried for one connection.
const maxAttempts = 8

// lookup resolves a canonical name. *dns.Resolver satisfies it.
type lookup interface {
	Lookup(ctx context.Context, name string) (dns.Answer, error)
}

// dialer connects to upstreams, by name through the gateway's own resolver or to a pinned address, and never to an
// address that check refuses. The check is made on the very address handed to connect(2).
type dialer struct {
	names lookup
	check func(addr netip.Addr, allowPrivate bool) error
	waits Deadlines
}

// dialName connects to host:port, trying the addresses of both families in turn (RFC 8305). Errors are *UpstreamError.
func (d *dialer) dialName(ctx context.Context, host string, port uint16, allowPrivate bool) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.waits.Dial)
	defer cancel()
	if d.names == nil {
		return nil, &UpstreamError{ReasonUpstreamResolve, host, errors.New("no resolver is configured")}
	}
	lctx, lcancel := context.WithTimeout(ctx, d.waits.Lookup)
	defer lcancel()
	answer, err := d.names.Lookup(lctx, host)
	if err != nil {
		return nil, &UpstreamError{ReasonUpstreamResolve, host, err}
	}
	addrs := interleave(answer.Addrs)
	if len(addrs) == 0 {
		return nil, &UpstreamError{ReasonUpstreamResolve, host, errors.New("the name has no address")}
	}
	conn, err := d.race(ctx, addrs, port, allowPrivate)
	if err != nil {
		return nil, dialFailure(host, err)
	}
	return conn, nil
}

// dialAddr connects to one address, for a route whose name is known by a pin. Errors are *UpstreamError.
func (d *dialer) dialAddr(ctx context.Context, host string, to netip.AddrPort, allowPrivate bool) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.waits.Dial)
	defer cancel()
	conn, err := d.connect(ctx, to, allowPrivate)
	if err != nil {
		return nil, dialFailure(host, err)
	}
	return conn, nil
}

// dialFailure gives err its stage: the guard's refusal or a plain failure to connect.
func dialFailure(host string, err error) error {
	var refused *refusedAddr
	if errors.As(err, &refused) {
		return &UpstreamError{ReasonUpstreamGuard, host, refused.err}
	}
	return &UpstreamError{ReasonUpstreamDial, host, err}
}

// refusedAddr marks the guard's refusal among the errors of a dial.
type refusedAddr struct{ err error }

func (r *refusedAddr) Error() string { return r.err.Error() }
func (r *refusedAddr) Unwrap() error { return r.err }

// attempt is the outcome of connecting to one address.
type attempt struct {
	conn *net.TCPConn
	err  error
}

// race connects to addrs in order, each AttemptDelay after the one before or as soon as that one failed, and returns
// the first connection. The others are given up and closed. It returns when every attempt has ended.
func (d *dialer) race(ctx context.Context, addrs []netip.Addr, port uint16, allowPrivate bool) (*net.TCPConn, error) {
	if len(addrs) == 1 {
		return d.connect(ctx, netip.AddrPortFrom(addrs[0], port), allowPrivate)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan attempt, len(addrs))
	next := func(i int) {
		go func() {
			conn, err := d.connect(ctx, netip.AddrPortFrom(addrs[i], port), allowPrivate)
			done <- attempt{conn, err}
		}()
	}
	var (
		winner  *net.TCPConn
		errs    []error
		started = 1
		pending = 1
	)
	next(0)
	timer := time.NewTimer(d.waits.AttemptDelay)
	defer timer.Stop()
	for pending > 0 {
		advance := false
		select {
		case a := <-done:
			pending--
			switch {
			case a.err != nil:
				errs = append(errs, a.err)
				advance = true
			case winner == nil:
				winner = a.conn
				cancel()
			default:
				a.conn.Close()
			}
		case <-timer.C:
			advance = true
		}
		if advance && winner == nil && started < len(addrs) && ctx.Err() == nil {
			next(started)
			started++
			pending++
			timer.Reset(d.waits.AttemptDelay)
		}
	}
	if winner != nil {
		return winner, nil
	}
	return nil, errors.Join(errs...)
}

// connect makes one connection. The guard looks at the address in the socket call itself, after which nothing can
// change it any more.
func (d *dialer) connect(ctx context.Context, to netip.AddrPort, allowPrivate bool) (*net.TCPConn, error) {
	nd := net.Dialer{
		KeepAlive: d.waits.KeepAlive,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return &refusedAddr{fmt.Errorf("parse address %q: %w", address, err)}
			}
			if err := d.check(ap.Addr().Unmap().WithZone(""), allowPrivate); err != nil {
				return &refusedAddr{err}
			}
			return nil
		},
	}
	// Multipath TCP is the default of listeners only; a dial asks for plain TCP, which splice(2) serves.
	nd.SetMultipathTCP(false)
	conn, err := nd.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("dial %s: got %T, want a TCP connection", to, conn)
	}
	return tcp, nil
}

// interleave orders addresses as RFC 8305 section 4 has it, alternating families and IPv6 first, without repeats, and
// cuts the list at maxAttempts.
func interleave(in []netip.Addr) []netip.Addr {
	var v4, v6 []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, a := range in {
		a = a.Unmap()
		if !a.IsValid() || seen[a] {
			continue
		}
		seen[a] = true
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	var out []netip.Addr
	for i := 0; i < max(len(v4), len(v6)) && len(out) < maxAttempts; i++ {
		if i < len(v6) {
			out = append(out, v6[i])
		}
		if i < len(v4) {
			out = append(out, v4[i])
		}
	}
	return out[:min(len(out), maxAttempts)]
}
