package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gatewayd/gateway/routes"
)

// accept takes connections until the bottle is shut. A failing listener fails closed: the kernel finds no socket for a
// new connection and drops it.
func (b *bottle) accept(l net.Listener) {
	stop := context.AfterFunc(b.taking, func() { l.Close() })
	defer stop()
	defer l.Close()
	for {
		conn, err := l.Accept()
		if err == nil {
			b.admit(conn)
			continue
		}
		if b.taking.Err() != nil {
			return
		}
		if !passing(err) {
			b.lost.Store(true)
			b.g.metrics.listenerLost(b.name, "tcp")
			b.log.Error("listener ended; new connections of this bottle are dropped until it is applied again", slog.Any("error", err))
			return
		}
		b.log.Warn("accept failed; trying again", slog.Any("error", err))
		select {
		case <-b.taking.Done():
			return
		case <-time.After(b.g.waits.AcceptRetry):
		}
	}
}

// passing tells whether an error of accept(2) passes by itself (accept(2), "Error handling in Linux").
func passing(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR, syscall.EPROTO,
		syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EPERM,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// admit starts the flow of conn within the bottle's budget. Over budget it is closed with a RST and counted; such
// connections share one record per second, since a flood must not become a flood of records.
func (b *bottle) admit(c net.Conn) {
	conn, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		b.log.Error("listener gave a connection that is not TCP; it was closed", slog.String("type", fmt.Sprintf("%T", c)))
		return
	}
	if !b.meter.rate.Allow() {
		b.turnAway(conn, ReasonRateBudget)
		return
	}
	if !b.meter.flows.try() {
		b.turnAway(conn, ReasonFlowBudget)
		return
	}
	dst, err := b.g.sockets.OriginalDst(conn)
	if err != nil {
		b.meter.flows.give()
		b.log.Warn("original destination of a connection is unknown; it was refused", slog.Any("error", err))
		b.turnAway(conn, ReasonOwnAddress)
		return
	}
	_ = conn.SetKeepAliveConfig(keepAlive(b.g.waits.KeepAlive)) // without it a vanished guest is noticed later, by idleness
	f := b.newFlow(conn, dst)
	b.mu.Lock()
	b.flows[f] = struct{}{}
	b.mu.Unlock()
	b.flown.Go(func() {
		defer b.forget(f)
		f.serve(b.ctx)
	})
}

// keepAlive returns the probing that both sides of a flow get: every interval, and three unanswered probes end it.
func keepAlive(interval time.Duration) net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: interval, Interval: interval, Count: 3}
}

// forget removes an ended flow, and gives its place to another.
func (b *bottle) forget(f *flow) {
	defer b.meter.flows.give()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.flows, f)
}

// turnAway refuses a connection before it becomes a flow.
func (b *bottle) turnAway(conn *net.TCPConn, why routes.Reason) {
	src := addrPortOf(conn.RemoteAddr())
	reset(conn)
	b.overBudget(src, why)
}

// noticeEvery is how often a record tells of what the budget refused, for each reason.
const noticeEvery = time.Second

// excess is what the budget refused for one reason.
type excess struct {
	count uint64 // of which no record has told
	told  time.Time
}

// overBudget counts something that the bottle at src was refused for the reason why. What is refused within noticeEvery shares one
// record.
func (b *bottle) overBudget(src netip.AddrPort, why routes.Reason) {
	b.g.metrics.turnedAway(b.name, why)
	b.mu.Lock()
	e := b.over[why]
	e.count++
	n, now := e.count, time.Now()
	tell := now.Sub(e.told) >= noticeEvery
	if tell {
		e = excess{told: now}
	}
	b.over[why] = e
	b.mu.Unlock()
	if tell {
		b.record(&Record{
			Time: time.Now().UTC(), Type: RecordEvent, ID: newID("e-"), Bottle: b.name, Plan: b.current().digest,
			Src: src, Lane: LaneNone, Reason: why, Count: n,
		})
	}
}
