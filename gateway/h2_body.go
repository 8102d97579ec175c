package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"gatewayd/gateway/http1"
)

// bodyWatch is a request's body over HTTP/2, with which its guest has to go on, as over HTTP/1.1: asking whether the guest is there
// does not help, for it is. That holds until the response begins: from then on the two may speak in turns for as long as they like,
// as calls of gRPC do.
type bodyWatch struct {
	io.ReadCloser
	w    http.ResponseWriter
	pace http1.Pace

	mu    sync.Mutex
	timer *time.Timer
	off   bool // there is no limit any more
}

// watchBody returns the body of r, whose response is w, held to l. The caller calls free when its handler returns.
func watchBody(w http.ResponseWriter, r *http.Request, l http1.Limits) *bodyWatch {
	return &bodyWatch{ReadCloser: r.Body, w: w, pace: l.Pace()}
}

// Read is [io.Reader].Read. A body that stalls or comes too slowly is a *[http1.ProtocolError].
func (b *bodyWatch) Read(p []byte) (int, error) {
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
