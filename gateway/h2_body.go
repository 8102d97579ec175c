package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gatewayd/gateway/http1"
)

// What of a request's body over HTTP/2 is taken that nobody has asked for, when the gateway's own answer has left. Beyond, the
// stream is reset, and some clients (curl among them) report that in place of the answer.
const (
	restBytes = 64 << 10
	h2Rest    = 100 * time.Millisecond
)

// bodyWatch is a request's body over HTTP/2, with which its guest has to go on, as over HTTP/1.1: asking whether the guest is there
// does not help, for it is. That holds until the response begins: from then on the two may speak in turns for as long as they like,
// as calls of gRPC do.
type bodyWatch struct {
	io.ReadCloser
	w    http.ResponseWriter
	pace http1.Pace
	used atomic.Bool // somebody reads it
	near time.Duration

	mu    sync.Mutex
	timer *time.Timer
	off   bool // there is no limit any more
}

// watchBody returns the body of r, whose response is w, held to the limits of e. The caller calls free when its handler returns.
func watchBody(w http.ResponseWriter, r *http.Request, e *engine) *bodyWatch {
	return &bodyWatch{ReadCloser: r.Body, w: w, pace: e.body.Pace(), near: e.rest}
}

// Read is [io.Reader].Read. A body that stalls or comes too slowly is a *[http1.ProtocolError].
func (b *bodyWatch) Read(p []byte) (int, error) {
	b.used.Store(true)
	if !b.begin() {
		return b.ReadCloser.Read(p)
	}
	begun := time.Now()
	n, err := b.ReadCloser.Read(p)
	if !b.pause() {
		return n, err
	}
	switch {
	case err == nil:
		err = b.pace.Count(n, time.Since(begun))
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = b.pace.Stalled()
	}
	return n, err
}

// begin starts the time of one read, if there is a limit.
func (b *bodyWatch) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.off:
		return false
	case b.timer == nil:
		b.timer = time.AfterFunc(b.pace.Idle(), b.stall)
	default:
		b.timer.Reset(b.pace.Idle())
	}
	return true
}

// pause ends the time of one read, and reports whether it was limited to its end.
func (b *bodyWatch) pause() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer.Stop()
	return !b.off
}

// stall ends the read that is under way.
func (b *bodyWatch) stall() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.off {
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Unix(1, 0)) // the stream may be over
	}
}

// free takes the limits away.
func (b *bodyWatch) free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.off = true
	if b.timer != nil {
		b.timer.Stop()
	}
}

// rest lets an answer that nobody has read the body for leave, and takes what of the body is near. The answer is whole.
func (b *bodyWatch) rest() {
	if b.used.Load() {
		return
	}
	control := http.NewResponseController(b.w)
	if control.Flush() != nil || control.SetReadDeadline(time.Now().Add(b.near)) != nil {
		return // the stream is over
	}
	_, _ = io.CopyN(io.Discard, b.ReadCloser, restBytes) // what does not come is of no interest
}
