package gateway

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// Each benchmark has the lanes beside the least that a proxy can do, and beside no proxy at all, so that one run gives
// ratios: go test -bench Relay -run '^$' ./gateway/

// way is a way from a client to the upstream.
type way struct {
	name string
	dial func(b *testing.B) *net.TCPConn
}

// ways returns the gateway's relay, a proxy that only copies, and the direct way, all to port.
func ways(b *testing.B, hello []byte, port uint16) []way {
	w := newWorld(b, func(o *Options) { o.Budget = Budget{FlowsPerSecond: 1 << 30, FlowBurst: 1 << 30} })
	w.names.set("pass.test", "127.0.0.1")
	w.apply(b, testBottle(b, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}))
	upstream := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()
	proxy := copyProxy(b, upstream)
	dial := func(addr string) func(*testing.B) *net.TCPConn {
		return func(b *testing.B) *net.TCPConn {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			return c.(*net.TCPConn)
		}
	}
	start := func(dial func(*testing.B) *net.TCPConn) func(*testing.B) *net.TCPConn {
		return func(b *testing.B) *net.TCPConn {
			c := dial(b)
			if _, err := c.Write(hello); err != nil {
				b.Fatal(err)
			}
			return c
		}
	}
	return []way{
		{"relay", start(func(b *testing.B) *net.TCPConn { return w.sockets.call(b, testLink("dev", 1), anywhere(port)) })},
		{"copy", start(dial("127.0.0.1:" + strconv.Itoa(int(proxy))))},
		{"direct", start(dial(upstream))},
	}
}

// copyProxy connects each client to upstream with two io.Copy, which is all that it does.
func copyProxy(b *testing.B, upstream string) uint16 {
	return serveEach(b, "127.0.0.1", func(c *net.TCPConn) {
		u, err := net.Dial("tcp", upstream)
		if err != nil {
			return
		}
		defer u.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.Copy(c, u)
			_ = c.CloseWrite()
		})
		_, _ = io.Copy(u, c)
		_ = u.(*net.TCPConn).CloseWrite()
		wg.Wait()
	})
}

// BenchmarkRelayRR is a ping-pong of 128 bytes on one connection.
func BenchmarkRelayRR(b *testing.B) {
	hello := clientHello(b, "pass.test")
	port := serveEach(b, "127.0.0.1", func(c *net.TCPConn) {
		_ = c.SetDeadline(time.Time{})
		if _, err := io.ReadFull(c, make([]byte, len(hello))); err == nil {
			_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 4096))
		}
	})
	for _, way := range ways(b, hello, port) {
		b.Run(way.name, func(b *testing.B) {
			c := way.dial(b)
			defer c.Close()
			_ = c.SetDeadline(time.Time{})
			buf := make([]byte, 128)
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRelayCRR connects, sends the hello and 128 bytes, reads as many back and closes.
func BenchmarkRelayCRR(b *testing.B) {
	hello := clientHello(b, "pass.test")
	port := serveEach(b, "127.0.0.1", func(c *net.TCPConn) {
		buf := make([]byte, len(hello)+128)
		if _, err := io.ReadFull(c, buf); err == nil {
			_, _ = c.Write(buf[:128])
		}
	})
	for _, way := range ways(b, hello, port) {
		b.Run(way.name, func(b *testing.B) {
			buf := make([]byte, 128)
			for b.Loop() {
				c := way.dial(b)
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}

// BenchmarkRelayBulk sends one megabyte at a time from the upstream to the client.
func BenchmarkRelayBulk(b *testing.B) {
	hello := clientHello(b, "pass.test")
	block := make([]byte, 1<<20)
	port := serveEach(b, "127.0.0.1", func(c *net.TCPConn) {
		_ = c.SetDeadline(time.Time{})
		if _, err := io.ReadFull(c, make([]byte, len(hello))); err != nil {
			return
		}
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	for _, way := range ways(b, hello, port) {
		b.Run(way.name, func(b *testing.B) {
			c := way.dial(b)
			defer c.Close()
			_ = c.SetDeadline(time.Time{})
			b.SetBytes(int64(len(block)))
			buf := make([]byte, len(block))
			for b.Loop() {
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
