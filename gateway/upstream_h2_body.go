package gateway

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// h2Sending is a request's body on its way over HTTP/2. The server opens its windows as it likes (RFC 9113 section 5.2), and net/http
// waits for that as long as it takes, so what was read of the body has a time here in which it has to leave: as much as one write
// of a body over HTTP/1.1 has.
type h2Sending struct {
	io.ReadCloser
	wait   time.Duration
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	over  bool // all of it has left, or never will
}

// errWindowShut is how a request ends whose server takes nothing of its body.
var errWindowShut = fmt.Errorf("the server takes no more of the request's body: %w", context.DeadlineExceeded)

// Read is [io.Reader].Read. Who asks for more has sent what was there.
func (s *h2Sending) Read(p []byte) (int, error) {
	s.stop(false)
	n, err := s.ReadCloser.Read(p)
	if n > 0 {
		s.start()
	}
	return n, err
}

// start begins the time of a piece.
func (s *h2Sending) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
	case s.timer == nil:
		s.timer = time.AfterFunc(s.wait, func() { s.cancel(errWindowShut) })
	default:
		s.timer.Reset(s.wait)
	}
}

// stop ends it; for good if the body is over.
func (s *h2Sending) stop(over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = s.over || over
	if s.timer != nil {
		s.timer.Stop()
	}
}
