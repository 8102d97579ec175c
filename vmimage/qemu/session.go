package qemu

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"

	"gatewayd/vmimage/control"
)

// lostError says that the control port ended.
type lostError struct{ err error }

func (e *lostError) Error() string { return "the VM's control port ended: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// StartError says that the guest could not start a program. Run returns with it the status that a shell would.
type StartError struct{ Text string }

// Error is what the guest said, which may be anything of at most a line of the control port.
func (e *StartError) Error() string {
	return "start program in the VM: " + strconv.QuoteToGraphic(e.Text)
}

// session is the host's end of the control port.
type session struct {
	hello chan string // what the init reported: "" when all is well; closed when the port ends
	done  sync.WaitGroup

	mu   sync.Mutex
	out  io.Writer
	next uint32
	runs map[uint32]*running
	err  error // why the port ended
}

// running is one program in the guest.
type running struct {
	stdout, stderr io.Writer
	ended          chan control.Message // gets one message, or is closed without
}

func newSession(out io.Writer) *session {
	s := &session{hello: make(chan string, 1), out: out, runs: map[uint32]*running{}}
	s.done.Add(1)
	return s
}

// read takes messages until the port ends. It holds the lock while it writes to a caller's writer, so that nothing is
// written once run has returned.
func (s *session) read(in *control.Reader) {
	defer s.done.Done()
	reported := false
	for {
		m, err := in.Read()
		if err != nil {
			s.end(err)
			return
		}
		if (m.Kind == control.Hello || m.Kind == control.Failed) && !reported {
			reported = true
			if m.Kind == control.Failed && m.Text == "" {
				m.Text = "no reason given"
			}
			if m.Kind == control.Hello {
				m.Text = ""
			}
			s.hello <- m.Text
			continue
		}
		s.deliver(m)
	}
}

func (s *session) deliver(m control.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[m.ID]
	if r == nil {
		return // given up, or never asked for
	}
	switch m.Kind {
	case control.Stdout:
		_, _ = r.stdout.Write(m.Data) // the program's end is what counts
	case control.Stderr:
		_, _ = r.stderr.Write(m.Data)
	case control.Exit:
		delete(s.runs, m.ID)
		r.ended <- m
	}
}

func (s *session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = &lostError{err}
	for id, r := range s.runs {
		delete(s.runs, id)
		close(r.ended)
	}
	close(s.hello)
}

func (s *session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *session) send(m control.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return control.Write(s.out, m)
}

func (s *session) run(ctx context.Context, c Command, stdout, stderr io.Writer) (int, error) {
	r := &running{stdout: orDiscard(stdout), stderr: orDiscard(stderr), ended: make(chan control.Message, 1)}
	id, err := s.start(c, r)
	if err != nil {
		return 127, fmt.Errorf("run program in the VM: %w", err)
	}
	select {
	case m, ok := <-r.ended:
		switch {
		case !ok:
			return 127, fmt.Errorf("run program in the VM: %w", s.failure())
		case m.Text != "":
			return m.Code & 0xff, &StartError{Text: m.Text}
		}
		return m.Code & 0xff, nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.runs, id)
		return 127, fmt.Errorf("run program in the VM: %w", context.Cause(ctx))
	}
}

func (s *session) start(c Command, r *running) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	s.next++
	s.runs[s.next] = r
	err := control.Write(s.out, control.Message{Kind: control.Run, ID: s.next, Argv: c.Argv, Env: c.Env, Dir: c.Dir, Console: c.Console})
	if err != nil {
		delete(s.runs, s.next)
	}
	return s.next, err
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
