package redirect

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// farStage is a fast stage whose server is behind a router, the internet's namespace, and a wire of the test's own making.
type farStage struct {
	*fastStage
	far     *os.File
	servers []netip.Addr
	ports   atomic.Uint32 // that were called from: one that is called from again soon is the relay's
}

var routerFar = netip.MustParseAddr("198.19.5.1")

// newFarStage has a TLS server that echoes at each of count addresses, all of them pinned to goodName.
func newFarStage(t *testing.T, count int, w *wire) *farStage {
	t.Helper()
	s := &farStage{fastStage: newFastStage(t, AttachAuto)}
	path := filepath.Join(t.TempDir(), "far")
	must(t, makeNetns(path))
	t.Cleanup(func() { must(t, removeNetns(path)) })
	far, err := openNetns(path)
	must(t, err)
	t.Cleanup(func() { far.Close() })
	s.far = far
	for i := range count {
		s.servers = append(s.servers, netip.AddrFrom4([4]byte{198, 19, 5, byte(10 + i)}))
	}
	near := openWireEnd(t, s.net, "wire0", routerFar)
	must(t, inNetns(s.net, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }))
	end := openWireEnd(t, far, "wire1", s.servers...)
	must(t, inNetns(far, func() error {
		dev, err := netlink.LinkByName("wire1")
		if err != nil {
			return err
		}
		_, err = ensureDefaultRoute(dev, routerFar)
		return err
	}))
	w.join(t, near, end)
	s.echo()
	for _, a := range s.servers {
		must(t, s.r.SetFast(s.l.Bottle, a, []FastPin{{Name: goodName, Port: 443, For: time.Hour}}))
	}
	return s
}

// echo serves TLS at all of the far namespace's addresses.
func (s *farStage) echo() {
	t := s.t
	cert := selfSigned(t)
	var l net.Listener
	must(t, inNetns(s.far, func() (err error) {
		l, err = net.Listen("tcp4", ":443")
		return err
	}))
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
				_, _ = io.Copy(tc, tc)
				_ = tc.CloseWrite() // the client has counted what it got
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
}

// talk opens count connections, width at a time, sends size random bytes over each and wants them back, and the end after
// them.
func (s *farStage) talk(count, width, size int) {
	s.t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	gate := make(chan struct{}, width)
	for i := range count {
		gate <- struct{}{}
		all.Go(func() {
			defer func() { <-gate }()
			if err := s.one(s.servers[i%len(s.servers)], size); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, fmt.Errorf("connection %d: %w", i, err))
			}
		})
	}
	all.Wait()
	if len(failed) > 0 {
		s.t.Errorf("%d of %d connections were lost: %v", len(failed), count, errors.Join(failed[:min(5, len(failed))]...))
	}
	for _, e := range s.events() {
		if e.Refused {
			s.t.Errorf("refused: %+v", e)
		}
	}
	if c := counters(s.t, s.r, s.l); c.Forwarded == 0 || c.Assigned != 0 {
		s.t.Errorf("counted %+v", c)
	}
}

func (s *farStage) one(to netip.Addr, size int) error {
	const long = 2 * time.Minute                                                              // a lost SYN alone takes a second
	raw, err := s.g.dialFrom(uint16(10000+s.ports.Add(1)), netip.AddrPortFrom(to, 443), long) //nolint:gosec // some hundreds
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(long)); err != nil {
		return err
	}
	c := tls.Client(raw, &tls.Config{ServerName: goodName, InsecureSkipVerify: true})
	sent := make([]byte, size)
	_, _ = rand.Read(sent) // it never fails
	writing := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		writing <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(<-writing, err); err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("%d bytes came back, not the %d that were sent", len(got), len(sent))
	}
	return nil
}

// wire carries frames between two taps, each way, and does of every hundred IPv4 packets to as many as it says: drop,
// double, or let others pass first.
type wire struct {
	drop, double, late int

	dropped, doubled, delayed atomic.Int64
}

// openWireEnd makes a tap in a namespace, up and with addresses. Frames pass it whole and with their checksums.
func openWireEnd(t *testing.T, ns *os.File, name string, addrs ...netip.Addr) *os.File {
	t.Helper()
	var file *os.File
	must(t, inNetns(ns, func() error {
		fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), name)
		if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), []byte("1"), 0); err != nil {
			return err
		}
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if _, err := ensureAddress(dev, a, 24, false); err != nil {
				return err
			}
		}
		_, err = ensureUp(dev)
		return err
	}))
	return file
}

