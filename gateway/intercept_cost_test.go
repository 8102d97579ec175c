package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// What intercepted connections may cost.
const (
	idleBytes     = 17 << 10 // of heap and stacks for one that is idle: 16 KB, and what a small sample varies by
	idleH2Bytes   = 18 << 10 // the same over HTTP/2: 17 KB
	requestAllocs = 58       // heap objects for one request, scanned, injected and masked, with the server's and the client's few
)

// terse is a server that answers every request with 1 KB and allocates nothing for it.
func terse(t *testing.T, w *world) uint16 {
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test")
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	answer := []byte("HTTP/1.1 200 OK\r\nServer: terse\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))
	return serveEach(t, "127.0.0.1", func(c *net.TCPConn) {
		conn := tls.Server(c, config)
		in := bufio.NewReader(conn)
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) > 2 {
				continue
			}
			if _, err := conn.Write(answer); err != nil {
				return
			}
		}
	})
}

// TestInterceptCosts looks at what requests and idle connections take of memory.
func TestInterceptCosts(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	port := terse(t, w)
	r := routes.Route{Host: "api.test", Port: port, Auth: authRoute(t, "api.test", port).Auth}
	b := testBottle(t, r)
	w.apply(t, b)
	defer w.apply(t) // ends the connections to the server, which waits for that
	raw := fmt.Sprintf("GET /v1/items/42?fields=name HTTP/1.1\r\nHost: api.test:%d\r\nUser-Agent: test/1.0\r\nAccept: */*\r\nX-Request-Id: 4f1c2d3e\r\n\r\n", port)

	s := &stage{world: w, b: b, port: port}
	conn, in := s.raw(t, "api.test", port)
	once := func() {
		if _, err := io.WriteString(conn, raw); err != nil {
			t.Fatal(err)
		}
		if err := skipResponse(in); err != nil {
			t.Fatal(err)
		}
	}
	once()
	allocs := testing.AllocsPerRun(200, once)
	t.Logf("%.0f objects for one request", allocs)
	if allocs > requestAllocs {
		t.Errorf("one request takes %.0f heap objects, want at most %d", allocs, requestAllocs)
	}

	const count = 200
	before := inUse()
	for range count {
		near := w.sockets.call(t, b.Link, anywhere(port))
		client := tls.Client(near, &tls.Config{RootCAs: bottlePool(t, b), ServerName: "api.test"})
		if _, err := io.WriteString(client, raw); err != nil {
			t.Fatal(err)
		}
		if err := skipResponse(bufio.NewReader(client)); err != nil {
			t.Fatal(err)
		}
		defer near.Close() // what the client has of TLS goes here, so that the gateway's side alone is counted
	}
	each := (inUse()-before)/count - idleOthers
	t.Logf("%d bytes for each of %d idle connections", each, count)
	if each > idleBytes {
		t.Errorf("an idle connection holds %d bytes, want at most %d", each, idleBytes)
	}
}

// idleOthers is what is not an idle connection's: what is remembered of its one request, in the bottle's ring, which is bounded, and in
// the test's list, and the client's socket and the test's note to close it.
var idleOthers = 2*int(reflect.TypeFor[Record]().Size()) + 800

// TestIdleH2Costs looks at what connections over HTTP/2 hold that are idle after one request each.
func TestIdleH2Costs(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	port := terse(t, w)
	s := &stage{world: w, port: port}
	s.b = testBottle(t, routes.Route{Host: "api.test", Port: port, Auth: authRoute(t, "api.test", port).Auth})
	w.apply(t, s.b)
	defer w.apply(t) // ends the connections to the server, which waits for that
	open := func() net.Conn {
		f := s.newFrames(t)
		status, _ := f.ask(t, ":method", "GET", ":scheme", "https", ":path", "/v1/items/42?fields=name", ":authority", fmt.Sprintf("api.test:%d", port),
			"user-agent", "test/1.0", "accept", "*/*", "x-request-id", "4f1c2d3e")
		if status != "200" {
			t.Fatalf("answered %s", status)
		}
		return f.conn.NetConn() // what the client has of TLS and HTTP/2 goes here, so that the gateway's side alone is counted
	}
	first := open()
	defer first.Close()
	const count = 120 // below what a bottle may have
	before := inUse()
	for range count {
		near := open()
		defer near.Close()
	}
	each := (inUse()-before)/count - idleOthers
	t.Logf("%d bytes for each of %d idle connections", each, count)
	if each > idleH2Bytes {
		t.Errorf("an idle connection holds %d bytes, want at most %d", each, idleH2Bytes)
	}
}

// inUse is what heap and stacks hold after everything that nobody needs is gone. That takes some collections: a stack is halved by each,
// and pools are emptied by the second.
func inUse() int {
	var m runtime.MemStats
	least := math.MaxInt
	for again := 4; again > 0; again-- {
		time.Sleep(10 * time.Millisecond) // for those that are on their way to where they wait
		runtime.GC()
		runtime.ReadMemStats(&m)
		if now := int(m.HeapAlloc + m.StackInuse); now < least-4<<10 {
			least, again = now, 4
		}
	}
	return least
}
