package redirect

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// blaster is a guest that never stops sending: it opens the tap whenever it can,
// as the tap's owner, and writes frames good and bad, as the machine that it is
// told to be and as others.
type blaster struct {
	name   string
	frames atomic.Pointer[[][]byte]
	// sent counts frames that the kernel took, opened how often the tap was opened.
	sent, opened atomic.Int64
	// off asks for the virtual machine to be killed.
	off  chan struct{}
	stop chan struct{}
	done sync.WaitGroup
}

// be says who the guest is from now on.
func (b *blaster) be(l Link) {
	var frames [][]byte
	add := func(f *frame) { frames = append(frames, append(make([]byte, vnetHeaderLen), f.bytes()...)) }
	for _, c := range rawCases() {
		add(c.frame(l))
	}
	for _, port := range []uint16{22, 53, 80, 443, 8443} { // connections to where nothing may arrive
		f := good(l)
		f.body = sealed(l.Guest, called, 6, tcp(40000+port, port, 2, nil))
		add(f)
		f = good(l)
		f.dst = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		f.body = sealed(l.Guest, called, 6, tcp(40000+port, port, 2, nil))
		add(f)
	}
	b.frames.Store(&frames)
}

// run blasts until it is stopped, in bursts, so that the machine is left to others.
func (b *blaster) run(owner int) {
	defer b.done.Done()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	fd, next := -1, 0
	shut := func() {
		if fd >= 0 {
			unix.Close(fd)
		}
		fd = -1
	}
	defer shut()
	for {
		select {
		case <-b.stop:
			return
		case <-b.off:
			shut()
		case <-pace.C:
		}
		if fd < 0 {
			var err error
			if fd, err = (monitor{flags: unix.IFF_VNET_HDR}).open(b.name, owner); err != nil {
				fd = -1
				continue
			}
			b.opened.Add(1)
		}
		frames := *b.frames.Load()
		for range 32 {
			next++
			_, err := unix.Write(fd, frames[next%len(frames)])
			switch err {
			case nil:
				b.sent.Add(1)
			case unix.EBADFD: // the tap is gone
				shut()
			}
			if fd < 0 {
				break
			}
		}
	}
}

// TestChurnUnderFire kills the machine, gives it another MAC, and removes and
// adds the tap, a hundred times, under a guest that never stops sending. What
// leaves by the uplink is counted on its far side, where the same frames on an
// unguarded tap are seen.
func TestChurnUnderFire(t *testing.T) {
	const rounds = 100
	s := newStage(t)
	s.leaksAllowed = true // it is counted here
	l := s.tapLink(1)
	leaked := func() (n int) {
		for _, f := range s.leaks.frames() {
			if len(f) < 14 || f[12] != 0x08 || f[13] != 0x06 { // but for the host's ARP
				n++
			}
		}
		return n
	}
	s.set(l)
	b := &blaster{name: l.Name, off: make(chan struct{}), stop: make(chan struct{})}
	b.be(l)
	b.done.Add(1)
	go b.run(l.Owner)
	defer func() { close(b.stop); b.done.Wait() }()
	killed := 0
	for i := range rounds {
		dev, err := netlink.LinkByName(l.Name)
		must(t, err)
		if i%3 > 0 {
			b.off <- struct{}{}
			l.MAC = net.HardwareAddr{0x02, 0, 0, 1, 0, byte(i)}
			b.be(l)
			killed++
		}
		must(t, netlink.LinkDel(dev)) // as somebody else might
		s.set(l)
		before := counters(t, s.r, l).RxPackets
		eventually(t, "frames on the new tap", func() bool { return counters(t, s.r, l).RxPackets > before+64 })
	}
	dropped := counters(t, s.r, l).Dropped()
	if n := leaked(); n != 0 || dropped == 0 {
		t.Errorf("%d frames leaked, %d were dropped", n, dropped)
	}
	t.Logf("%d frames written, %d dropped; tap removed and added %d times, machine killed and started with another MAC %d times, tap opened %d times; %d leaked",
		b.sent.Load(), dropped, rounds, killed, b.opened.Load(), leaked())
	s.controlLeak(leaked)
}

// controlLeak has the same guest on a tap that nobody guards: its frames must be
// seen, or none of those above would have been.
func (s *stage) controlLeak(leaked func() int) {
	t := s.t
	t.Helper()
	l := s.tapLink(9)
	l.Name, l.Owner = "unguarded", -1
	must(t, createTap(l))
	dev, err := netlink.LinkByName(l.Name)
	must(t, err)
	defer netlink.LinkDel(dev)
	must(t, netlink.LinkSetHardwareAddr(dev, hostMAC("stage", l)))
	must(t, os.WriteFile(procSysNet+"/ipv6/conf/"+l.Name+"/disable_ipv6", []byte("1"), 0))
	_, err = ensureAddress(dev, l.Gateway, l.Bits, true)
	must(t, err)
	must(t, netlink.LinkSetUp(dev))
	must(t, writeSysctl(forwardingOf(l.Name), "1"))
	b := &blaster{name: l.Name, off: make(chan struct{}), stop: make(chan struct{})}
	b.be(l)
	b.done.Add(1)
	go b.run(-1)
	defer func() { close(b.stop); b.done.Wait() }()
	eventually(t, "frames of an unguarded guest beyond the uplink", func() bool { return leaked() > 64 })
	t.Logf("control: %d frames of the unguarded guest seen beyond the uplink", leaked())
}
