package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// snap is how much of each frame is looked at: Ethernet, the longest IPv4
// header, and the ports.
const snap = 14 + 60 + 4

// FlowKey says where frames came from and went to.
type FlowKey struct {
	// EtherType is 0x0800 for IPv4; the rest is zero for everything else.
	EtherType uint16
	Src, Dst  netip.Addr
	// IPProtocol is the number of IANA's registry: 6 TCP, 17 UDP, 1 ICMP.
	IPProtocol uint8
	// DstPort is that of TCP and UDP.
	DstPort uint16
}

// String is "tcp 198.19.255.2 > 198.19.1.1:443".
func (k FlowKey) String() string {
	if k.EtherType != unix.ETH_P_IP {
		return fmt.Sprintf("ethertype %#04x", k.EtherType)
	}
	name := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp"}[k.IPProtocol]
	if name == "" {
		name = fmt.Sprintf("protocol %d", k.IPProtocol)
	}
	return fmt.Sprintf("%s %s > %s:%d", name, k.Src, k.Dst, k.DstPort)
}

// Count is a number of frames and of bytes: of IP packets as their headers
// give them, of other frames as they were on the wire.
type Count struct{ Packets, Bytes uint64 }

// Counter counts the frames that arrive at one interface, by a packet socket:
// it sees them before any rule of the receiving side could drop them.
type Counter struct {
	conn *packet.Conn
	own  net.HardwareAddr
	done chan struct{}

	mu     sync.Mutex
	counts map[FlowKey]Count
	lost   uint64
}

func newCounter(ns *Namespace, link string) (*Counter, error) {
	filter, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: snap}})
	if err != nil {
		return nil, fmt.Errorf("assemble snap filter: %w", err)
	}
	c := &Counter{counts: map[FlowKey]Count{}, done: make(chan struct{})}
	err = ns.Do(func() error {
		ifi, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		c.own = ifi.HardwareAddr
		c.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count frames at %s: %w", link, err)
	}
	if raw, err := c.conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // without it bursts may be lost, which Lost reports
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		})
	}
	go c.read()
	return c, nil
}

func (c *Counter) read() {
	defer close(c.done)
	buf := make([]byte, snap)
	for {
		n, _, err := c.conn.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		if n < 14 || string(buf[6:12]) == string(c.own) {
			continue // too short to be Ethernet, or going the other way
		}
		k, size := parseFrame(buf[:n])
		c.mu.Lock()
		sum := c.counts[k]
		c.counts[k] = Count{sum.Packets + 1, sum.Bytes + size}
		c.mu.Unlock()
	}
}

// parseFrame reads the start of an Ethernet frame of at least 14 bytes.
func parseFrame(b []byte) (FlowKey, uint64) {
	k := FlowKey{EtherType: binary.BigEndian.Uint16(b[12:])}
	ip := b[14:]
	if k.EtherType != unix.ETH_P_IP || len(ip) < 20 {
		return k, uint64(len(b))
	}
	k.Src, k.Dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	k.IPProtocol = ip[9]
	head := int(ip[0]&0x0f) * 4
	fragmentOffset := binary.BigEndian.Uint16(ip[6:]) & 0x1fff
	portsKnown := k.IPProtocol == unix.IPPROTO_TCP || k.IPProtocol == unix.IPPROTO_UDP
	if portsKnown && fragmentOffset == 0 && len(ip) >= head+4 {
		k.DstPort = binary.BigEndian.Uint16(ip[head+2:])
	}
	return k, uint64(binary.BigEndian.Uint16(ip[2:]))
}

// Counts returns all counts so far. Frames still on their way are not in it:
// World.Settle waits for them.
func (c *Counter) Counts() map[FlowKey]Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// Sum adds up the counts for which want returns true.
func (c *Counter) Sum(want func(FlowKey) bool) Count {
	var sum Count
	for k, n := range c.Counts() {
		if want(k) {
			sum.Packets += n.Packets
			sum.Bytes += n.Bytes
		}
	}
	return sum
}

// Lost is how many frames the kernel could not hand over since the start. A
// claim that something did not arrive needs it to be zero.
func (c *Counter) Lost() (uint64, error) {
	s, err := c.conn.Stats() // the kernel resets them at every read
	if err != nil {
		return 0, fmt.Errorf("read losses of the frame counter: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost += uint64(s.Drops)
	return c.lost, nil
}

// Close stops counting; the counts stay readable. A second call does nothing.
func (c *Counter) Close() error {
	err := c.conn.Close()
	<-c.done
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("stop counting frames: %w", err)
	}
	return nil
}

// settlePort is where Settle's marks go: discard (RFC 863).
const settlePort = 9

// Settle sends a mark over the uplink and waits until the counter has seen
// it: every frame that was sent before has been counted then.
func (w *World) Settle(ctx context.Context) error {
	w.settling.Lock()
	defer w.settling.Unlock()
	dst := netip.AddrPortFrom(Far, settlePort)
	marks := func(k FlowKey) bool {
		return k.DstPort == settlePort && k.Dst == Far && k.IPProtocol == unix.IPPROTO_UDP
	}
	before := w.Internet.Counter.Sum(marks).Packets
	err := w.Gateway.Do(func() error {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(dst))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("mark"))
		return err
	})
	if err != nil {
		return fmt.Errorf("send mark over the uplink: %w", err)
	}
	return Poll(ctx, func() error {
		if w.Internet.Counter.Sum(marks).Packets == before {
			return errors.New("the mark has not arrived")
		}
		return nil
	})
}

// pollEvery is how often Poll looks.
const pollEvery = 20 * time.Millisecond

// Poll calls f until it returns nil, or returns f's last error when ctx ends.
func Poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
