package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/lab/privileged"
)

// tlsEcho serves TLS for name on loopback and echoes until the client ends its stream, then says bye.
func tlsEcho(t testing.TB, w *world, name string) uint16 {
	t.Helper()
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), name)
	return serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		if _, err := io.Copy(s, s); err != nil {
			return
		}
		_, _ = s.Write([]byte("bye"))
		_ = s.CloseWrite()
	})
}

func TestPassthroughReachesTheUpstreamUndecrypted(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("pass.test", "127.0.0.1")
	port := tlsEcho(t, w, "pass.test")
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	c := w.sockets.call(t, testLink("dev", 1), anywhere(port))

	// Only the upstream's own authority is trusted here: a terminating gateway could not get through.
	guest := tls.Client(c, &tls.Config{ServerName: "pass.test", RootCAs: w.roots.pool()})
	if _, err := guest.Write([]byte("hello")); err != nil {
		t.Fatalf("write through the relay: %v", err)
	}
	if err := guest.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(guest)
	if err != nil || string(got) != "hellobye" {
		t.Fatalf("read %q, %v; want hellobye: the answer must outlive the guest's half-close", got, err)
	}
	guest.Close()
	r := w.records.flowOf(t, c)
	if r.Decision != routes.Passthrough || r.Lane != LaneRelay || r.Host != "pass.test" || r.Reason != routes.RouteMatched {
		t.Errorf("record %+v: want a relayed passthrough of pass.test", r)
	}
	if r.Upstream != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) {
		t.Errorf("upstream %v: want the address that was dialled", r.Upstream)
	}
	if r.BytesUp < 500 || r.BytesDown < 500 || r.Error != "" {
		t.Errorf("bytes up %d, down %d, error %q: want a handshake's worth each way and no error", r.BytesUp, r.BytesDown, r.Error)
	}
}

// serverFirst is a server that speaks first, as SSH and SMTP do.
func serverFirst(t testing.TB) uint16 {
	return serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "SSH-2.0-made-up\r\n")
		b, err := io.ReadAll(c)
		if err != nil {
			return
		}
		_, _ = c.Write(bytes.ToUpper(b))
		_ = c.CloseWrite()
	})
}

func TestTCPRouteServesServerFirstProtocols(t *testing.T) {
	w := newWorld(t, nil)
	port := serverFirst(t)
	w.apply(t, testBottle(t, routes.Route{Host: "ssh.test", Port: port, Protocol: routes.TCP}))
	dst := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	b := w.bottle("dev")
	if err := b.pins.Add("ssh.test", []netip.Addr{dst.Addr()}, time.Minute); err != nil {
		t.Fatal(err)
	}
	w.g.own = func(netip.Addr) bool { return false } // the server is on loopback, where no guest's connection leads
	c := w.sockets.call(t, testLink("dev", 1), dst)
	banner := make([]byte, len("SSH-2.0-made-up\r\n"))
	if _, err := io.ReadFull(c, banner); err != nil {
		t.Fatalf("read the banner without having sent anything: %v", err)
	}
	if _, err := io.WriteString(c, "quiet"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(c)
	if err != nil || string(rest) != "QUIET" {
		t.Fatalf("read %q, %v after half-close; want QUIET", rest, err)
	}
	r := w.records.flowOf(t, c)
	if r.Decision != routes.Passthrough || r.Lane != LaneRelay || r.Protocol != routes.TCP || r.Host != "ssh.test" {
		t.Errorf("record %+v", r)
	}
	if r.BytesUp != 5 || r.BytesDown != int64(len(banner)+5) {
		t.Errorf("bytes up %d down %d; want 5 and %d", r.BytesUp, r.BytesDown, len(banner)+5)
	}
}

func TestTCPRouteWithoutPinIsRefused(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Deadlines.ForeignHello = 50 * time.Millisecond })
	w.apply(t, testBottle(t, routes.Route{Host: "ssh.test", Port: 2222, Protocol: routes.TCP}))
	c := w.sockets.call(t, testLink("dev", 1), anywhere(2222))
	if _, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("read gave %v; want a RST", err)
	}
	if r := w.records.flowOf(t, c); r.Decision != routes.Deny || r.Lane != LaneNone || r.Reason != ReasonHelloTimeout {
		t.Errorf("record %+v: want denied for want of a hello", r)
	}
}

func TestRelayGuardRefusesWhatTheNameResolvesTo(t *testing.T) {
	for _, c := range []struct {
		name, addr   string
		allowPrivate bool
		want         routes.Reason
	}{
		{"metadata", "169.254.169.254", true, ReasonUpstreamGuard},
		{"private", "10.0.0.1", false, ReasonUpstreamGuard},
		{"mapped private", "::ffff:10.0.0.1", false, ReasonUpstreamGuard},
		{"loopback that is not excepted", "127.9.9.9", true, ReasonUpstreamGuard},
		{"own link", "198.18.1.1", true, ReasonUpstreamGuard},
		{"another bottle", "198.18.2.2", true, ReasonUpstreamGuard},
		{"unspecified", "0.0.0.0", true, ReasonUpstreamGuard},
		{"multicast", "224.0.0.1", true, ReasonUpstreamGuard},
		{"nothing", "", true, ReasonUpstreamResolve},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			if c.addr != "" {
				w.names.set("pass.test", c.addr)
			}
			w.apply(t, testBottle(t, routes.Route{Host: "pass.test", TLSPassthrough: true, AllowPrivate: c.allowPrivate}),
				namedBottle(t, "other", 2))
			conn := w.sockets.call(t, testLink("dev", 1), anywhere(443))
			err := tls.Client(conn, &tls.Config{ServerName: "pass.test", RootCAs: w.roots.pool()}).Handshake()
			if err == nil {
				t.Fatal("the handshake succeeded")
			}
			r := w.records.flowOf(t, conn)
			if r.Reason != c.want || r.Lane != LaneNone || r.BytesDown != 0 {
				t.Errorf("record %+v: want reason %s", r, c.want)
			}
		})
	}
}

