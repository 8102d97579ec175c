package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatewayd/gateway/routes"
)

// greedyVariable makes the test binary a guest that takes what it can get: what it does, the address of its bottle's listener,
// the host that it asks for, and how many connections it makes.
const greedyVariable = "GATEWAYD_GATEWAY_GREEDY"

// pace is how often a slow guest says a byte.
const pace = time.Second

// greedy does what spec says until it is killed. When it has all that it can have, it says how much that is.
func greedy(spec string) {
	f := strings.Split(spec, ",")
	var count int
	if _, err := fmt.Sscan(f[3], &count); len(f) != 4 || err != nil {
		panic("greedy: " + spec)
	}
	g := &greedyGuest{address: f[1], host: f[2]}
	var ready, forever sync.WaitGroup
	turns := make(chan struct{}, 16)
	for range count {
		ready.Add(1)
		forever.Go(func() {
			turns <- struct{}{}
			conn, err := g.dial(strings.HasPrefix(f[0], "h2"))
			<-turns
			if err != nil {
				g.refused.Add(1)
			} else {
				g.held.Add(1)
			}
			ready.Done()
			g.use(f[0], conn)
		})
	}
	ready.Wait()
	fmt.Printf("%d %d\n", g.held.Load(), g.refused.Load())
	forever.Wait()
	select {}
}

// greedyGuest is the guest.
type greedyGuest struct {
	address, host string
	held, refused atomic.Int64
}

// dial makes one connection.
func (g *greedyGuest) dial(h2 bool) (*tls.Conn, error) {
	protocol := alpnH1
	if h2 {
		protocol = alpnH2
	}
	dialer := &net.Dialer{Timeout: testWait}
	conn, err := tls.DialWithDialer(dialer, "tcp", g.address, &tls.Config{InsecureSkipVerify: true, ServerName: "api.test", NextProtos: []string{protocol}})
	return conn, err
}

// use uses a connection, and others after it, for as long as the process lives. conn is nil if it could not be had.
func (g *greedyGuest) use(what string, conn *tls.Conn) {
	for first := true; ; first = false {
		if !first && strings.HasPrefix(what, "h2") {
			conn, _ = g.dial(true)
		}
		if conn == nil {
			if !strings.HasPrefix(what, "h2") {
				return
			}
			time.Sleep(pace) // a guest's pause, not the test's
			continue
		}
		switch what {
		case "idle":
			_, _ = io.Copy(io.Discard, conn)
			return
		case "slow heads":
			g.drip(conn, "GET / HTTP/1.1\r\nHost: "+g.host+"\r\nX-Slow: ")
			return
		case "slow bodies":
			g.drip(conn, "POST /slow HTTP/1.1\r\nHost: "+g.host+"\r\nContent-Length: 1000000\r\n\r\n")
			return
		default:
			g.flood(what, conn)
			conn.Close()
		}
	}
}

// drip says the beginning and then a byte at a time.
func (g *greedyGuest) drip(conn net.Conn, beginning string) {
	_, err := io.WriteString(conn, beginning)
	for err == nil {
		time.Sleep(pace) // a guest's pause, not the test's
		_, err = io.WriteString(conn, "x")
	}
}

// flood sends what only costs until the connection ends.
func (g *greedyGuest) flood(what string, conn net.Conn) {
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	out := bufio.NewWriterSize(conn, 16<<10)
	_, _ = out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(out, nil)
	err := f.WriteSettings()
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for id := uint32(1); err == nil; id += 2 {
		if what == "h2 PING flood" {
			err = f.WritePing(false, [8]byte{})
			continue
		}
		head.Reset()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", g.host}, {":path", "/slow"}} {
			if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
				panic(err) // a buffer takes everything
			}
		}
		err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true})
		if err == nil && what == "h2 rapid reset" {
			err = f.WriteRSTStream(id, http2.ErrCodeCancel)
		}
	}
}

// forgetful takes records and keeps none.
type forgetful struct{}

