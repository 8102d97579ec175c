package http1

import (
	"context"
	"sync"
	"time"
)

// watch notices that the guest leaves while a handler runs, and ends the request's context. To notice it, somebody has to
// read from the connection. Most handlers end sooner than that is worth a goroutine, so a timer starts one for those that
// do not, once the request's body has been read.
type watch struct {
	reader *reader
	after  time.Duration
	timer  *time.Timer

	mu      sync.Mutex
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

// schedule starts the timer. w.mu is held.
func (w *watch) schedule() {
	if w.timer == nil {
		w.timer = time.AfterFunc(w.after, w.run)
		return
	}
	w.timer.Reset(w.after)
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

// run is the timer's goroutine. It may be late, even in the time of a later request. Bytes that come are the next request's
// and are kept.
func (w *watch) run() {
	w.mu.Lock()
	if !w.running || !w.whole || w.reading || w.reader.buffered() > 0 || w.left {
		w.mu.Unlock()
		return
	}
	w.reading = true
	_ = w.reader.until(time.Time{}) // the read fails as well
	w.mu.Unlock()
	err := w.reader.fill()
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
	if w.timer != nil {
		w.timer.Stop()
	}
	for w.reading {
		_ = w.reader.until(time.Unix(1, 0)) // the read fails as well
		w.idle.Wait()
	}
	return w.left
}
