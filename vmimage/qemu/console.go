package qemu

import (
	"io"
	"sync"
)

// consoleKept is how much of the console is kept to explain a failure.
const consoleKept = 16 << 10

// console is where the VM's serial line goes: the end of it is kept, and the rest goes to the caller once it is shown.
type console struct {
	alive chan struct{} // closed at the first byte

	mu     sync.Mutex
	to     io.Writer // nil while nobody is shown anything
	tail   []byte
	spoken bool
}

// Write implements io.Writer. It never fails, for QEMU would stop.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.spoken && len(p) > 0 {
		c.spoken = true
		close(c.alive)
	}
	if c.to != nil {
		_, _ = c.to.Write(p) // a screen that is gone is no reason to stop the VM
	}
	c.tail = append(c.tail, p...)
	if extra := len(c.tail) - consoleKept; extra > 0 {
		c.tail = append(c.tail[:0], c.tail[extra:]...)
	}
	return len(p), nil
}

// show sends what comes from now on to w; nil hides it again.
func (c *console) show(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = w
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.tail)
}