// join begins to carry, until the test ends.
func (w *wire) join(t *testing.T, a, b *os.File) {
	var carrying sync.WaitGroup
	for i, ends := range [][2]*os.File{{a, b}, {b, a}} {
		frames := make(chan []byte)
		carrying.Go(func() {
			defer close(frames)
			for {
				buf := make([]byte, 2048)
				n, err := ends[0].Read(buf)
				if err != nil {
					return
				}
				frames <- buf[:n]
			}
		})
		carrying.Go(func() { w.carry(frames, ends[1], mathrand.New(mathrand.NewPCG(1, uint64(i)))) })
	}
	t.Cleanup(func() { a.Close(); b.Close(); carrying.Wait() })
}

// carry is one direction. A frame that is late goes after the three next ones, or when nothing has come for a while.
func (w *wire) carry(frames <-chan []byte, to *os.File, random *mathrand.Rand) {
	var late [][]byte
	put := func(f []byte) { _, _ = to.Write(f) } // fails when the test ends
	release := func() {
		for _, f := range late {
			put(f)
		}
		late = nil
	}
	after, passed := time.NewTimer(time.Hour), 0
	defer after.Stop()
	for {
		select {
		case <-after.C:
			release()
		case f, ok := <-frames:
			if !ok {
				return
			}
			n := random.IntN(100)
			switch {
			case len(f) < 14 || f[12] != 8 || f[13] != 0: // not IPv4
				put(f)
			case n < w.drop:
				w.dropped.Add(1)
			case n < w.drop+w.double:
				w.doubled.Add(1)
				put(f)
				put(f)
			case n < w.drop+w.double+w.late:
				w.delayed.Add(1)
				late, passed = append(late, f), 0
				after.Reset(3 * time.Millisecond)
				continue
			default:
				put(f)
			}
			if passed++; passed == 3 {
				release()
			}
		}
	}
}

// TestFastPathOverANarrowPath has a path MTU of 1280 beyond the router, which says so by ICMP. Upwards there are 50 addresses
// that nobody has called before: the first hello to each is too large and is sent again in smaller pieces. Downwards the
// servers learn it once, of the one address that all connections have.
func TestFastPathOverANarrowPath(t *testing.T) {
	for _, tc := range []struct {
		direction string
		least     int
	}{{"up", 50}, {"down", 1}} {
		t.Run(tc.direction, func(t *testing.T) {
			s := newFarStage(t, 50, &wire{})
			narrow, by := s.servers, "wire0"
			if tc.direction == "down" {
				narrow, by = []netip.Addr{uplinkHost}, "net0"
			}
			must(t, inNetns(s.net, func() error {
				dev, err := netlink.LinkByName(by)
				if err != nil {
					return err
				}
				for _, a := range narrow {
					if err := netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: netlink.NewIPNet(a.AsSlice()),
						Scope: netlink.SCOPE_LINK, MTU: 1280, MTULock: true}); err != nil {
						return err
					}
				}
				return nil
			}))
			s.talk(200, 8, 50_000)
			n := unreachables(t, s.net)
			t.Logf("200 connections; the router said %d times that a packet was too large", n)
			if n < tc.least {
				t.Errorf("the router should have said so %d times at least", tc.least)
			}
		})
	}
}

// unreachables is how many ICMP errors of that kind a namespace has sent.
func unreachables(t *testing.T, ns *os.File) (n int) {
	t.Helper()
	must(t, inNetns(ns, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		// "IcmpMsg: OutType3" and below it how many.
		m := regexp.MustCompile(`IcmpMsg:.*OutType3.*\nIcmpMsg: (?:\d+ )*(\d+)\n`).FindSubmatch(b)
		if m == nil {
			return fmt.Errorf("no ICMP errors among %s", b)
		}
		n, err = strconv.Atoi(string(m[1]))
		return err
	}))
	return n
}

// TestFastPathOverABadWire loses, doubles and reorders packets in both directions. No connection is lost.
func TestFastPathOverABadWire(t *testing.T) {
	for _, tc := range []struct {
		name string
		wire *wire
	}{
		{"5 % lost", &wire{drop: 5}},
		{"20 % doubled", &wire{double: 20}},
		{"20 % late", &wire{late: 20}},
		{"some of each", &wire{drop: 3, double: 10, late: 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newFarStage(t, 1, tc.wire)
			s.talk(300, 64, 20_000)
			lost, doubled, late := tc.wire.dropped.Load(), tc.wire.doubled.Load(), tc.wire.delayed.Load()
			t.Logf("300 connections; %d packets lost, %d doubled, %d late", lost, doubled, late)
			if (lost > 100) != (tc.wire.drop > 0) || (doubled > 100) != (tc.wire.double > 0) || (late > 100) != (tc.wire.late > 0) {
				t.Error("the wire was better than it should be")
			}
		})
	}
}
