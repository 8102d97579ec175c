package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// patience is how long a test waits for something that should happen at once.
const patience = time.Minute

// stage is the host side of a test: the process's own namespace with an uplink
// to a second one, which plays the internet, and forwarding on. Whatever leaves
// by the uplink is caught.
type stage struct {
	t       testing.TB
	options Options
	r       *Redirect
	net     *os.File // the internet's namespace
	leaks   *catcher
	// leaksAllowed is set where frames are meant to reach the internet.
	leaksAllowed bool
}

var (
	uplinkHost     = netip.MustParseAddr("198.19.0.1")
	uplinkInternet = netip.MustParseAddr("198.19.0.2")
	// called is an address that nobody has: only the gateway can answer.
	called = netip.MustParseAddr("198.19.77.9")
)

// newStage opens an instance with the given changes to its options.
func newStage(t testing.TB, change ...func(*Options)) *stage {
	t.Helper()
	privileged.Require(t, privileged.Root, privileged.BPF)
	s := &stage{t: t, options: Options{
		Instance: "stage",
		BPFFS:    filepath.Join(defaultBPFRoot, "stage"),
		Log:      slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Recheck:  100 * time.Millisecond,
	}}
	for _, c := range change {
		c(&s.options)
	}
	if s.options.Attach == AttachTCX {
		privileged.Require(t, tcx)
	}
	s.buildUplink()
	s.open()
	t.Cleanup(func() {
		if err := s.r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		s.noLeaks()
		if _, err := Uninstall(context.Background(), s.options); err != nil {
			t.Errorf("uninstall: %v", err)
		}
	})
	return s
}

// tcx is the need of a kernel that has it.
func tcx() error {
	o, _, err := loadUnpinned()
	if err != nil {
		return err
	}
	defer o.Close()
	have, err := haveTCX(o.CaptureEgress)
	if err == nil && !have {
		err = errors.New("tcx is missing (Linux 6.6)")
	}
	return err
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b[:len(b)-1])
	return len(b), nil
}

// open opens the instance, again if the test has closed it.
func (s *stage) open() {
	s.t.Helper()
	r, err := Open(s.t.Context(), s.options)
	if err != nil {
		s.t.Fatalf("open: %v", err)
	}
	s.r = r
}

func (s *stage) set(links ...Link) Status {
	s.t.Helper()
	status, err := s.r.Set(s.t.Context(), Config{Links: links})
	if err := errors.Join(err, status.Err()); err != nil {
		s.t.Fatalf("set: %v", err)
	}
	return status
}

// buildUplink makes the internet: a namespace behind the interface up0, which
// routes everything and answers nothing.
func (s *stage) buildUplink() {
	t := s.t
	t.Helper()
	path := filepath.Join(t.TempDir(), "internet")
	must(t, makeNetns(path))
	t.Cleanup(func() { must(t, removeNetns(path)) })
	ns, err := openNetns(path)
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	s.net = ns
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "net0", netlink.NsFd(ns.Fd())
	must(t, netlink.LinkAdd(veth))
	t.Cleanup(func() { netlink.LinkDel(veth) })
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/up0/disable_ipv6", []byte("1"), 0))
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	_, err = ensureAddress(veth, uplinkHost, 24, true)
	must(t, err)
	_, err = ensureUp(veth)
	must(t, err)
	must(t, inNetns(ns, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/net0/disable_ipv6", []byte("1"), 0); err != nil {
			return err
		}
		dev, err := netlink.LinkByName("net0")
		if err != nil {
			return err
		}
		if _, err = ensureAddress(dev, uplinkInternet, 24, true); err == nil {
			_, err = ensureUp(dev)
		}
		if err == nil {
			_, err = ensureDefaultRoute(dev, uplinkHost)
		}
		return err
	}))
	lo, err := netlink.LinkByIndex(loopbackIndex)
	must(t, err)
	_, err = ensureUp(lo)
	must(t, err)
	_, err = ensureDefaultRoute(veth, uplinkInternet)
	must(t, err)
	s.leaks = newCatcher(t, ns, "net0")
}

// noLeaks fails the test if any IPv4 packet reached the internet.
func (s *stage) noLeaks() {
	s.t.Helper()
	if s.leaksAllowed {
		return
	}
	for _, frame := range s.leaks.frames() {
		if len(frame) >= 14 && frame[12] == 0x08 && frame[13] == 0x06 {
			continue // the host's own ARP for the next hop
		}
		s.t.Errorf("a frame reached the internet: %x", frame)
	}
}

// link returns the n-th bottle's link, in a namespace.
func (s *stage) link(n byte) Link { return linkAt(n, filepath.Join(s.t.TempDir(), "ns")) }

func linkAt(n byte, netns string) Link {
	return Link{
		Bottle: fmt.Sprintf("bottle%d", n), Name: fmt.Sprintf("gw-b%d", n), Kind: Netns,
		Netns: netns,
		Guest: netip.AddrFrom4([4]byte{198, 18, n, 2}), Gateway: netip.AddrFrom4([4]byte{198, 18, n, 1}), Bits: 30,
		MAC: net.HardwareAddr{0x02, 0, 0, 0, 0, n}, Owner: -1, InterceptPort: 15001, DNSPort: 53,
	}
}

