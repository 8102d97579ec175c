package http1

import (
	"context"
	"sync"
	"time"
)

// watch notices that the guest leaves while a handler runs, and ends the request's context. To notice it, somebody has to
// read from the connection. Most handlers end sooner than that is worth a goroutine, so a timer starts one for those that
// do not, once the request's body has been read. It is not stopped when a request ends sooner, as that costs more than looking,
// when it fires, for how long the present request has run.
type watch struct {
	reader *reader
	after  time.Duration
	timer  *time.Timer

	mu      sync.Mutex
	armed   bool               // the timer runs
	since   time.Time          // when the guest had said all of the request
	idle    sync.Cond          // reading became false
	cancel  context.CancelFunc // ends the requests of the connection
	running bool               // a request is served
	whole   bool               // the body was read to its end, so that the reader is free
	reading bool
	left    bool // the guest closed the connection
}

// newWatch makes the watch of a connection.
func newWatch(r *reader, after time.Duration) *watch {
	w := &watch{reader: r, after: after}
	w.idle.L = &w.mu
	return w
}

// begin starts watching for one request. whole says that the request has no body to come.
func (w *watch) begin(whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running, w.whole = true, whole
	if !whole {
		return
	}
	w.schedule()
}

// schedule notes the time, and starts the timer if it does not run. w.mu is held.
func (w *watch) schedule() {
	if w.since = time.Now(); !w.armed {
		w.arm(w.after)
	}
}

// arm starts the timer. w.mu is held.
func (w *watch) arm(wait time.Duration) {
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(wait, w.run)
		return
	}
	w.timer.Reset(wait)
}

// bodyEnded tells that the request's body has been read to its end.
func (w *watch) bodyEnded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.running || w.whole {
		return
	}
	w.whole = true
	w.schedule()
}

// run is the timer's goroutine, in the time of whatever request. Bytes that come are the next one's and are kept.
func (w *watch) run() {
	w.mu.Lock()
	w.armed = false
	if !w.running || !w.whole || w.reading || w.reader.buffered() > 0 || w.left {
		w.mu.Unlock()
		return
	}
	if wait := w.after - time.Since(w.since); wait > 0 {
		w.arm(wait)
		w.mu.Unlock()
		return
	}
	w.reading = true
	_ = w.reader.until(time.Time{}) // the read fails as well
	w.mu.Unlock()
	err := w.reader.readAhead()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = false
	w.idle.Broadcast()
	if err != nil && !isTimeout(err) {
		w.left = true
		w.cancel()
	}
}

// end stops watching and waits until nobody reads. It reports whether the guest has left.
func (w *watch) end() (left bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = false
	for w.reading {
		_ = w.reader.until(time.Unix(1, 0)) // the read fails as well
		w.idle.Wait()
	}
	return w.left
}

// stop ends the timer of a connection that takes no further request.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}
