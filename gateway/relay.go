package gateway

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"gatewayd/gateway/routes"
)

// relayPinned relays the flow if its destination is an address that the gateway's resolver gave this bottle for a name
// with a route of protocol tcp on this port. It waits for no byte of the guest, since the server may speak first. It
// reports false, having done nothing, when there is no such route.
func (f *flow) relayPinned(ctx context.Context) bool {
	for _, name := range f.b.namesAt(ctx, f.dst.Addr()) {
		if f.b.current().table.DecideFlow(name, f.port, routes.TCP).Decision != routes.Passthrough {
			continue
		}
		v := f.decide(name, routes.TCP)
		if v.Decision != routes.Passthrough || v.Route == nil {
			f.refuse(v.Reason, nil) // a new plan came between
			return true
		}
		f.verdict(&v, LaneRelay)
		up, err := f.b.dial.dialAddr(ctx, name, f.dst, v.Route.AllowPrivate)
		if err != nil {
			f.refuseUpstream(err)
			return true
		}
		f.pipe(up, nil)
		return true
	}
	return false
}

// relayName relays a passthrough flow to the host that its ClientHello named, wherever the guest believed it to be.
// hello is what was read of the guest so far.
func (f *flow) relayName(ctx context.Context, v *routes.Verdict, hello []byte) {
	f.verdict(v, LaneRelay)
	up, err := f.b.dial.dialName(ctx, f.host, f.port, v.Route != nil && v.Route.AllowPrivate)
	if err != nil {
		f.refuseUpstream(err)
		return
	}
	f.pipe(up, hello)
}

// refuseUpstream refuses the flow because its upstream cannot be had, keeping the decision that allowed it in view.
func (f *flow) refuseUpstream(err error) {
	why := ReasonUpstreamDial
	var ue *UpstreamError
	if errors.As(err, &ue) {
		why = ue.Stage
	}
	f.note(func(r *Record) { r.Lane, r.Reason, r.Error = LaneNone, why, err.Error() })
	reset(f.conn)
}

// pipe carries bytes both ways between the guest and up until both have ended their streams, then closes both. Each
// direction ends by itself (TCP half-close, RFC 9293 section 3.6). An error in one direction resets both sides.
func (f *flow) pipe(up *net.TCPConn, first []byte) {
	f.mu.Lock()
	f.peer, f.liveAt = up, time.Now()
	f.rec.Upstream = addrPortOf(up.RemoteAddr())
	dead := f.ended
	f.mu.Unlock()
	if dead {
		reset(up)
		return
	}
	defer up.Close()
	if len(first) > 0 {
		_ = up.SetWriteDeadline(time.Now().Add(f.b.g.waits.Dial))
		if _, err := up.Write(first); err != nil {
			f.refuseUpstream(&UpstreamError{ReasonUpstreamExchange, f.host, err})
			return
		}
		_ = up.SetWriteDeadline(time.Time{})
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		f.stream(f.conn, up, &f.downBytes)
	}()
	f.stream(up, f.conn, &f.upBytes)
	<-back
	f.mu.Lock()
	broken := f.broken
	f.mu.Unlock()
	if broken {
		reset(f.conn)
		reset(up)
	}
}

// counter is where a direction adds what it moved.
type counter interface{ Add(int64) int64 }

// stream moves bytes from src to dst until src's stream ends, and then ends dst's. (*net.TCPConn).ReadFrom does it by
// splice(2) between two TCP sockets: the bytes never enter this process.
//
// If src breaks, dst is reset at once. If dst breaks, what it sent before may still be on its way to src: the other
// direction delivers it, ends by the same break, and then both are reset.
func (f *flow) stream(dst, src *net.TCPConn, moved counter) {
	n, err := dst.ReadFrom(src)
	moved.Add(n)
	if err == nil {
		err = dst.CloseWrite()
	}
	f.mu.Lock()
	f.half = true
	if err != nil {
		f.broken = true
		if !f.ended && f.rec.Error == "" {
			f.rec.Error = err.Error()
		}
	}
	f.mu.Unlock()
	if err != nil && (!gone(dst) || gone(src)) {
		reset(src)
		reset(dst)
	}
}

// gone tells whether the kernel has ended c's connection, as by a RST (tcpi_state, TCP_CLOSE).
func gone(c *net.TCPConn) bool {
	info, err := tcpInfo(c)
	return err != nil || info.State == tcpClose
}

// tcpClose is TCP_CLOSE of enum in net/tcp_states.h.
const tcpClose = 7

// counters are the bytes that a relay's two sockets have taken in, as the kernel counts them.
type counters struct{ up, down int64 }

// sweep looks at a relayed flow: it brings its live counters up to date and ends it when nothing has moved for too
// long. Since splice(2) leaves no trace here until a direction ends, it asks the kernel (TCP_INFO, tcp(7)).
func (f *flow) sweep(now time.Time, idle, half time.Duration) {
	f.mu.Lock()
	peer := f.peer
	f.mu.Unlock()
	if peer == nil {
		return
	}
	up, ok1 := received(f.conn)
	down, ok2 := received(peer)
	f.mu.Lock()
	seen := f.live
	if ok1 {
		seen.up = up
	}
	if ok2 {
		seen.down = down
	}
	if seen != f.live {
		f.live, f.liveAt = seen, now
	}
	limit := idle
	if f.half {
		limit = half
	}
	over := now.Sub(f.liveAt) >= limit
	f.mu.Unlock()
	if over {
		f.abort(ReasonIdle)
	}
}

// received returns how many bytes of payload the kernel has taken in on c (tcpi_bytes_received, Linux 4.1).
func received(c *net.TCPConn) (int64, bool) {
	info, err := tcpInfo(c)
	if err != nil {
		return 0, false
	}
	return int64(info.Bytes_received), true
}

// tcpInfo returns what the kernel knows of c (tcp(7), TCP_INFO). The error is that of a closed socket.
func tcpInfo(c *net.TCPConn) (*unix.TCPInfo, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		info *unix.TCPInfo
		serr error
	)
	err = raw.Control(func(fd uintptr) {
		info, serr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	return info, errors.Join(err, serr)
}

// grantOf returns what carries the flow, for comparing with a new plan, and whether anything does.
func (f *flow) grantOf() (v routes.Verdict, host string, port uint16, p routes.Protocol, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.grant, f.rec.Host, f.port, f.rec.Protocol, f.grant.Decision != routes.Deny && !f.ended
}
