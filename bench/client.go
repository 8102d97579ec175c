package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	clientPatience = 30 * time.Second // for one connection, whole load included
	mostConnects   = 3000             // of one round: below a bottle's default burst, whose rate is limited
	connectors     = 4                // connections at once of the connect load
)

// Result is what a client prints: how much it did, in how long.
type Result struct {
	// Units is the number of requests, connections or bytes.
	Units float64 `json:"units"`
	// Seconds is how long they took together.
	Seconds float64 `json:"seconds"`
	// Median is that of a single one in microseconds, 0 where nobody waited for a single one.
	Median float64 `json:"median,omitempty"`
	// Connections is how many there were: each leaves one record.
	Connections int `json:"connections"`
}

// job is what a client is told to do.
type job struct {
	load     string
	name     string // in the hello
	connect  string // ADDRESS:PORT, or empty: port 443 of the name's address
	resolver string
	ca       string
	header   string
	from     int // number of the first name of the first load
	count    int // names of the first load
	streams  int
	ports    ports
	bulk     string // path of the large file
	duration time.Duration
	bytes    int64 // of the load that moves so many
	hello    []byte
}

// client does one job and prints its Result.
func client(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	var j job
	f := flag.NewFlagSet("client", flag.ContinueOnError)
	f.StringVar(&j.load, "load", "", "what to do")
	f.StringVar(&j.name, "name", "", "name to call")
	f.StringVar(&j.connect, "connect", "", "address to connect to")
	f.StringVar(&j.resolver, "resolver", "", "DNS server")
	f.StringVar(&j.ca, "ca", "", "PEM file of authorities")
	f.StringVar(&j.header, "authorization", "", "value of the Authorization header")
	f.IntVar(&j.from, "from", 0, "number of the first name")
	f.IntVar(&j.count, "count", 0, "number of names")
	f.IntVar(&j.streams, "streams", 1, "requests at once")
	f.Int64Var(&j.bytes, "bytes", 0, "how many bytes")
	f.IntVar(&j.ports.first, "ports", 0, "first of the ports to call from; the kernel chooses if it is 0")
	f.StringVar(&j.bulk, "bulk", bulkPath, "path of the large file")
	f.DurationVar(&j.duration, "duration", time.Second, "how long")
	if err := f.Parse(args); err != nil {
		return err
	}
	if j.load == manyIdleName {
		j.load = idleName
	}
	if j.load == openName {
		j.load = "hold" // all but where and how many is the same
	}
	loads := map[string]func(context.Context, *job) (Result, error){
		"rr": requestResponse, nearName: requestResponse, "crr": connectRequest, "up": upload, "down": download, "up" + bbrSuffix: upload, "down" + bbrSuffix: download, "up" + oneSuffix: upload, "down" + oneSuffix: download, "first": firstConnection,
		"h1-bulk": httpBulk, "h1-upload": httpUpload, "h1-sse": firstEvents, "h1-fair": slowestBeside, "h2-bulk": httpBulk, "h2-both-bulk": httpBulk, "h2-upload": httpUpload,
		"tls-new": newTLS, volumeName: volume, "h1-full": newTLS, resumedName: resumedTLS, socketName: roundTrips,
	}
	do, ok := loads[j.load]
	if !ok && holders[j.load] == nil {
		return fmt.Errorf("no load is called %q", j.load)
	}
	ctx, cancel := context.WithTimeout(ctx, j.duration+clientPatience)
	defer cancel()
	if j.hello, err = clientHello(ctx, j.name); err != nil {
		return err
	}
	if j.connect == "" && j.load != "first" {
		addr, err := j.resolve(ctx, j.name)
		if err != nil {
			return err
		}
		j.connect = netip.AddrPortFrom(addr, 443).String()
	}
	if holders[j.load] != nil {
		return holdConnections(ctx, &j, in, out)
	}
	r, err := do(ctx, &j)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// resolve asks for a name's first address.
func (j *job) resolve(ctx context.Context, name string) (netip.Addr, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	c := dns.Client{Timeout: 5 * time.Second}
	reply, _, err := c.ExchangeContext(ctx, m, net.JoinHostPort(j.resolver, "53"))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("resolve %s: %w", name, err)
	}
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A.To4()); ok {
				return addr, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("resolve %s: %s without an address", name, dns.RcodeToString[reply.Rcode])
}

// greet connects, sends the hello and reads the answer to it.
func (j *job) greet(ctx context.Context, to string, hello []byte) (*net.TCPConn, error) {
	c, err := j.ports.dialer().DialContext(ctx, "tcp4", to)
	if err != nil {
		return nil, err
	}
	t := c.(*net.TCPConn)
	deadline, _ := ctx.Deadline() // there is always one, see client
	if err := t.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, err := t.Write(hello); err != nil {
		return nil, errors.Join(fmt.Errorf("send hello: %w", err), c.Close())
	}
	kind, _, err := readRecord(t)
	if err == nil && kind != recordHandshake {
		err = fmt.Errorf("a record of type %d", kind)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the answer to the hello: %w", err), c.Close())
	}
	return t, nil
}

