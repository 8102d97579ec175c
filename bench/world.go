package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gatewayd/lab"
)

// Names of the loads' servers. Nothing but pass-through routes share an address, so that a fast path may carry them.
const (
	rawName   = "raw.bench.example"
	relayName = "relay.bench.example"
	webName   = "web.bench.example"
	apiName   = "api.bench.example"
	bothName  = "both.bench.example" // speaks HTTP/2 as well, which apiName does not

	bottleName = "bench"
	secondName = "bench2" // holds what is beyond one bottle's budget of flows
	realToken  = "real-token-of-the-host-51c7"

	setupPatience = 60 * time.Second // for each server to answer
	stopPatience  = 15 * time.Second
)

// firstName is the name of the nth first connection.
func firstName(n int) string { return fmt.Sprintf("first-%d.%s", n, rawName) }

// world is one internet with two gateways and a bottle behind each: gatewayd's, and the peers'.
type world struct {
	*lab.World
	gatewayd *lab.Gatewayd
	bottle   *lab.Bottle
	second   *lab.Bottle
	idle     []*lab.Bottle // hold what is beyond one's budget

	peerGateway, peerBottle *lab.Namespace

	raw, web, api, both, taker netip.Addr
	iperf                      string
	vm                         *guestVM // nil until a load needs it
	wrk, h2load                string
	dummy                      string         // what the bottle sends for a credential
	ports                      map[string]int // by namespace: the next that a load of many connections may have

	peers   map[string]*program // nil where absent
	absent  map[string]error    // why
	closers []func() error
}

// file is the path of one of the bench's own files.
func (w *world) file(name string) string { return filepath.Join(w.Dir, "bench", name) }

// newWorld makes everything that is measured. names is how many first connections there will be. The caller closes the
// world, also when there is an error.
func newWorld(ctx context.Context, o *options, names int) (*world, error) {
	w := &world{peers: map[string]*program{}, absent: map[string]error{}, ports: map[string]int{}}
	inner, err := lab.New(ctx, lab.Options{})
	if err != nil {
		return w, err
	}
	w.World = inner
	// A packet socket on the uplink would slow gatewayd's side down, and it alone.
	if err := w.Internet.Counter.Close(); err != nil {
		return w, err
	}
	for _, step := range []func(context.Context, *options) error{w.makeServers, w.makePeerSide, w.startPeers, w.startInterceptors} {
		if err := step(ctx, o); err != nil {
			return w, err
		}
	}
	if err := w.startGatewayd(ctx, o, names); err != nil {
		return w, err
	}
	return w, w.startIdleBottles(ctx, o)
}

// close stops and removes all.
func (w *world) close() error {
	if w.World == nil {
		return nil
	}
	var errs []error
	if w.gatewayd != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		errs = append(errs, w.gatewayd.Stop(ctx, syscall.SIGTERM))
	}
	for _, f := range w.closers {
		errs = append(errs, f())
	}
	errs = append(errs, w.Close())
	if left := lab.Leftovers(w.ID, os.TempDir()); len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %q", left))
	}
	return errors.Join(errs...)
}

// run starts a program that ends with the world.
func (w *world) run(ctx context.Context, ns *lab.Namespace, env []string, files []*os.File, argv ...string) (*program, error) {
	p, err := startProgram(ctx, ns, env, files, argv...)
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, p.close)
	return p, nil
}

// makeServers starts what the loads ask, in the internet.
func (w *world) makeServers(ctx context.Context, o *options) error {
	w.raw, w.web, w.api, w.both = w.Internet.NewAddress(), w.Internet.NewAddress(), w.Internet.NewAddress(), w.Internet.NewAddress()
	w.Internet.Names.Set(rawName, w.raw)
	w.Internet.Names.Set(webName, w.web)
	w.Internet.Names.Set(apiName, w.api)
	w.Internet.Names.Set(plainName, w.api)
	w.Internet.Names.Set(bothName, w.both)
	if err := tuneNamespace(w.Internet.Netns, allPorts); err != nil {
		return err
	}
	w.Internet.Names.Set(relayName, relayAddr)
	for _, addr := range []netip.Addr{w.raw, relayAddr} {
		if err := w.makeRaw(ctx, o, addr); err != nil {
			return err
		}
	}
	if o.takes(viaIperf) {
		if err := w.startIperf(ctx, o, w.raw); err != nil {
			w.absent[viaIperf] = err
		}
	}
	if err := w.makeTaker(ctx, o); err != nil {
		return err
	}
	return w.makeWeb(ctx, o)
}

