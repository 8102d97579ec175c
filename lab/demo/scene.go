package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gatewayd/lab"
	"gatewayd/lab/vm"
	"gatewayd/vmimage/initramfs"
)

// realToken is what the host holds and the bottle must never see.
const realToken = "real-token-of-the-host-6f1d2c"

const bottleName = "demo"

// tapName is the link of a bottle that is a VM; it lies in the world's own namespace.
const tapName = "gw-demo"

// stopDeadline is how long gatewayd may take to end.
const stopDeadline = 15 * time.Second

// scene is everything that the steps act on.
type scene struct {
	world    *lab.World
	gateway  *lab.Gatewayd
	bottle   *lab.Bottle
	vm       *vm.VM // the bottle, when it is one
	binary   string
	dummy    string
	ca       string // path of the internet's CA, as the bottle sees it
	api      *lab.Site
	files    *lab.Site
	packages *lab.Site
	evil     *lab.Site
}

// build makes the world, starts gatewayd and waits until the bottle is ready.
// The scene is returned also with an error, to be closed.
func build(ctx context.Context, o Options) (*scene, error) {
	s := &scene{binary: o.Gatewayd}
	w, err := lab.New(ctx, lab.Options{})
	if err != nil {
		return s, err
	}
	s.world = w
	s.api = &lab.Site{Names: []string{"api.example.org"}}
	s.files = &lab.Site{Names: []string{"files.example.org"}}
	s.packages = &lab.Site{Names: []string{"packages.example.org"}}
	s.evil = &lab.Site{Names: []string{"evil.example.org"}}
	for _, site := range []*lab.Site{s.api, s.files, s.packages, s.evil} {
		if err := w.Internet.Serve(site); err != nil {
			return s, err
		}
	}
	return s, s.start(ctx, o)
}

func (s *scene) start(ctx context.Context, o Options) error {
	g, err := s.world.NewGatewayd(s.binary, nil)
	if err != nil {
		return err
	}
	s.gateway = g
	g.Env = append(g.Env, "DEMO_TOKEN="+realToken)
	link := "netns: " + s.world.BottleNetns(bottleName)
	if o.VM != "" {
		link = "tap: " + tapName
	}
	if err := g.WriteManifest(bottleName, strings.ReplaceAll(manifest, "LINK", link)); err != nil {
		return err
	}
	if err := g.Start(); err != nil {
		return err
	}
	if err := g.WaitBottle(ctx, bottleName); err != nil {
		return err
	}
	s.ca = filepath.Join(s.world.Dir, "internet-ca.pem")
	if err := os.WriteFile(s.ca, s.world.Internet.CA.PEM(), 0o644); err != nil {
		return fmt.Errorf("write the internet's CA: %w", err)
	}
	inside := s.enterNamespace
	if o.VM != "" {
		inside = func(ctx context.Context) error { return s.bootVM(ctx, o) }
	}
	if err := inside(ctx); err != nil {
		return err
	}
	for _, kv := range s.bottle.Env {
		if v, ok := strings.CutPrefix(kv, "DEMO_TOKEN="); ok {
			s.dummy = v
		}
	}
	if s.dummy == "" {
		return errors.New("read guest environment: it holds no dummy named DEMO_TOKEN")
	}
	return nil
}

// enterNamespace makes the bottle a namespace.
func (s *scene) enterNamespace(ctx context.Context) (err error) {
	files := s.world.GuestFiles(bottleName)
	if _, err := s.gateway.Command(ctx, "guest", bottleName, "-o", files, "--at", files); err != nil {
		return err
	}
	s.bottle, err = s.world.NewBottle(bottleName)
	return err
}

// bootVM makes the bottle a VM. It has gatewayd's binary for a client, and no curl.
func (s *scene) bootVM(ctx context.Context, o Options) (err error) {
	s.vm, err = vm.Boot(ctx, s.world, s.gateway, vm.Options{
		Bottle: bottleName, Tap: tapName, Kernel: o.Kernel,
		Payload: []initramfs.Payload{{Host: s.ca, At: "/internet-ca.pem"}},
	})
	if err != nil {
		return err
	}
	s.ca, s.binary = "/internet-ca.pem", "/"+initramfs.InitPath
	s.bottle = &lab.Bottle{Name: bottleName, Guest: lab.Guest{Env: s.vm.Env}}
	return nil
}

func (s *scene) close() error {
	if s.world == nil {
		return nil
	}
	var err error
	if s.vm != nil && s.vm.Machine != nil {
		err = s.vm.Close()
	}
	if s.gateway != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopDeadline)
		defer cancel()
		err = errors.Join(err, s.gateway.Stop(ctx, syscall.SIGTERM)) // Close kills it if need be
	}
	return errors.Join(err, s.world.Close())
}

// client runs the demo's own client in the bottle.
func (s *scene) client(ctx context.Context, args ...string) (Seen, error) {
	var seen Seen
	out, err := s.run(ctx, append([]string{s.binary, ClientCommand}, args...)...)
	if err != nil {
		return seen, err
	}
	if err := json.Unmarshal(out, &seen); err != nil {
		return seen, fmt.Errorf("read the client's report: %w", err)
	}
	return seen, nil
}

// run runs any program in the bottle and returns its standard output.
func (s *scene) run(ctx context.Context, argv ...string) ([]byte, error) {
	if s.vm != nil {
		out, _, err := s.vm.Output(ctx, nil, argv...)
		return out, err
	}
	var out, errOut bytes.Buffer
	p, err := s.bottle.Start(ctx, nil, &out, &errOut, argv...)
	if err != nil {
		return nil, err
	}
	if err := p.Wait(); err != nil {
		return out.Bytes(), fmt.Errorf("run %s in the bottle: %w: %s", filepath.Base(argv[0]), err, errOut.String())
	}
	return out.Bytes(), nil
}

// curl runs curl in the bottle; ok is false when it has none.
func (s *scene) curl(ctx context.Context, args ...string) (out string, ok bool) {
	path, err := exec.LookPath("curl")
	if err != nil || s.vm != nil {
		return "", false
	}
	b, err := s.run(ctx, append([]string{path, "-sS", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
	if err != nil {
		return err.Error(), true
	}
	return strings.TrimSpace(string(b)), true
}

// packetsTo counts what arrived at an address of the internet so far.
func (s *scene) packetsTo(ctx context.Context, a netip.Addr) (uint64, error) {
	if err := s.world.Settle(ctx); err != nil {
		return 0, err
	}
	return s.world.Internet.Counter.Sum(func(k lab.FlowKey) bool { return k.Dst == a }).Packets, nil
}

// certificateOf is the SHA-256 of a name's real certificate.
func (s *scene) certificateOf(name string) string {
	leaf, err := s.world.Internet.CA.Leaf(name)
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256(leaf.Certificate[0])
	return hex.EncodeToString(sum[:])
}

func httpsAt(a netip.Addr) string { return net.JoinHostPort(a.String(), "443") }
