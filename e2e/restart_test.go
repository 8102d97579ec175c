package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"

	"gatewayd/lab/privileged"
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

// otherBinary builds a gatewayd whose programs have an instruction more, so that their tags are others.
func otherBinary(t testing.TB) string {
	t.Helper()
	privileged.Require(t, privileged.Program("go"))
	dir := t.TempDir()
	source, err := filepath.Abs("../gateway/redirect")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := os.ReadFile(filepath.Join(source, "objects.go"))
	if err != nil {
		t.Fatal(err)
	}
	const call = "spec, err := loadGateway()"
	if !bytes.Contains(objects, []byte(call)) {
		t.Fatalf("%q is not in objects.go", call)
	}
	writeFile(t, filepath.Join(dir, "objects.go"), bytes.Replace(objects, []byte(call), []byte("spec, err := loadOther()"), -1))
	writeFile(t, filepath.Join(dir, "other.go"), []byte(`package redirect

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func loadOther() (*ebpf.CollectionSpec, error) {
	spec, err := loadGateway()
	if err != nil {
		return nil, err
	}
	for _, p := range spec.Programs {
		if p.Instructions[0].Reference() != "" {
			continue // what refers to a map keeps that with what it begins
		}
		more := asm.Mov.Imm(asm.R0, 0)
		more.Metadata, p.Instructions[0].Metadata = p.Instructions[0].Metadata, asm.Metadata{}
		p.Instructions = append(asm.Instructions{more}, p.Instructions...)
	}
	return spec, nil
}
`))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(source, "objects.go"): filepath.Join(dir, "objects.go"),
		filepath.Join(source, "other.go"):   filepath.Join(dir, "other.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "overlay.json"), overlay)
	path := filepath.Join(dir, "gatewayd")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", path, "gatewayd/cmd/gatewayd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build another gatewayd: %v\n%s", err, out)
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
// reset and nothing is lost, nobody asks for the name again, and new connections take the fast path again.
func TestRestartsUnderLoad(t *testing.T) {
	const host, width = "direct.example.org", 8
	other := otherBinary(t)
	b := newBench(t, nil)
	b.serveEcho(host, &tls.Config{})
	b.start(fastManifest)
	trustInternet(b)
	stop := filepath.Join(b.Dir, "stop")
	done := make(chan result, 1)
	go func() { done <- b.client("steady", host, fmt.Sprint(width), stop) }()
	moreFresh := func() {
		t.Helper()
		before := len(b.fastRecords(host))
		eventually(t, func() error {
			if n := len(b.fastRecords(host)); n < before+20 {
				return fmt.Errorf("%d new connections on the fast path", n-before)
			}
			return nil
		})
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
	asked := 0
	for _, q := range b.Internet.Names.Questions() {
		if strings.EqualFold(q.Name, host+".") && q.Type == "A" {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("the name was asked for %d times", asked)
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
