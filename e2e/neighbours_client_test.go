package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// neighbourSeen is what an honest bottle got.
type neighbourSeen struct {
	Made, Good int
	P50, P99   time.Duration
	Failure    string // the first
}

// neighbourClient asks for URL again and again, at least COUNT times and for at least as long as its third argument says, one
// in ten on a new connection, and prints neighbourSeen.
func neighbourClient(ctx context.Context, args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	c, err := httpClient("1")
	if err != nil {
		return err
	}
	var seen neighbourSeen
	var took []time.Duration
	for begin := time.Now(); ctx.Err() == nil && (len(took) < count || time.Since(begin) < d); {
		if len(took)%10 == 9 {
			c.CloseIdleConnections()
		}
		start := time.Now()
		if err := mixedGet(ctx, c, args[0], 1024); err == nil {
			seen.Good++
		} else if seen.Failure == "" {
			seen.Failure = err.Error()
		}
		took = append(took, time.Since(start))
		time.Sleep(5 * time.Millisecond) // it is no load itself
	}
	slices.Sort(took)
	seen.Made, seen.P50, seen.P99 = len(took), took[len(took)/2], took[len(took)*99/100]
	return json.NewEncoder(os.Stdout).Encode(seen)
}

// greedyClient does what its first argument names to HOST, on COUNT connections at once, until it is killed. When it has made
// each once, it says how many it has and how many were refused.
func greedyClient(ctx context.Context, args []string) error {
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	g := &greedy{what: args[0], host: args[1]}
	var first, all sync.WaitGroup
	turns := make(chan struct{}, 32)
	for range count {
		first.Add(1)
		all.Go(func() {
			turns <- struct{}{}
			c, err := g.dial(ctx)
			<-turns
			if err != nil {
				g.refused.Add(1)
			} else {
				g.held.Add(1)
			}
			first.Done()
			g.use(ctx, c)
		})
	}
	first.Wait()
	fmt.Printf("%d connections, %d refused\n", g.held.Load(), g.refused.Load())
	all.Wait()
	<-ctx.Done()
	return nil
}

// greedy is a guest that takes what it can get.
type greedy struct {
	what, host    string
	held, refused atomic.Int64
}

// dial makes one connection.
func (g *greedy) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	protocol := "h2"
	if g.what == "idle" {
		protocol = "http/1.1"
	}
	d := tls.Dialer{Config: &tls.Config{NextProtos: []string{protocol}}}
	return d.DialContext(ctx, "tcp4", g.host+":443")
}

// use uses a connection, and, unless it is to be idle, others after it.
func (g *greedy) use(ctx context.Context, c net.Conn) {
	for ctx.Err() == nil {
		if c != nil {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			if g.what == "idle" {
				_, _ = io.Copy(io.Discard, c)
			} else {
				g.flood(c)
			}
			stop()
			c.Close()
		}
		if g.what == "idle" {
			return
		}
		time.Sleep(10 * time.Millisecond) // a guest's pause, not a test's
		c, _ = g.dial(ctx)
	}
}

// flood says what only costs until the connection ends.
func (g *greedy) flood(c net.Conn) {
	go func() { _, _ = io.Copy(io.Discard, c) }()
	out := bufio.NewWriterSize(c, 16<<10)
	_, _ = out.WriteString(http2.ClientPreface) // the next write fails too
	f := http2.NewFramer(out, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	settings := []http2.Setting{}
	if g.what == "tiny windows" {
		settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	}
	err := f.WriteSettings(settings...)
	for id := uint32(1); err == nil; id += 2 {
		block.Reset()
		g.head(enc)
		switch g.what {
		case "PING":
			err = f.WritePing(false, [8]byte{})
		case "SETTINGS":
			err = f.WriteSettings()
		case "CONTINUATION":
			if id == 1 {
				err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true})
			} else {
				err = f.WriteContinuation(1, false, []byte{0x00, 0x01, 'x', 0x01, 'y'}) // a literal field, not indexed
			}
		case "rapid reset":
			if err = g.ask(f, id, block.Bytes()); err == nil {
				err = f.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		case "header bomb": // the first goes into the table, the others name it
			for range 3000 {
				_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 3000)}) // a buffer takes everything
			}
			err = g.ask(f, id, block.Bytes()[:min(block.Len(), 16<<10)])
		case "left requests":
			if err = g.ask(f, id, block.Bytes()); id > 200 {
				_ = out.Flush() // it ends either way
				return
			}
		case "tiny windows":
			err = g.ask(f, id, block.Bytes())
			if id >= 200 {
				if err = out.Flush(); err == nil {
					err = f.WriteWindowUpdate(1+2*(id%100), 1)
				}
				time.Sleep(time.Millisecond) // a byte at a time
			}
		}
	}
	_ = out.Flush()
}

// head encodes the head of a request for much.
func (g *greedy) head(enc *hpack.Encoder) {
	for _, h := range [][2]string{{":method", http.MethodGet}, {":scheme", "https"}, {":authority", g.host}, {":path", "/bulk/down?n=10000000"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}) // a buffer takes everything
	}
}

// ask sends a request, of tiny windows at most a hundred.
func (g *greedy) ask(f *http2.Framer, id uint32, block []byte) error {
	if g.what == "tiny windows" && id >= 200 {
		return nil
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
}