// makeRaw starts the bench's own server at an address.
func (w *world) makeRaw(ctx context.Context, o *options, addr netip.Addr) error {
	l, err := w.Internet.Listen(netip.AddrPortFrom(addr, 443))
	if err != nil {
		return err
	}
	f, err := l.(interface{ File() (*os.File, error) }).File()
	l.Close()
	if err != nil {
		return fmt.Errorf("hand over listener: %w", err)
	}
	_, err = w.run(ctx, w.Internet.Netns, []string{roleVariable + "=server"}, []*os.File{f}, o.self)
	f.Close()
	return err
}

// makeWeb starts the web server at its addresses, which are added by listening there once.
func (w *world) makeWeb(ctx context.Context, o *options) error {
	for _, addr := range []netip.Addr{w.web, w.api, w.both, relayWebAddr} {
		l, err := w.Internet.Listen(netip.AddrPortFrom(addr, 443))
		if err != nil {
			return err
		}
		l.Close()
	}
	for _, name := range []string{webName, apiName, plainName, bothName} {
		text, err := leafPEM(w.Internet.CA, name)
		if err != nil {
			return err
		}
		base, _, _ := strings.Cut(name, ".")
		if _, err := w.write(base+".pem", text); err != nil {
			return err
		}
	}
	if _, err := w.write("ca.pem", string(w.Internet.CA.PEM())); err != nil {
		return err
	}
	if _, err := w.write("www"+smallPath, strings.Repeat("x", smallSize)); err != nil {
		return err
	}
	if _, err := w.write("www"+middlePath, strings.Repeat("x", middleSize)); err != nil {
		return err
	}
	for path, size := range bulkFiles {
		large, err := w.write("www"+path, "")
		if err != nil {
			return err
		}
		if err := os.Truncate(large, size); err != nil {
			return fmt.Errorf("make large file: %w", err)
		}
	}
	if !o.web() {
		return nil
	}
	path, err := o.packages.find(ctx, "nginx")
	if err != nil {
		return fmt.Errorf("start web server: %w", err)
	}
	if w.wrk, err = o.packages.find(ctx, "wrk"); err != nil {
		w.absent["wrk"] = err
	}
	if w.h2load, err = o.packages.find(ctx, "h2load"); err != nil {
		w.absent["h2load"] = err
	}
	config, err := w.write("web/nginx.conf", w.webConfig())
	if err != nil {
		return err
	}
	p, err := w.run(ctx, w.Internet.Netns, o.packages.env(), nil, w.nginx(path, "web", config)...)
	if err != nil {
		return err
	}
	return p.answers(ctx, w.Internet.Netns, netip.AddrPortFrom(w.web, 443))
}

