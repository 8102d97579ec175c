package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"

	"gatewayd/lab"
	"gatewayd/lab/privileged"
	"gatewayd/lab/variant"
)

// serveEcho answers TLS on port 443 of a fresh address under a name, with what it is sent. c is what else is wanted of it.
func (b *bench) serveEcho(name string, c *tls.Config) {
	b.t.Helper()
	addr := b.Internet.NewAddress()
	b.Internet.Names.Set(name, addr)
	inner, err := b.Internet.Listen(netip.AddrPortFrom(addr, 443))
	if err != nil {
		b.t.Fatal(err)
	}
	leaf, err := b.Internet.CA.Leaf(name)
	if err != nil {
		b.t.Fatal(err)
	}
	c.Certificates = []tls.Certificate{*leaf}
	l := tls.NewListener(inner, c)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // the client counts what it gets back
			})
		}
	})
	b.t.Cleanup(func() { l.Close(); serving.Wait() })
}

// otherBinary is a gatewayd whose programs' tags are others: built here, or GATEWAYD_TEST_OTHER_BINARY.
func otherBinary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("GATEWAYD_TEST_OTHER_BINARY"); path != "" {
		return path
	}
	privileged.Require(t, privileged.Program("go"))
	path := filepath.Join(t.TempDir(), "gatewayd")
	if err := variant.Build(t.Context(), t.TempDir(), path); err != nil {
		t.Fatal(err)
	}
	return path
}

// tags are those of the programs that are in force.
func (b *bench) tags() string {
	b.t.Helper()
	var tags []string
	for _, name := range []string{"capture_ingress", "capture_egress"} {
		p, err := ebpf.LoadPinnedProgram(filepath.Join(b.BPFDir(), "objects", name), nil)
		if err != nil {
			b.t.Fatal(err)
		}
		info, err := p.Info()
		if err != nil {
			b.t.Fatal(err)
		}
		tags = append(tags, info.Tag)
		p.Close()
	}
	return strings.Join(tags, " ")
}

// TestRestartsUnderLoad kills gatewayd under load and starts it again, as it is, in another version and back, while
// connections are open and others are made to an address that the bottle was told before the first of them. Nothing is
// reset and nothing is lost, nobody asks for the name again, and every new connection takes the fast path, unless its port is
// one that another has just had.
func TestRestartsUnderLoad(t *testing.T) {
	const host, width = "direct.example.org", 8
	other := otherBinary(t)
	b := newBench(t, nil)
	b.serveEcho(host, &tls.Config{})
	b.limit = 5 * patience // gateways start slowly on slow machines
	b.start(fastManifest)
	trustInternet(b)
	stop := filepath.Join(b.Dir, "stop")
	done := make(chan result, 1)
	go func() { done <- b.client("steady", host, fmt.Sprint(width), stop) }()
	moreFresh := func() {
		t.Helper()
		before := len(b.fastRecords(host))
		ctx, cancel := context.WithTimeout(t.Context(), b.limit)
		defer cancel()
		if err := lab.Poll(ctx, func() error {
			if n := len(b.fastRecords(host)); n < before+20 {
				return fmt.Errorf("%d new connections on the fast path", n-before)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	moreFresh()
	this, seen := b.Gateway.Binary, b.tags()
	for _, next := range []struct {
		name, binary string
		swaps        bool
	}{{"restart", this, false}, {"upgrade", other, true}, {"restart of that", other, false}, {"downgrade", this, true}} {
		b.kill()
		b.Gateway.Binary = next.binary
		if err := b.Gateway.Start(); err != nil {
			t.Fatal(err)
		}
		b.ready()
		moreFresh()
		if now := b.tags(); (now != seen) != next.swaps {
			t.Errorf("%s: the programs were %s and are %s", next.name, seen, now)
		} else {
			seen = now
		}
		if r := b.ended(done); r != nil {
			t.Fatalf("%s: the client ended: %v", next.name, r)
		}
	}
	writeFile(t, stop, nil)
	r := <-done
	var got steadySeen
	if err := json.Unmarshal([]byte(r.Out), &got); r.Failed != nil || err != nil {
		t.Fatal(errors.Join(r.Failed, err), r)
	}
	t.Logf("%+v", got)
	if got.Open != width || got.Resets != 0 || got.Lost != 0 || len(got.Failures) != 0 || got.Fresh < 80 || got.Sent < width<<20 {
		t.Errorf("the client saw %+v", got)
	}
	lanes := map[string]int{}
	for _, r := range b.records() {
		if r.Host == host && r.Type == "flow" {
			lanes[r.Lane]++
		}
	}
	asked := 0
	for _, q := range b.Internet.Names.Questions() {
		if strings.EqualFold(q.Name, host+".") && q.Type == "A" {
			asked++
		}
	}
	b.mustHaveLane(host, "fastpath")
	// The relay, which may have some for their ports, asks for itself.
	if lanes["fastpath"] < got.Fresh/2 || asked != 1 && lanes["relay"] == 0 {
		t.Errorf("the name was asked for %d times, and connections had the lanes %v", asked, lanes)
	}
}

// ended returns what a client left, nil while it runs.
func (b *bench) ended(done <-chan result) *result {
	select {
	case r := <-done:
		return &r
	default:
		return nil
	}
}