// guest is a thread's way into a bottle's namespace, and a packet socket there.
type guest struct {
	t    testing.TB
	link Link
	ns   *os.File
	raw  int
	eth0 int
}

// enter opens the bottle's namespace, quiet: without IPv6 the kernel in there
// sends nothing of its own.
func (s *stage) enter(l Link) *guest {
	t := s.t
	t.Helper()
	ns, err := openNetns(l.Netns)
	must(t, err)
	g := &guest{t: t, link: l, ns: ns}
	must(t, inNetns(ns, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
			return err
		}
		dev, err := netlink.LinkByName(guestInterface)
		if err != nil {
			return err
		}
		g.eth0 = dev.Attrs().Index
		awaitQueue(t, dev)
		g.raw, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	t.Cleanup(func() { unix.Close(g.raw); ns.Close() })
	return g
}

// send puts a frame on the bottle's eth0 as it is.
func (g *guest) send(frame []byte) {
	g.t.Helper()
	must(g.t, unix.Sendto(g.raw, frame, 0, &unix.SockaddrLinklayer{Ifindex: g.eth0}))
}

// awaitQueue waits until a device has its queue. The kernel gives it one a while after
// the carrier came, and until then loses what is sent (dev_activate in
// net/sched/sch_generic.c).
func awaitQueue(t testing.TB, dev netlink.Link) {
	t.Helper()
	eventually(t, "the queue of "+dev.Attrs().Name, func() bool {
		queues, err := netlink.QdiscList(dev)
		must(t, err)
		return slices.ContainsFunc(queues, func(q netlink.Qdisc) bool {
			return q.Attrs().Parent == netlink.HANDLE_ROOT && q.Type() != "noop"
		})
	})
}

// dial opens a TCP connection from the bottle.
func (g *guest) dial(to netip.AddrPort, timeout time.Duration) (conn net.Conn, err error) {
	return g.dialFrom(0, to, timeout)
}

// dialFrom is dial from a port of the caller's choice.
func (g *guest) dialFrom(port uint16, to netip.AddrPort, timeout time.Duration) (conn net.Conn, err error) {
	err = inNetns(g.ns, func() error {
		d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{Port: int(port)}}
		conn, err = d.Dial("tcp4", to.String())
		return err
	})
	return conn, err
}

// dialUDP opens a connected UDP socket in the bottle.
func (g *guest) dialUDP(to netip.AddrPort) net.Conn {
	g.t.Helper()
	var conn net.Conn
	must(g.t, inNetns(g.ns, func() (err error) {
		conn, err = net.Dial("udp4", to.String())
		return err
	}))
	g.t.Cleanup(func() { conn.Close() })
	return conn
}

// listeners opens the gateway's sockets for a link. The TCP ones answer every
// connection with one line, the address that was called.
func (s *stage) listeners(l Link) (*net.TCPListener, *UDPConn) {
	t := s.t
	t.Helper()
	tcp := s.listenTCP(netip.AddrPortFrom(l.Gateway, l.InterceptPort))
	s.listenTCP(netip.AddrPortFrom(l.Gateway, l.DNSPort))
	udp, err := ListenUDP(t.Context(), netip.AddrPortFrom(l.Gateway, l.DNSPort))
	must(t, err)
	t.Cleanup(func() { udp.Close() })
	return tcp, udp
}

func (s *stage) listenTCP(at netip.AddrPort) *net.TCPListener {
	t := s.t
	t.Helper()
	l, err := ListenTCP(t.Context(), at)
	must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%v %v\n", at.Port(), conn.LocalAddr())
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l
}

// catcher keeps every frame that an interface receives.
type catcher struct {
	mu     sync.Mutex
	socket syscall.RawConn
	buf    []byte
	seen   [][]byte
}

func newCatcher(t testing.TB, ns *os.File, name string) *catcher {
	t.Helper()
	c := &catcher{buf: make([]byte, 1<<16)}
	var file *os.File
	must(t, inNetns(ns, func() error {
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		proto := networkOrder16(unix.ETH_P_ALL)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "packet socket")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: dev.Attrs().Index})
	}))
	var err error
	c.socket, err = file.SyscallConn()
	must(t, err)
	var reading sync.WaitGroup
	reading.Go(func() {
		_ = c.socket.Read(func(fd uintptr) bool { // until the file is closed
			c.mu.Lock()
			defer c.mu.Unlock()
			c.take(fd)
			return false
		})
	})
	t.Cleanup(func() { file.Close(); reading.Wait() })
	return c
}

// take takes what the socket holds. c.mu is held.
func (c *catcher) take(fd uintptr) {
	for {
		n, err := unix.Read(int(fd), c.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		c.seen = append(c.seen, append([]byte(nil), c.buf[:n]...))
	}
}

// frames are those until now, whether or not the reader has come to them.
func (c *catcher) frames() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.socket.Control(c.take) // the file may be closed
	return append([][]byte(nil), c.seen...)
}

// eventually waits for a condition that other threads bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// forget forgets them.
func (c *catcher) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.socket.Control(c.take) // the file may be closed
	c.seen = nil
}

// unexpected is how many frames of a well-behaved guest were dropped. Its
// kernel may have spoken IPv6 before it was told not to, which is no fault.
func unexpected(c Counters) uint64 {
	return c.Dropped() - c.Drops[Reason(gatewayDropReasonDROP_IPV6)]
}