// TestRelayResetsBoth makes sure that a RST of one side reaches the other as a RST and not as an end of stream.
func TestRelayResetsBoth(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("pass.test", "127.0.0.1")
	upstreamErr := make(chan error, 1)
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		upstreamErr <- err
	})
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	c := w.sockets.call(t, testLink("dev", 1), anywhere(port))
	if _, err := c.Write(clientHello(t, "pass.test")); err != nil {
		t.Fatal(err)
	}
	w.waitOpen(t, func(i FlowInfo) bool { return i.Upstream.IsValid() })
	reset(c)
	select {
	case err := <-upstreamErr:
		if !isReset(err) {
			t.Errorf("upstream read %v; want a RST", err)
		}
	case <-time.After(testWait):
		t.Fatal("the upstream did not notice")
	}
}

// TestRelayDeliversWhatWasSaidBeforeAReset has a server that answers and closes with the guest's bytes unread, which is a
// RST right behind the answer, while the guest is still sending.
func TestRelayDeliversWhatWasSaidBeforeAReset(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("pass.test", "127.0.0.1")
	answer := strings.Repeat("too large\n", 1000)
	hello := clientHello(t, "pass.test")
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, len(hello)+1)); err == nil {
			_, _ = io.WriteString(c, answer)
		}
	})
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	for range 50 {
		c := w.sockets.call(t, testLink("dev", 1), anywhere(port))
		if _, err := c.Write(hello); err != nil {
			t.Fatal(err)
		}
		sending := make(chan struct{})
		go func() {
			defer close(sending)
			for block := make([]byte, 64<<10); ; {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		}()
		got := make([]byte, len(answer))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != answer {
			t.Fatalf("got %d bytes of the answer, %v", n, err)
		}
		<-sending // ends by the RST
	}
}

func TestRelayEndsWhenIdle(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Deadlines.Sweep, o.Deadlines.RelayIdle = 10*time.Millisecond, 100*time.Millisecond
	})
	w.names.set("pass.test", "127.0.0.1")
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	c := w.sockets.call(t, testLink("dev", 1), anywhere(port))
	if _, err := c.Write(clientHello(t, "pass.test")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("read gave %v; want a RST", err)
	}
	if r := w.records.flowOf(t, c); r.Reason != ReasonIdle || r.Lane != LaneRelay {
		t.Errorf("record %+v: want an idle relay", r)
	}
}

// TestRelaySplices shows that relayed bytes do not enter this process: what it reads by read(2) over the whole transfer
// is what the receiving end reads, and not that much again.
func TestRelaySplices(t *testing.T) {
	const size = 64 << 20
	w := newWorld(t, nil)
	w.names.set("pass.test", "127.0.0.1")
	block := make([]byte, 1<<20)
	hello := clientHello(t, "pass.test")
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, len(hello))); err != nil {
			return // unread bytes would turn the close below into a RST
		}
		for range size / len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	before := readBytes(t)
	c := w.sockets.call(t, testLink("dev", 1), anywhere(port))
	if _, err := c.Write(hello); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	if err != nil || n != size {
		t.Fatalf("read %d bytes, %v; want %d", n, err, size)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if r := w.records.flowOf(t, c); r.BytesDown != size {
		t.Errorf("record counts %d bytes down; want %d", r.BytesDown, size)
	}
	if got := readBytes(t) - before; got < size || got > size*5/4 {
		t.Errorf("this process read %d bytes for a transfer of %d: want them once, by the client", got, size)
	}
}

// readBytes returns what this process has read by read(2) and its like (proc(5), rchar), without splice(2).
func readBytes(t *testing.T) int64 {
	t.Helper()
	privileged.Require(t, privileged.File("/proc/self/io"))
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "rchar: "); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no rchar in /proc/self/io")
	return 0
}

// clientHello returns the first flight of a client that wants name.
func clientHello(t testing.TB, name string) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(b, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() //nolint:gosec // there is no server
	}()
	buf := make([]byte, 16<<10)
	n, err := a.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	<-done
	return buf[:n]
}

// waitOpen waits until an open flow is as wanted.
func (w *world) waitOpen(t testing.TB, want func(FlowInfo) bool) FlowInfo {
	t.Helper()
	end := time.Now().Add(testWait)
	for time.Now().Before(end) {
		for _, i := range w.g.Flows() {
			if want(i) {
				return i
			}
		}
		time.Sleep(time.Millisecond) // polling: there is no event for a state that is only shown
	}
	t.Fatalf("no open flow is as wanted: %+v", w.g.Flows())
	return FlowInfo{}
}

func TestHalfCloseCountsAsIdleSooner(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Deadlines.Sweep, o.Deadlines.HalfCloseIdle = 10*time.Millisecond, 50*time.Millisecond
	})
	w.names.set("pass.test", "127.0.0.1")
	released := make(chan struct{})
	port := serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		<-released // never answers, never closes
	})
	t.Cleanup(func() { close(released) })
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	c := w.sockets.call(t, testLink("dev", 1), anywhere(port))
	if _, err := c.Write(clientHello(t, "pass.test")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !isReset(err) && !errors.Is(err, io.EOF) {
		t.Errorf("read gave %v; want the end", err)
	}
	if r := w.records.flowOf(t, c); r.Reason != ReasonIdle {
		t.Errorf("record %+v: want idle", r)
	}
}
