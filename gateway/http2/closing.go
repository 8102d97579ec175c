package http2

import (
	"errors"
	"time"
)

// errSilent ends a connection whose guest did not answer.
var errSilent = errors.New("the guest does not answer")

// drain has the connection end after the requests that are served (RFC 9113 section 6.8). It is called from any goroutine.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave()
	c.out.flush()
}

// leave lets no further stream begin. mu is held.
func (c *conn) leave() {
	if c.leaving || c.finished {
		return
	}
	c.goAway(codeNo)
	c.leaveIfDone()
}

// leaveIfDone ends the reading if the connection is to end and no request is left. mu is held.
func (c *conn) leaveIfDone() {
	if c.leaving && len(c.active) == 0 && !c.left && !c.finished {
		c.left = true
		c.roles.Broadcast()
		_ = c.net.SetReadDeadline(time.Unix(1, 0)) // on a closed connection the read fails as well
	}
}

// goAway tells the guest that no further stream will be served, and which was the last. mu is held.
func (c *conn) goAway(why code) {
	c.leaving = true
	p := appendFrame(nil, 8, kindGoAway, 0, 0)
	p = append(p, byte(c.maxID>>24), byte(c.maxID>>16), byte(c.maxID>>8), byte(c.maxID), 0, 0, 0, byte(why))
	c.out.control(p)
}

// fail ends every stream: nothing more can be read or written. mu is held.
func (c *conn) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	for _, st := range c.streams {
		c.account.Left()
		st.break_(err)
	}
	c.out.room.Broadcast()
	c.roles.Broadcast()
}

// broken reports why nothing more is to be said, nil as long as it is. mu is held.
func (c *conn) broken() error { return c.err }

// abandon is fail for one that finds the connection unusable while another goroutine reads it. mu is held.
func (c *conn) abandon(err error) {
	c.fail(err)
	_ = c.net.SetReadDeadline(time.Unix(1, 0)) // on a closed connection the read fails as well
}

// flood ends the connection since its guest could not pay. mu is held.
func (c *conn) flood() {
	if !c.flooded {
		c.flooded = true
		c.account.Flooded()
		c.abandon(connError{codeEnhanceYourCalm, "the guest sends more that only costs than it may"})
	}
}

// startTimer begins to look after waits. mu is held.
func (c *conn) startTimer() {
	now := time.Now()
	c.idle = now
	c.lastRead.Store(now.UnixNano())
	first := min(c.lim.Idle, c.lim.Ping)
	c.due = now.Add(first)
	c.timer = time.AfterFunc(first, c.look)
}

// wakeBy makes sure that look runs by then. mu is held.
func (c *conn) wakeBy(by time.Time) {
	if by.Before(c.due) && !c.finished {
		c.due = by
		c.timer.Reset(time.Until(by))
	}
}

// look sees to what has waited for too long, and to when it is to look again.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished || c.err != nil {
		return
	}
	now, said := time.Now(), time.Unix(0, c.lastRead.Load())
	next := said.Add(c.lim.Ping)
	if c.asked.After(said) {
		next = c.asked.Add(c.lim.PingWait)
	}
	switch idle := c.idle.Add(c.lim.Idle); {
	case c.leaving && len(c.active) == 0:
		return
	case !c.begun.IsZero() && !now.Before(c.begun.Add(c.lim.Head)):
		c.abandon(connError{codeEnhanceYourCalm, "a frame or head did not end in time"})
		return
	case len(c.active) == 0 && !now.Before(idle):
		c.leave()
		c.out.flush()
		return
	case c.asked.After(said) && !now.Before(next):
		c.abandon(errSilent)
		return
	case !now.Before(next):
		c.asked = now
		next = now.Add(c.lim.PingWait)
		c.out.control(append(appendFrame(nil, 8, kindPing, 0, 0), "gatewayd"...))
	}
	if len(c.active) == 0 && c.idle.Add(c.lim.Idle).Before(next) {
		next = c.idle.Add(c.lim.Idle)
	}
	if !c.begun.IsZero() && c.begun.Add(c.lim.Head).Before(next) {
		next = c.begun.Add(c.lim.Head)
	}
	c.due = next
	c.timer.Reset(time.Until(next))
	c.out.flush()
}