func (forgetful) Record(Record) {}

// BenchmarkNeighbour measures the requests of one bottle, one in ten on a new connection, while another is greedy: how many
// succeed, how long they take, and what the gateway and the origin, which is in the same process, hold before, during and after.
// The ratios to "quiet" count; the greedy guest is a process of its own on the same CPUs.
func BenchmarkNeighbour(b *testing.B) {
	for _, c := range []struct {
		name, what string
		count      int
		budget     Budget
	}{
		{name: "quiet"},
		{name: "10000 idle", what: "idle", count: 10_000},
		{name: "10000 idle and room for them", what: "idle", count: 10_000, budget: Budget{Flows: 12_000}},
		{name: "1000 slow heads", what: "slow heads", count: 1000},
		{name: "1000 slow bodies", what: "slow bodies", count: 1000},
		{name: "100 h2 rapid reset", what: "h2 rapid reset", count: 100},
		{name: "100 h2 PING flood", what: "h2 PING flood", count: 100},
		{name: "100 h2 unanswered streams", what: "h2 streams", count: 100},
	} {
		b.Run(c.name, func(b *testing.B) { neighbour(b, c.what, c.count, c.budget) })
	}
}

// neighbour is one of them.
func neighbour(b *testing.B, what string, count int, budget Budget) {
	w := newWorld(b, func(o *Options) {
		o.Budget, o.Audit, o.Log = budget, forgetful{}, slog.New(slog.DiscardHandler)
	})
	w.names.set("api.test", "127.0.0.1")
	cert := w.roots.leaf(b, time.Now().Add(time.Hour), "api.test")
	body := strings.Repeat("x", 1024)
	o := newOrigin(b, &cert, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(rw, body)
	})
	r := routes.Route{Host: "api.test", Port: o.port}
	dev, other := testBottle(b, r), namedBottle(b, "other", 2, r)
	w.apply(b, dev, other)
	b.Cleanup(func() { w.apply(b) }) // ends the connections to the origin, which waits for that
	w.sockets.mu.Lock()
	w.sockets.always = anywhere(o.port)
	to := w.sockets.tcp[listenerOf(dev)].Addr().String()
	w.sockets.mu.Unlock()
	url := fmt.Sprintf("https://api.test:%d/", o.port)
	client := w.guestClient(b, other, o.port, false)
	fetch(b, client, url, nil)

	before := inUse()
	stop := func() {}
	if what != "" {
		stop = startGreedy(b, fmt.Sprintf("%s,%s,api.test:%d,%d", what, to, o.port, count))
	}
	var took []time.Duration
	failed := 0
	for b.Loop() {
		if len(took)%10 == 9 {
			client.CloseIdleConnections()
		}
		start := time.Now()
		resp, err := client.Get(url)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if err != nil || resp.StatusCode != http.StatusOK {
			failed++
		}
		took = append(took, time.Since(start))
	}
	during := inUse()
	stop()
	for end := time.Now().Add(3 * testWait); len(w.bottle("dev").open()) > 0 && time.Now().Before(end); {
		fetch(b, client, url, nil)
	}
	slices.Sort(took)
	b.ReportMetric(100*float64(len(took)-failed)/float64(len(took)), "%ok")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(before)/(1<<20), "before-MiB")
	b.ReportMetric(float64(during)/(1<<20), "during-MiB")
	b.ReportMetric(float64(inUse())/(1<<20), "after-MiB")
}

// startGreedy starts a greedy guest and waits until it has what it can get. The function that it returns ends it.
func startGreedy(b *testing.B, spec string) (stop func()) {
	b.Helper()
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), greedyVariable+"="+spec)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var held, refused int
	if _, err := fmt.Fscan(out, &held, &refused); err != nil {
		b.Fatalf("the greedy guest said nothing: %v", err)
	}
	b.Logf("the greedy guest holds %d connections, %d were refused", held, refused)
	return sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
