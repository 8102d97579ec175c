package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"gatewayd/lab"
	"gatewayd/lab/vm"
	"gatewayd/vmimage/initramfs"
	"gatewayd/vmimage/qemu"
)

// The VM has two cards: its bottle's tap, and a tap of the same gateway that is nobody's bottle, whose packets the kernel
// forwards and masquerades. Its default route says which of them a load takes.
const (
	vmBottle = "vm"
	vmTap    = "gw-bench-vm"
	plainTap = "plain0"
	vmMemory = 768
	vmSelf   = "/bench"
	vmCA     = "/internet-ca.pem"
	// vmLibraries has what programs need that come from packages which are not installed.
	vmLibraries = "/lib/bench"
	plainRules  = `table ip bench_plain {
    chain post {
        type nat hook postrouting priority srcnat;
        ip saddr 198.18.254.0/30 oifname "` + lab.Uplink + `" masquerade
    }
}
`
)

var (
	plainNear  = netip.MustParsePrefix("198.18.254.1/30")
	plainGuest = netip.MustParsePrefix("198.18.254.2/30")
	plainMAC   = net.HardwareAddr{0x02, 0, 0, 0, 0xfe, 0x02}
)

// Names that only the VM calls. Their addresses are private, so that the relay carries them; see relayAddr.
const (
	relayWebName = "relay-web.bench.example"
	iperfName    = "iperf.bench.example"
)

// leastInVM is how many seconds wrk and iperf3 run at least: an emulated machine takes some for sixteen handshakes alone.
const leastInVM = 5

// guestVM is the VM, and what runs in it.
type guestVM struct {
	*vm.VM
	card  string // of the bottle
	route netip.Addr
	wrk   string
	iperf string
}

// vmManifest is the plan of the VM's bottle.
func vmManifest() string {
	var m strings.Builder
	fmt.Fprintf(&m, "bottle: %s\nlink: { tap: %s }\negress:\n  routes:\n", vmBottle, vmTap)
	for _, name := range []string{rawName, webName} {
		fmt.Fprintf(&m, "    - { host: %s, pipelock: { tls_passthrough: true } }\n", name)
	}
	for _, name := range []string{relayName, relayWebName} {
		fmt.Fprintf(&m, "    - { host: %s, allow_private: true, pipelock: { tls_passthrough: true } }\n", name)
	}
	fmt.Fprintf(&m, "    - { host: %s, port: %d, protocol: tcp, allow_private: true }\n", iperfName, iperfPort)
	fmt.Fprintf(&m, "    - { host: %s, auth: { scheme: bearer, secret: { env: BENCH_TOKEN } } }\n", apiName)
	return m.String()
}

// bootVM makes the bottle and the plain tap, and boots the VM. What keeps it from booting makes its rows absent.
func (w *world) bootVM(ctx context.Context, o *options) error {
	if _, err := vm.FindKernel(); err != nil {
		w.lacksVM(err)
		return nil
	}
	if err := w.serveVM(ctx, o); err != nil {
		return err
	}
	if err := w.makePlainTap(ctx, o); err != nil {
		return err
	}
	if err := w.gatewayd.WriteManifest(vmBottle, vmManifest()); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, setupPatience)
	defer cancel()
	if err := w.gatewayd.WaitBottle(ready, vmBottle); err != nil {
		return err
	}
	g := &guestVM{}
	payload, err := w.vmPayload(ctx, o, g)
	if err != nil {
		return err
	}
	o.say("booting a VM")
	g.VM, err = vm.Boot(ctx, w.World, w.gatewayd, vm.Options{Bottle: vmBottle, Tap: vmTap, MemoryMiB: vmMemory, Payload: payload,
		Cards: []qemu.Card{{Tap: plainTap, MAC: plainMAC, VnetHdr: true, Offload: true}}})
	if errors.Is(err, qemu.ErrNoQEMU) {
		w.lacksVM(err)
		return nil
	}
	if err != nil {
		return err
	}
	w.closers = append(w.closers, g.Close)
	w.vm = g
	return g.readNetwork()
}

// lacksVM makes all rows of VMs absent.
func (w *world) lacksVM(err error) {
	for _, via := range vmPaths {
		w.absent[via] = err
	}
}

// serveVM starts in the internet what only the VM asks.
func (w *world) serveVM(ctx context.Context, o *options) error {
	w.Internet.Names.Set(relayWebName, relayWebAddr)
	w.Internet.Names.Set(iperfName, relayAddr)
	return w.startIperf(ctx, o, relayAddr)
}

// makePlainTap makes the tap that the kernel forwards from.
func (w *world) makePlainTap(ctx context.Context, o *options) error {
	rules, err := w.write("plain.nft", plainRules)
	if err != nil {
		return err
	}
	if err := w.nft(ctx, o, w.Gateway, "-f", rules); err != nil {
		return fmt.Errorf("set masquerading: %w", err)
	}
	return w.Gateway.Do(func() error {
		tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: plainTap}, Mode: netlink.TUNTAP_MODE_TAP,
			Flags: netlink.TUNTAP_ONE_QUEUE | netlink.TUNTAP_VNET_HDR}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("make link %s: %w", plainTap, err)
		}
		if err := raise(plainTap, plainNear); err != nil {
			return err
		}
		return sysctl("net/ipv4/conf/"+plainTap+"/forwarding", "1")
	})
}

