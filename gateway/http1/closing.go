package http1

import (
	"context"
	"sync"
	"time"
)

// closing ends a connection between requests. One that waits for a request when it is told ends at once; one that serves a
// request ends after it, and says so in the response's head if that has not left yet (RFC 9112 section 9.6).
type closing struct {
	told context.Context // over when it is

	mu      sync.Mutex
	waiting bool // for a request
}

// close ends the wait for a request, if there is one. It is called once told is over, from any goroutine.
func (c *connection) close() {
	c.closing.mu.Lock()
	defer c.closing.mu.Unlock()
	if c.closing.waiting {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // on a closed connection the read fails as well
	}
}

// await blocks until the first bytes of the next request are there. It returns errGuestLeft if none comes or none is to be taken.
func (c *connection) await() error {
	if err := c.beginWait(); err != nil {
		return err
	}
	return c.endWait(c.reader.awaitRequest())
}

// beginWait begins the wait for a request.
//
//go:noinline
func (c *connection) beginWait() error {
	c.closing.mu.Lock()
	defer c.closing.mu.Unlock()
	if c.closing.told.Err() != nil || c.reader.within(c.server.limits.Idle) != nil {
		return errGuestLeft
	}
	c.closing.waiting = true
	return nil
}

// endWait ends it. err is what it has come to.
//
//go:noinline
func (c *connection) endWait(err error) error {
	c.closing.mu.Lock()
	defer c.closing.mu.Unlock()
	c.closing.waiting = false
	if err == nil && c.closing.told.Err() != nil { // it came just before: it is served, so close's deadline must not end it
		return c.reader.until(time.Now().Add(c.server.limits.Head))
	}
	return err
}
