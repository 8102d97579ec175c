package lab

import (
	"bytes"
	"fmt"
	"net"
	"sync"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// captureMost bounds what a Capture keeps.
const captureMost = 64 << 20

// Capture keeps the frames of one interface, both ways, as they are.
type Capture struct {
	conn *packet.Conn
	done chan struct{}

	mu      sync.Mutex
	data    bytes.Buffer
	largest int
	full    bool
}

// NewCapture starts to keep the frames of an interface of the namespace.
func NewCapture(ns *Namespace, link string) (*Capture, error) {
	c := &Capture{done: make(chan struct{})}
	err := ns.Do(func() error {
		ifi, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		c.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture at %s: %w", link, err)
	}
	go c.read()
	return c, nil
}

func (c *Capture) read() {
	defer close(c.done)
	buf := make([]byte, 128<<10) // more than a segment that is still to be cut
	for {
		n, _, err := c.conn.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		c.mu.Lock()
		c.largest = max(c.largest, n)
		if c.data.Len()+n <= captureMost {
			c.data.Write(buf[:n])
		} else {
			c.full = true
		}
		c.mu.Unlock()
	}
}

// Stop ends the capture and returns all frames one after another. It fails
// when not every frame could be kept.
func (c *Capture) Stop() ([]byte, error) {
	stats, err := c.conn.Stats()
	if err != nil {
		return nil, fmt.Errorf("read losses of the capture: %w", err)
	}
	if err := c.conn.Close(); err != nil {
		return nil, fmt.Errorf("stop capture: %w", err)
	}
	<-c.done
	if stats.Drops > 0 || c.full {
		return nil, fmt.Errorf("stop capture: %d frames lost, full: %v", stats.Drops, c.full)
	}
	return c.data.Bytes(), nil
}

// Largest is the length in bytes of the longest frame so far, with its Ethernet
// header.
func (c *Capture) Largest() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.largest
}