// requestResponse sends one message at a time over one connection, the two ends pinned to a CPU each or to the same.
func requestResponse(ctx context.Context, j *job) (Result, error) {
	c, err := j.greet(ctx, j.connect, j.hello)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	took := make([]time.Duration, 0, 1<<20)
	begin := time.Now()
	err = pinned(c, firstCPU, clientPatience, func(s io.ReadWriter) error {
		m := message(askEcho)
		if j.load == nearName {
			m = message(askNear)
		}
		now := time.Now()
		for begin = now; now.Sub(begin) < j.duration; {
			if _, err := s.Write(m); err != nil {
				return err
			}
			if _, err := io.ReadFull(s, m); err != nil {
				return err
			}
			then := now
			now = time.Now()
			took = append(took, now.Sub(then))
		}
		return nil
	})
	r := Result{Units: float64(len(took)), Seconds: time.Since(begin).Seconds(), Connections: 1}
	if err != nil || len(took) == 0 {
		return r, fmt.Errorf("after %d messages: %w", len(took), err)
	}
	r.Median = median(took)
	return r, nil
}

// median is in microseconds. Where the clock is coarser than most of what it timed, as an emulated machine's can be, every
// single time is a whole step or nothing: the mean is then what can be known.
func median(took []time.Duration) float64 {
	slices.Sort(took)
	middle := took[len(took)/2]
	if middle > 0 {
		return float64(middle.Nanoseconds()) / 1e3
	}
	var all time.Duration
	for _, t := range took {
		all += t
	}
	return float64(all.Nanoseconds()) / 1e3 / float64(len(took))
}

// connectRequest connects, sends the hello, reads the answer and closes, over and over.
func connectRequest(ctx context.Context, j *job) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var started, done atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for range connectors {
		all.Go(func() {
			for time.Since(begin) < j.duration && started.Add(1) <= mostConnects && ctx.Err() == nil {
				c, err := j.greet(ctx, j.connect, j.hello)
				if err != nil {
					cancel(err)
					return
				}
				c.Close()
				done.Add(1)
			}
		})
	}
	all.Wait()
	n := int(done.Load())
	r := Result{Units: float64(n), Seconds: time.Since(begin).Seconds(), Connections: n}
	if err := context.Cause(ctx); err != nil {
		return r, fmt.Errorf("after %d connections: %w", n, err)
	}
	return r, nil
}

// upload sends for the duration and counts what the other side has got.
func upload(ctx context.Context, j *job) (r Result, err error) {
	c, err := j.greet(ctx, j.connect, j.hello)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	if err := setCongestion(c, []byte(congestion(j.load))); err != nil {
		return Result{}, err
	}
	data := bulk()
	send := func(s io.ReadWriter) error {
		ask := byte(askSink)
		if j.pins() {
			ask = askTaker
		}
		begin := time.Now()
		if _, err := s.Write(message(ask)); err != nil {
			return err
		}
		for time.Since(begin) < j.duration {
			if _, err := s.Write(data); err != nil {
				return err
			}
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		_, payload, err := readRecord(s)
		if err != nil || len(payload) < 8 {
			return fmt.Errorf("read count: %d bytes: %w", len(payload), err)
		}
		r = Result{Units: float64(binary.BigEndian.Uint64(payload)), Seconds: time.Since(begin).Seconds(), Connections: 1}
		return nil
	}
	err = j.bulkOver(c, send)
	return r, err
}

// download asks for data for the duration and counts it.
func download(ctx context.Context, j *job) (r Result, err error) {
	c, err := j.greet(ctx, j.connect, j.hello)
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	take := func(s io.ReadWriter) error {
		kind := byte(askPour)
		if j.pins() {
			kind = askPump
		}
		begin := time.Now()
		ask := binary.BigEndian.AppendUint32([]byte{kind}, uint32(j.duration.Milliseconds()))
		ask = append(ask, congestion(j.load)...)
		if _, err := s.Write(message(ask...)); err != nil {
			return err
		}
		n, err := drain(s)
		r = Result{Units: float64(n), Seconds: time.Since(begin).Seconds(), Connections: 1}
		return err
	}
	err = j.bulkOver(c, take)
	return r, err
}

// pins says whether the two ends of a bulk load are pinned to one CPU.
func (j *job) pins() bool { return strings.HasSuffix(j.load, oneSuffix) }

// bulkOver does a bulk load's work on its connection.
func (j *job) bulkOver(c *net.TCPConn, work func(io.ReadWriter) error) error {
	if j.pins() {
		return pinned(c, firstCPU, clientPatience, work)
	}
	return work(c)
}

// drain reads to the end and counts.
func drain(r io.Reader) (int64, error) {
	buf := make([]byte, bulkWrite)
	var n int64
	for {
		got, err := r.Read(buf)
		n += int64(got)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// firstConnection takes, for each of count names that nobody asked for before, the time from the DNS question to the
// answer to the hello.
func firstConnection(ctx context.Context, j *job) (Result, error) {
	var took []time.Duration
	begin := time.Now()
	for i := range j.count {
		name := firstName(j.from + i)
		hello, err := clientHello(ctx, name)
		if err != nil {
			return Result{}, err
		}
		start := time.Now()
		addr, err := j.resolve(ctx, name)
		if err != nil {
			return Result{}, err
		}
		to := j.connect
		if to == "" {
			to = netip.AddrPortFrom(addr, 443).String()
		}
		c, err := j.greet(ctx, to, hello)
		if err != nil {
			return Result{}, fmt.Errorf("first connection to %s: %w", name, err)
		}
		took = append(took, time.Since(start))
		c.Close()
	}
	if len(took) == 0 {
		return Result{}, os.ErrInvalid
	}
	n := len(took)
	return Result{Units: float64(n), Seconds: time.Since(begin).Seconds(), Median: median(took), Connections: n}, nil
}
