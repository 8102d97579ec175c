package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// udpConn is a PacketConn on an ordinary socket, whose own address is what the guest called.
type udpConn struct {
	*net.UDPConn
	mu    sync.Mutex
	fail  int // so many reads fail first
	froms []netip.AddrPort
}

func (c *udpConn) ReadFrom(b []byte) (int, netip.AddrPort, netip.AddrPort, error) {
	c.mu.Lock()
	if c.fail != 0 {
		c.fail--
		c.mu.Unlock()
		return 0, netip.AddrPort{}, netip.AddrPort{}, errors.New("an error that passes")
	}
	c.mu.Unlock()
	n, src, err := c.ReadFromUDPAddrPort(b)
	return n, src, c.LocalAddr().(*net.UDPAddr).AddrPort(), err
}

func (c *udpConn) WriteTo(b []byte, src, dst netip.AddrPort) (int, error) {
	c.mu.Lock()
	c.froms = append(c.froms, dst)
	c.mu.Unlock()
	return c.WriteToUDPAddrPort(b, src)
}

func listenUDP(t *testing.T) *udpConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	return &udpConn{UDPConn: c}
}

// serving runs a server's loop until the test ends, and checks that it then ends well.
func serving(t *testing.T, serve func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestServeUDP(t *testing.T) {
	s, _ := newServer(newUpstream(t, planWorld), nil)
	c := listenUDP(t)
	c.fail = 3
	serving(t, func(ctx context.Context) error { return s.ServeUDP(ctx, c) })
	client := &dns.Client{Timeout: 5 * time.Second}
	for range 3 {
		m, _, err := client.Exchange(ask("a.example.test.", dns.TypeA), c.LocalAddr().String())
		if err != nil || summary(m) != "NOERROR 192.0.2.1 192.0.2.2 ttl 200" {
			t.Fatalf("got %s, %v", summary(m), err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.froms) != 3 || c.froms[0] != c.LocalAddr().(*net.UDPAddr).AddrPort() {
		t.Errorf("answered from %v", c.froms)
	}
}

func TestServeUDPEnds(t *testing.T) {
	s, _ := newServer(newUpstream(t, planWorld), nil)
	c := listenUDP(t)
	c.fail = -1 // for ever
	if err := s.ServeUDP(t.Context(), c); err == nil {
		t.Error("a socket that always fails is no error")
	}
	if _, err := c.WriteToUDPAddrPort(nil, netip.MustParseAddrPort("127.0.0.1:9")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket is open: %v", err)
	}
	c = listenUDP(t)
	c.UDPConn.Close()
	if err := s.ServeUDP(t.Context(), c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.ServeUDP(ctx, listenUDP(t)); err != nil {
		t.Errorf("got %v", err)
	}
}

// A bottle whose lookups hang has so many waiting and no more; what is answered on the spot is dropped too until one ends.
func TestServeUDPBusy(t *testing.T) {
	arrived := make(chan struct{}, 16)
	release := make(chan struct{})
	u := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg {
		arrived <- struct{}{}
		<-release
		return planWorld("", q)
	})
	s, _ := newServer(u, func(c *Config) {
		c.Concurrent = 2
		c.Upstream = NewResolver([]netip.AddrPort{u.addr})
	})
	c := listenUDP(t)
	serving(t, func(ctx context.Context) error { return s.ServeUDP(ctx, c) })
	guest, err := net.Dial("udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	send := func(name string) {
		t.Helper()
		b, err := ask(name, dns.TypeA).Pack()
		if err == nil {
			_, err = guest.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		send(fmt.Sprintf("n%d.wild.test.", i))
		<-arrived
	}
	send("evil.test.")
	for s.counts[Busy].Load() == 0 {
		if t.Context().Err() != nil {
			t.Fatal("not busy")
		}
		pause(t.Context(), time.Millisecond)
	}
	close(release)
	_ = guest.SetReadDeadline(time.Now().Add(5 * time.Second))
	for range 2 {
		if _, err := guest.Read(make([]byte, 2048)); err != nil {
			t.Fatal(err)
		}
	}
}

// listenTCP serves s over TCP and returns the address.
func listenTCP(t *testing.T, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving(t, func(ctx context.Context) error { return s.ServeTCP(ctx, l) })
	return l.Addr().String()
}

func dialTCP(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// framed is a query as it goes over TCP.
func framed(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func TestServeTCP(t *testing.T) {
	s, _ := newServer(newUpstream(t, planWorld), nil)
	addr := listenTCP(t, s)
	client := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	m, _, err := client.Exchange(ask("big.example.test.", dns.TypeA), addr)
	if err != nil || len(m.Answer) != 64 || m.Truncated {
		t.Fatalf("got %s, %v", summary(m), err)
	}
	// Pipelined queries are answered in order, however they are cut.
	c := dialTCP(t, addr)
	var sent []byte
	names := []string{"a.example.test.", "evil.test.", "gone.example.test.", "x.wild.test."}
	for i, name := range names {
		q := ask(name, dns.TypeA)
		q.Id = uint16(i)
		sent = append(sent, framed(t, q)...)
	}
	for len(sent) > 0 {
		n := min(7, len(sent))
		if _, err := c.Write(sent[:n]); err != nil {
			t.Fatal(err)
		}
		sent = sent[n:]
	}
	for i, name := range names {
		b, err := readFramed(c, make([]byte, 4096))
		if err != nil {
			t.Fatal(err)
		}
		if m := parse(t, b); m.Id != uint16(i) || m.Question[0].Name != name {
			t.Errorf("reply %d is %v", i, m)
		}
	}
}

func TestServeTCPRefuses(t *testing.T) {
	s, _ := newServer(newUpstream(t, planWorld), nil)
	addr := listenTCP(t, s)
	for what, sent := range map[string][]byte{
		"length 0": {0, 0}, "length 11": append([]byte{0, 11}, make([]byte, 11)...), "too long": {0xff, 0xff, 0},
		"over the bound": binary.BigEndian.AppendUint16(nil, maxQuery+1), "a response": append([]byte{0, 12, 0, 0, 0x80}, make([]byte, 9)...),
	} {
		c := dialTCP(t, addr)
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: read %d, %v", what, n, err)
		} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%s: the connection stays open", what)
		}
	}
}

func TestServeTCPBounds(t *testing.T) {
	u := newUpstream(t, planWorld)
	t.Run("connections", func(t *testing.T) {
		s, _ := newServer(u, func(c *Config) { c.TCPConns = 2 })
		addr := listenTCP(t, s)
		works := func(c net.Conn) bool {
			_, _ = c.Write(framed(t, ask("evil.test.", dns.TypeA)))
			_, err := readFramed(c, make([]byte, 4096))
			return err == nil
		}
		first, second := dialTCP(t, addr), dialTCP(t, addr)
		if !works(first) || !works(second) {
			t.Fatal("the first two do not work")
		}
		if works(dialTCP(t, addr)) || s.Outcomes()[Busy] != 1 {
			t.Errorf("a third works, outcomes %v", s.Outcomes())
		}
		first.Close()
		for !works(dialTCP(t, addr)) { // until the server has seen the close
			if t.Context().Err() != nil {
				t.Fatal("the place is not given back")
			}
		}
	})
	t.Run("queries on a connection", func(t *testing.T) {
		s, _ := newServer(u, func(c *Config) { c.Burst = 2 * tcpQueries })
		c := dialTCP(t, listenTCP(t, s))
		go func() { _, _ = c.Write(bytes.Repeat(framed(t, ask("evil.test.", dns.TypeA)), tcpQueries+5)) }()
		n := 0
		for {
			if _, err := readFramed(c, make([]byte, 4096)); err != nil {
				break
			}
			n++
		}
		if n > tcpQueries || n == 0 {
			t.Errorf("%d queries answered", n)
		}
	})
	t.Run("over the budget", func(t *testing.T) {
		s, _ := newServer(u, func(c *Config) { c.QueriesPerSecond, c.Burst = 0.001, 1 })
		c := dialTCP(t, listenTCP(t, s))
		_, _ = c.Write(bytes.Repeat(framed(t, ask("evil.test.", dns.TypeA)), 2))
		if _, err := readFramed(c, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if _, err := readFramed(c, make([]byte, 4096)); err == nil {
			t.Error("the second query was answered")
		}
	})
}

// slowConn is a connection whose deadlines are looked at and not waited for.
type slowConn struct {
	net.Conn
	r         io.Reader
	deadlines []time.Time
}

func (c *slowConn) Read(b []byte) (int, error)       { return c.r.Read(b) }
func (c *slowConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *slowConn) Close() error                     { return nil }
func (c *slowConn) SetWriteDeadline(time.Time) error { return nil }
func (c *slowConn) SetReadDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, t)
	return nil
}

// An idle client, or one that sends a byte now and then, is cut off: the deadline is set per query and never moved within one.
func TestServeTCPIdle(t *testing.T) {
	s, _ := newServer(newUpstream(t, planWorld), nil)
	two := bytes.Repeat(framed(t, ask("evil.test.", dns.TypeA)), 2)
	c := &slowConn{r: io.MultiReader(bytes.NewReader(two[:1]), bytes.NewReader(two[1:]))}
	start := time.Now()
	s.serveConn(t.Context(), c)
	if len(c.deadlines) != 3 {
		t.Fatalf("%d deadlines for two queries and the end", len(c.deadlines))
	}
	for _, d := range c.deadlines {
		if in := d.Sub(start); in < tcpIdle || in > tcpIdle+5*time.Second {
			t.Errorf("deadline in %v", in)
		}
	}
}

// brokenListener fails some times and then works, or fails for good.
type brokenListener struct {
	net.Listener
	errs []error
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	return l.Listener.Accept()
}

func TestServeTCPListenerFails(t *testing.T) {
	s, _ := newServer(newUpstream(t, planWorld), nil)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving(t, func(ctx context.Context) error {
		return s.ServeTCP(ctx, &brokenListener{inner, []error{errors.New("no descriptors"), errors.New("no descriptors")}})
	})
	client := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	if m, _, err := client.Exchange(ask("evil.test.", dns.TypeA), inner.Addr().String()); err != nil || len(m.Answer) != 1 {
		t.Errorf("got %v, %v", m, err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if err := s.ServeTCP(t.Context(), closed); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// The end of the context ends connections and lookups that are under way.
func TestServeEndsInTime(t *testing.T) {
	arrived := make(chan struct{}, 16)
	release := make(chan struct{})
	u := newUpstream(t, func(_ string, q *dns.Msg) *dns.Msg {
		arrived <- struct{}{}
		<-release
		return nil
	})
	t.Cleanup(func() { close(release) })
	s, _ := newServer(u, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.ServeTCP(ctx, l) }()
	idle, busy := dialTCP(t, l.Addr().String()), dialTCP(t, l.Addr().String())
	if _, err := busy.Write(framed(t, ask("a.example.test.", dns.TypeA))); err != nil {
		t.Fatal(err)
	}
	<-arrived
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the server does not end")
	}
	for _, c := range []net.Conn{idle, busy} {
		_, err := io.Copy(io.Discard, c) // a last SERVFAIL may still come
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Error("a connection lives on")
		}
	}
}

func BenchmarkHandleDenied(b *testing.B) {
	s := NewServer(Config{Policy: func() Policy { return plan{} }, Block: block, QueriesPerSecond: 1e9, Burst: 1e9})
	msg, err := ask("evil.test.", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if s.Handle(msg) == nil {
			b.Fatal("no reply")
		}
	}
}

func BenchmarkHandleCached(b *testing.B) {
	r := NewResolver(nil)
	r.cache.put(cacheKey{"a.example.test", dns.TypeA}, Answer{Addrs: addrsOf("192.0.2.1", "192.0.2.2")}, nil, time.Now().Add(time.Hour))
	s := NewServer(Config{Policy: func() Policy { return plan{} }, Upstream: r, Pins: NewPins(Limits{}), Block: block, QueriesPerSecond: 1e9, Burst: 1e9})
	msg, err := ask("a.example.test.", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if s.Handle(msg) == nil {
			b.Fatal("no reply")
		}
	}
}