// startPeers starts HAProxy and nginx beside the forwarding kernel. What cannot be started is absent, with the reason.
func (w *world) startPeers(ctx context.Context, o *options) error {
	for _, peer := range []struct {
		name  string
		takes bool
		start func(context.Context, *options, string) error
	}{
		{"haproxy", o.takes(viaHAProxy, viaReencrypt), w.startHAProxy}, {"nginx", o.takes(viaNginx), w.startNginx},
	} {
		if !peer.takes {
			continue
		}
		path, err := o.packages.find(ctx, peer.name)
		if err != nil {
			w.absent[peer.name] = err
			continue
		}
		if err := peer.start(ctx, o, path); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) startHAProxy(ctx context.Context, o *options, path string) error {
	config, err := w.write("haproxy.cfg", w.haproxyConfig())
	if err != nil {
		return err
	}
	p, err := w.run(ctx, w.peerGateway, o.packages.env(), nil, path, "-db", "-q", "-f", config)
	if err != nil {
		return err
	}
	w.peers["haproxy"] = p
	return p.answers(ctx, w.peerGateway, netip.AddrPortFrom(peerNear.Addr(), haproxyPort))
}

func (w *world) startNginx(ctx context.Context, o *options, path string) error {
	config, err := w.write("stream/nginx.conf", w.streamConfig(o.packages.module(path)))
	if err != nil {
		return err
	}
	p, err := w.run(ctx, w.peerGateway, o.packages.env(), nil, w.nginx(path, "stream", config)...)
	if err != nil {
		return err
	}
	w.peers["nginx"] = p
	return p.answers(ctx, w.peerGateway, netip.AddrPortFrom(peerNear.Addr(), nginxPort))
}

// startGatewayd starts gatewayd with routes for all names.
func (w *world) startGatewayd(ctx context.Context, o *options, names int) error {
	if err := tuneNamespace(w.Gateway, gatewayPorts); err != nil {
		return err
	}
	var m strings.Builder
	fmt.Fprintf(&m, "bottle: %s\nlink: { netns: %s }\negress:\n  routes:\n", bottleName, w.BottleNetns(bottleName))
	passthrough := []string{rawName, webName}
	for i := range names {
		passthrough = append(passthrough, firstName(i))
		w.Internet.Names.Set(firstName(i), w.raw)
	}
	for _, name := range passthrough {
		fmt.Fprintf(&m, "    - { host: %s, pipelock: { tls_passthrough: true } }\n", name)
	}
	fmt.Fprintf(&m, "    - { host: %s, allow_private: true, pipelock: { tls_passthrough: true } }\n", relayName)
	fmt.Fprintf(&m, "    - { host: %s, auth: { scheme: bearer, secret: { env: BENCH_TOKEN } } }\n", apiName)
	m.WriteString(scanRoutes())
	g, err := w.NewGatewayd(o.gatewayd, map[string]any{"fast_lane": o.lane})
	if err != nil {
		return err
	}
	w.gatewayd = g
	g.Env = append(g.Env, "BENCH_TOKEN="+realToken)
	if err := g.WriteManifest(bottleName, m.String()); err != nil {
		return err
	}
	second := fmt.Sprintf("bottle: %s\nlink: { netns: %s }\negress:\n  routes:\n    - { host: %s, pipelock: { tls_passthrough: true } }\n",
		secondName, w.BottleNetns(secondName), rawName)
	if err := g.WriteManifest(secondName, second); err != nil {
		return err
	}
	if err := g.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, setupPatience)
	defer cancel()
	if w.bottle, err = w.enterBottle(ctx, bottleName); err != nil {
		return err
	}
	if w.second, err = w.enterBottle(ctx, secondName); err != nil {
		return err
	}
	w.dummy = dummyOf(w.bottle)
	return nil
}

// enterBottle waits for a bottle and takes its files.
func (w *world) enterBottle(ctx context.Context, name string) (*lab.Bottle, error) {
	if err := w.gatewayd.WaitBottle(ctx, name); err != nil {
		return nil, err
	}
	files := w.GuestFiles(name)
	if _, err := w.gatewayd.Command(ctx, "guest", name, "-o", files, "--at", files); err != nil {
		return nil, err
	}
	b, err := w.NewBottle(name)
	if err != nil {
		return nil, err
	}
	ns, err := lab.OpenNamespace(b.Netns)
	if err != nil {
		return nil, err
	}
	return b, tuneNamespace(ns, bottlePorts)
}

// leafPEM is the certificate and the key of a name in one file's text, as nginx and HAProxy read it.
func leafPEM(ca *lab.CA, name string) (string, error) {
	leaf, err := ca.Leaf(name)
	if err != nil {
		return "", err
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return "", fmt.Errorf("write key of %s: %w", name, err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})), nil
}
