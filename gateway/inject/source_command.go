package inject

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"syscall"
	"time"
)

const (
	// commandTimeout is how long a credential command may run.
	commandTimeout = 10 * time.Second
	// commandKeep is how long its output is used before it is run again.
	commandKeep = time.Minute
	// commandRetry is how long a failure is remembered, so that a busy guest
	// does not start one process per request.
	commandRetry = 3 * time.Second
	// expirySlack is how long before its expiry a token is fetched anew.
	expirySlack = 30 * time.Second
)

// command runs a program for a credential, one at a time.
type command struct {
	argv    []string
	timeout time.Duration
	now     func() time.Time

	// turn holds one token: who has it may run the program and touch what is
	// below.
	turn  chan struct{}
	value string
	err   error
	until time.Time
}

func newCommand(argv []string) *command {
	return &command{argv: argv, timeout: commandTimeout, now: time.Now, turn: make(chan struct{}, 1)}
}

func (c *command) fetch(ctx context.Context) (string, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	now := c.now()
	if now.Before(c.until) {
		return c.value, c.err
	}
	value, err := c.run(ctx)
	if ctx.Err() != nil {
		return "", ctx.Err() // the guest went away; that says nothing of the command
	}
	c.value, c.err, c.until = value, err, now.Add(commandKeep)
	if err != nil {
		c.value, c.until = "", now.Add(commandRetry)
	} else if at, ok := expiry(trimLine(value)); ok && at.Add(-expirySlack).Before(c.until) {
		c.until = at.Add(-expirySlack)
		if c.until.Before(now.Add(commandRetry)) {
			c.until = now.Add(commandRetry)
		}
	}
	return c.value, c.err
}

// run starts the program in a process group of its own, so that its children
// die with it, and returns its standard output. Standard error is dropped: it
// may hold anything.
func (c *command) run(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var out limited
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", errors.New("the command took longer than " + c.timeout.String())
	case out.over:
		return "", errors.New("the command printed more than 64 KB")
	case err != nil:
		return "", err // a status, a signal, or why it could not be started
	}
	return out.kept.String(), nil
}

// limited keeps at most maxSecret bytes and fails after that. It has no
// ReadFrom on purpose: io.Copy would go round the limit.
type limited struct {
	kept bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.kept.Len()+len(p) > maxSecret {
		l.over = true
		return 0, errors.New("too much output")
	}
	return l.kept.Write(p)
}
