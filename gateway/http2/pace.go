package http2

import (
	"sync/atomic"
	"time"
)

// pace is how a connection is slowed whose guest's account is overdrawn: what came is done, and nothing more is read for as long as the
// account says. All but what is owed is for the goroutine that reads.
type pace struct {
	owed   atomic.Int64  // nanoseconds before anything more is looked at
	slowed time.Duration // how much longer it waited so than it went on without, lately
	since  time.Time     // it last waited
}

// owe has the connection wait before it goes on. It may be called by whoever has done what is to be paid for.
func (c *conn) owe(wait time.Duration) {
	for owed := c.pace.owed.Load(); int64(wait) > owed && !c.pace.owed.CompareAndSwap(owed, int64(wait)); {
		owed = c.pace.owed.Load()
	}
}

// settleUp waits for as long as the connection owes, or until it is at its end. One that has waited for too long ends.
func (c *conn) settleUp() error {
	p := &c.pace
	if c.head.stream == 0 { // what has begun to come is not late by the guest's fault
		c.whole = false
		c.setPartial(false)
	}
	begun := time.Now()
	p.slowed = max(0, p.slowed-begun.Sub(p.since))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.flushControl()
	c.waitFor(min(time.Duration(p.owed.Swap(0)), c.lim.Slow-p.slowed))
	p.since = time.Now()
	if p.slowed += p.since.Sub(begun); p.slowed >= c.lim.Slow {
		c.flood()
	}
	return c.err
}

// waitFor waits for so long, or until the connection is at its end. mu is held.
func (c *conn) waitFor(wait time.Duration) {
	over := false
	t := time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		over = true
		c.roles.Broadcast()
	})
	defer t.Stop()
	for !over && c.err == nil && !c.over && !c.left {
		c.roles.Wait()
	}
}
