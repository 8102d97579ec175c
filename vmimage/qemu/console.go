package qemu

import (
	"bytes"
	"io"
	"sync"
)

// consoleKept is how much of the console is kept to explain a failure.
const consoleKept = 16 << 10

// console is where the VM's serial line goes: the end of it is kept, and the rest goes to the caller once it is shown.
type console struct {
	alive chan struct{} // closed at the first byte
	muted chan struct{} // closed by mute

	mu     sync.Mutex
	to     io.Writer // nil while nobody is shown anything
	tail   []byte
	spoken bool
	quiet  bool // muted
}

func newConsole() *console {
	return &console{alive: make(chan struct{}), muted: make(chan struct{})}
}

// Write implements io.Writer. It never fails, for QEMU would stop, and waits for the caller's writer until that is muted.
func (c *console) Write(p []byte) (int, error) {
	to := c.keep(p)
	if to == nil {
		return len(p), nil
	}
	shown := make(chan struct{})
	text := bytes.Clone(p)
	go func() {
		_, _ = to.Write(text) // a screen that is gone is no reason to stop the VM
		close(shown)
	}()
	select {
	case <-shown:
	case <-c.muted:
	}
	return len(p), nil
}

// keep keeps the end of what was written, and returns who is shown it.
func (c *console) keep(p []byte) io.Writer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.spoken && len(p) > 0 {
		c.spoken = true
		close(c.alive)
	}
	c.tail = append(c.tail, p...)
	if extra := len(c.tail) - consoleKept; extra > 0 {
		c.tail = append(c.tail[:0], c.tail[extra:]...)
	}
	return c.to
}

// show sends what comes from now on to w; nil hides it again.
func (c *console) show(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.quiet {
		c.to = w
	}
}

// mute hides it for ever.
func (c *console) mute() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.quiet {
		c.quiet, c.to = true, nil
		close(c.muted)
	}
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.tail)
}
