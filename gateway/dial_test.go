package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

func TestInterleave(t *testing.T) {
	addrs := func(ss ...string) (out []netip.Addr) {
		for _, s := range ss {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for _, c := range []struct {
		name     string
		in, want []netip.Addr
	}{
		{"none", nil, nil},
		{"one", addrs("203.0.113.1"), addrs("203.0.113.1")},
		{"IPv6 first and by turns", addrs("203.0.113.1", "203.0.113.2", "2001:db8::1"), addrs("2001:db8::1", "203.0.113.1", "203.0.113.2")},
		{"mapped is IPv4, once", addrs("::ffff:203.0.113.1", "203.0.113.1"), addrs("203.0.113.1")},
		{"cut", addrs("203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5", "203.0.113.6", "203.0.113.7", "203.0.113.8", "203.0.113.9"),
			addrs("203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5", "203.0.113.6", "203.0.113.7", "203.0.113.8")},
	} {
		if got := interleave(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got := interleave([]netip.Addr{{}}); len(got) != 0 {
		t.Errorf("an invalid address gave %v", got)
	}
}

// seenAddrs is a guard that lets everything pass and notes what it was asked.
type seenAddrs struct {
	mu   sync.Mutex
	seen []netip.Addr
}

func (s *seenAddrs) check(a netip.Addr, _ bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, a)
	return nil
}

func TestDialGoesOnAfterAFailedAddress(t *testing.T) {
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) { _, _ = io.WriteString(c, "here") })
	names := &fakeNames{addrs: map[string][]netip.Addr{}}
	names.set("two.test", "127.0.0.3", "127.0.0.1") // nothing listens on the first: refused at once
	var guard seenAddrs
	d := &dialer{names: names, check: guard.check, waits: Deadlines{AttemptDelay: testWait}.withDefaults()}
	c, err := d.dialName(context.Background(), "two.test", port, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "here" {
		t.Errorf("read %q, %v", b, err)
	}
	if len(guard.seen) != 2 {
		t.Errorf("the guard saw %v; want both addresses", guard.seen)
	}
}

func TestDialStartsTheNextAfterADelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := addrPortOf(l.Addr()).Port()
	// A listener whose queue is full leaves a SYN unanswered: the first address hangs.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 4}, Port: int(port)}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		nd := net.Dialer{Timeout: 100 * time.Millisecond}
		if c, err := nd.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), port).String()); err == nil {
			defer c.Close()
		}
	}
	names := &fakeNames{addrs: map[string][]netip.Addr{}}
	names.set("two.test", "127.0.0.4", "127.0.0.1")
	var guard seenAddrs
	d := &dialer{names: names, check: guard.check, waits: Deadlines{AttemptDelay: 20 * time.Millisecond}.withDefaults()}
	start := time.Now()
	c, err := d.dialName(context.Background(), "two.test", port, false)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v: the second address was not tried beside the first", took)
	}
	if got := addrPortOf(c.RemoteAddr()); got.IsValid() && got.Addr().String() != "127.0.0.1" {
		t.Errorf("connected to %v", got)
	}
}

func TestDialStages(t *testing.T) {
	refuse := func(netip.Addr, bool) error { return &OwnAddressError{} }
	allow := func(netip.Addr, bool) error { return nil }
	names := &fakeNames{addrs: map[string][]netip.Addr{}}
	names.set("here.test", "127.0.0.1")
	names.set("odd.test", "0.0.0.0")
	closed := closedPort(t)
	for _, c := range []struct {
		name  string
		d     dialer
		host  string
		stage routes.Reason
	}{
		{"no resolver", dialer{check: allow}, "here.test", ReasonUpstreamResolve},
		{"no such name", dialer{names: names, check: allow}, "gone.test", ReasonUpstreamResolve},
		{"guard", dialer{names: names, check: refuse}, "here.test", ReasonUpstreamGuard},
		{"refused", dialer{names: names, check: allow}, "here.test", ReasonUpstreamDial},
	} {
		c.d.waits = Deadlines{}.withDefaults()
		conn, err := c.d.dialName(context.Background(), c.host, closed, false)
		var ue *UpstreamError
		if conn != nil || !errors.As(err, &ue) || ue.Stage != c.stage || ue.Host != c.host {
			t.Errorf("%s: %v, %v; want stage %s", c.name, conn, err, c.stage)
		}
	}
	d := &dialer{check: refuse, waits: Deadlines{}.withDefaults()}
	_, err := d.dialAddr(context.Background(), "pinned.test", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), closed), false)
	var ue *UpstreamError
	var own *OwnAddressError
	if !errors.As(err, &ue) || ue.Stage != ReasonUpstreamGuard || !errors.As(err, &own) {
		t.Errorf("pinned: %v; want the guard's refusal", err)
	}
}

// TestGuardSeesTheAddressOfTheSocketCall checks that the guard's word is asked for each address and cannot be got round
// by a spelling of it.
func TestGuardSeesTheAddressOfTheSocketCall(t *testing.T) {
	var guard seenAddrs
	names := &fakeNames{addrs: map[string][]netip.Addr{}}
	names.set("mapped.test", "::ffff:127.0.0.1")
	d := &dialer{names: names, check: guard.check, waits: Deadlines{}.withDefaults()}
	_, _ = d.dialName(context.Background(), "mapped.test", closedPort(t), false)
	if want := []netip.Addr{netip.MustParseAddr("127.0.0.1")}; !slices.Equal(guard.seen, want) {
		t.Errorf("the guard saw %v; want %v", guard.seen, want)
	}
}

// closedPort returns a port of loopback on which nothing listens. It is none of those that the system gives to sockets by itself (Linux,
// ip_local_port_range), so that a connection which somebody makes meanwhile does not take it.
func closedPort(t testing.TB) uint16 {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.N(12_000)))
		if err != nil {
			continue
		}
		defer l.Close()
		return addrPortOf(l.Addr()).Port()
	}
	t.Fatal("no port is free")
	return 0
}