// vmPayload is what the VM gets: this program, and the others that are loads.
func (w *world) vmPayload(ctx context.Context, o *options, g *guestVM) ([]initramfs.Payload, error) {
	ca := w.file("ca.pem")
	all := []initramfs.Payload{{Host: ca, At: vmCA}}
	self, err := initramfs.Program(ctx, o.self)
	if err != nil {
		return nil, err
	}
	self[0].At = vmSelf
	all = append(all, self...)
	for name, path := range map[string]*string{"wrk": &g.wrk, "iperf3": &g.iperf} {
		if *path, err = o.packages.find(ctx, name); err != nil {
			return nil, err
		}
		p, err := initramfs.Program(ctx, *path, o.packages.env()...)
		if err != nil {
			return nil, err
		}
		p[0].At = "/bin/" + name
		*path = p[0].At
		for i := range p[1:] { // what was unpacked may lie where the VM has a file system of its own, such as /tmp
			if lib := &p[1+i]; strings.HasPrefix(lib.Host, o.packages.dir) {
				lib.At = filepath.Join(vmLibraries, filepath.Base(lib.Host))
			}
		}
		all = append(all, p...)
	}
	return all, nil
}

// vmName is the name that a path's client calls for a load.
func (l load) vmName(via string) string {
	switch {
	case l.name == "vm-iperf3":
		return iperfName
	case via == viaVMIntercept:
		return apiName
	case via == viaVMRelay && l.host == rawName:
		return relayName
	case via == viaVMRelay:
		return relayWebName
	}
	return l.host
}

// runVM does one load in the VM over one path.
func (w *world) runVM(ctx context.Context, o *options, l load, via string) (Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.duration+2*clientPatience, fmt.Errorf("not done after %s", o.duration+2*clientPatience))
	defer cancel()
	resolver, err := w.steer(ctx, via)
	if err != nil {
		return Result{}, err
	}
	ca := vmCA
	dummy := realToken
	if via == viaVMIntercept {
		ca = "/etc/gatewayd/ca.pem"
		dummy = ""
		for _, kv := range w.vm.Env {
			if v, ok := strings.CutPrefix(kv, "BENCH_TOKEN="); ok {
				dummy = v
			}
		}
	}
	libraries := []string{"LD_LIBRARY_PATH=" + vmLibraries}
	seconds := strconv.Itoa(max(leastInVM, int(o.duration.Seconds())))
	switch {
	case l.name == "vm-iperf3":
		out, _, err := w.vm.Output(ctx, libraries, w.vm.iperf, "-c", l.host, "-p", strconv.Itoa(iperfPort), "-t", seconds, "-J")
		if err != nil {
			return Result{}, fmt.Errorf("%w: %s", err, out)
		}
		return parseIperf(out)
	case l.wrk:
		out, _, err := w.vm.Output(ctx, libraries, w.vm.wrk, "-t1", "-c"+strconv.Itoa(wrkConnections), "-d"+seconds,
			"-H", "Authorization: Bearer "+dummy, "https://"+l.host+":443"+smallPath)
		if err != nil {
			return Result{}, err
		}
		return parseWrk(string(out))
	}
	out, _, err := w.vm.Output(ctx, []string{roleVariable + "=client"}, vmSelf, "-load", strings.TrimPrefix(l.name, "vm-"), "-name", l.host,
		"-resolver", resolver, "-ca", ca, "-authorization", "Bearer "+dummy, "-duration", o.duration.String(), "-bulk", vmBulkPath)
	if err != nil {
		return Result{}, err
	}
	var r Result
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("read the client's result: %w", err)
	}
	return r, nil
}

// steer makes the path the VM's way out and returns the resolver there.
func (w *world) steer(ctx context.Context, via string) (resolver string, err error) {
	mac, router, address := w.vm.card, w.vm.route, ""
	resolver = router.String()
	if via == viaVMKernel {
		mac, router, address = plainMAC.String(), plainNear.Addr(), plainGuest.String()
		resolver = lab.Resolver.Addr().String()
	}
	_, _, err = w.vm.Output(ctx, []string{roleVariable + "=steer"}, vmSelf, "-mac", mac, "-address", address, "-router", router.String(),
		"-resolver", resolver)
	return resolver, err
}

// readNetwork reads what the guest files say of the bottle's card.
func (g *guestVM) readNetwork() error {
	text, err := os.ReadFile(g.Files + "/network.json")
	if err != nil {
		return fmt.Errorf("read network of the VM: %w", err)
	}
	var n struct{ MAC, Gateway string }
	if err := json.Unmarshal(text, &n); err != nil {
		return fmt.Errorf("read network of the VM: %w", err)
	}
	g.card = n.MAC
	if g.route, err = netip.ParseAddr(n.Gateway); err != nil {
		return fmt.Errorf("read network of the VM: %w", err)
	}
	return nil
}

// isVM says whether a path begins in the VM.
func isVM(via string) bool { return slices.Contains(vmPaths, via) }
