package http2

import (
	"errors"
	"time"
)

// leadFor is how long nobody reads while the reading goroutine serves a request itself.
const leadFor = 2 * time.Millisecond

// lead is how the goroutine that reads a connection serves a request itself, so that one that comes alone, and is answered soon, costs
// no switch of goroutines. If it takes longer, or waits for what only reading can bring, a deputy reads meanwhile: another goroutine,
// which gives the reading back as soon as the request is served. All of it is guarded by the connection's lock.
type lead struct {
	next    *stream   // that is to be served by the reading goroutine
	serving *stream   // that is being served by it
	since   time.Time // when that began
	timer   *time.Timer
	armed   bool // the timer runs
	deputy  bool // reads
	recall  bool // it is to stop
}

// leads reports whether the reading goroutine may serve the request that has just come: nothing else is there to be read, and no
// other request under way. mu is held.
func (c *conn) leads() bool {
	return len(c.active) == 1 && len(c.reader.buffered()) == 0 && !c.lead.deputy && c.lead.serving == nil
}

// serveNext serves the request that the reading goroutine has kept for itself, if there is one.
func (c *conn) serveNext() error {
	l := &c.lead
	if l.next == nil {
		return nil
	}
	c.setPartial(false)
	c.mu.Lock()
	st := l.next
	l.next, l.serving, l.since = nil, st, time.Now()
	if !l.armed {
		l.arm(c, leadFor)
	}
	c.out.flushControl()
	c.mu.Unlock()
	st.run()
	c.mu.Lock()
	defer c.mu.Unlock()
	l.serving = nil
	if !l.deputy {
		return nil
	}
	if !c.finished && !c.left && c.err == nil {
		l.recall = true
		_ = c.net.SetReadDeadline(time.Unix(1, 0)) // on a closed connection the read fails as well
	}
	for l.deputy {
		c.roles.Wait()
	}
	if l.recall {
		l.recall = false
		if !c.left && c.err == nil {
			return c.net.SetReadDeadline(time.Time{})
		}
	}
	if c.finished {
		return errLeft // the deputy has said the last words
	}
	return nil
}

// arm has look at the request run after wait.
func (l *lead) arm(c *conn, wait time.Duration) {
	l.armed = true
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, c.lookAtLead)
		return
	}
	l.timer.Reset(wait)
}

// lookAtLead makes sure that somebody reads if the request that is being served takes long. It runs on, from request to request, so
// that most of them set no timer.
func (c *conn) lookAtLead() {
	c.mu.Lock()
	l := &c.lead
	l.armed = false
	switch left := leadFor - time.Since(l.since); {
	case l.serving == nil || l.deputy || c.finished:
	case left > 0:
		l.arm(c, left)
	default:
		l.deputy = true
		c.mu.Unlock()
		c.deputise()
		return
	}
	c.mu.Unlock()
}

// needReader has a deputy read at once, if nobody does: the request that is being served waits for what the guest sends. mu is held.
func (c *conn) needReader() {
	if c.lead.serving != nil && !c.lead.deputy && !c.finished {
		c.lead.deputy = true
		go c.deputise()
	}
}

// deputise reads until it is called back or the connection is at its end, which it then sees to.
func (c *conn) deputise() {
	var err error
	for err == nil {
		if err = c.await(); err == nil {
			err = c.parse()
		}
	}
	if !errors.Is(err, errRecalled) {
		c.end(err)
	}
	c.mu.Lock()
	c.lead.deputy = false
	c.roles.Broadcast()
	c.mu.Unlock()
}

// errRecalled ends the reading of a deputy.
var errRecalled = errors.New("the reading goroutine reads again")
