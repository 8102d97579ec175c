package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatewayd/lab"
	"gatewayd/lab/demo"
	"gatewayd/lab/privileged"
	"gatewayd/lab/vm"
	"gatewayd/vmimage/initramfs"
	"gatewayd/vmimage/qemu"
)

// vmDeadline bounds a test with a VM, emulated on a busy machine.
const vmDeadline = 8 * time.Minute

// vmTap is the bottle's link. It lies in the world's own namespace.
const vmTap = "gw-vm"

// guestClient is where the VM has this test binary.
const guestClient = "/client"

// vmBench is a world whose bottle is a VM.
type vmBench struct {
	t        *testing.T
	ctx      context.Context
	World    *lab.World
	Gateway  *lab.Gatewayd
	VM       *vm.VM
	api      *lab.Site
	files    *lab.Site
	packages *lab.Site
	evil     *lab.Site
	link     string  // the capture link's host end
	mtu      int     // its MTU; 1500 if 0
	pod      *vm.Pod // nil with a tap
}

// vmRoutes are of every kind. Two of the hosts have one address.
const vmRoutes = `egress:
  routes:
    - host: api.example.org
      auth: { scheme: bearer, secret: { env: VM_TOKEN } }
    - host: files.example.org
    - { host: packages.example.org, pipelock: { tls_passthrough: true } }
    - { host: shared.example.org, pipelock: { tls_passthrough: true } }
    - host: scanned.example.org
    - host: "*.wild.example.org"
`

const vmManifest = "bottle: vm\nlink: { tap: " + vmTap + " }\n" + vmRoutes

const vmToken = "real-token-of-the-host-for-the-vm"

// requireVM skips where no VM can be booted.
func requireVM(t *testing.T) {
	t.Helper()
	privileged.Require(t, privileged.Root, privileged.BPF, privileged.Program(qemu.Program), func() error {
		_, err := vm.FindKernel()
		return err
	})
}

// newVMBench makes the world and a gatewayd that does not run yet.
func newVMBench(t *testing.T) *vmBench {
	t.Helper()
	requireVM(t)
	binary := gatewaydBinary(t)
	ctx, cancel := context.WithTimeout(t.Context(), vmDeadline)
	t.Cleanup(cancel)
	w, err := lab.New(ctx, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &vmBench{t: t, ctx: ctx, World: w}
	if b.Gateway, err = w.NewGatewayd(binary, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

// serveSites makes the internet of TestVM.
func (b *vmBench) serveSites() {
	b.t.Helper()
	for _, s := range []struct {
		site **lab.Site
		name string
	}{{&b.api, "api"}, {&b.files, "files"}, {&b.packages, "packages"}, {&b.evil, "evil"}} {
		*s.site = &lab.Site{Names: []string{s.name + ".example.org"}}
		if err := b.World.Internet.Serve(*s.site); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.World.Internet.Serve(&lab.Site{Names: []string{"shared.example.org", "scanned.example.org"}}); err != nil {
		b.t.Fatal(err)
	}
}

// boot starts gatewayd with the manifest, and the bottle as a VM with the payload.
func (b *vmBench) boot(manifest string, memoryMiB int, payload ...initramfs.Payload) {
	b.t.Helper()
	b.link = vmTap
	b.startGateway(manifest)
	b.startVM(vm.Options{Bottle: "vm", Tap: vmTap, Modules: []string{"8021q"}, MemoryMiB: memoryMiB, Payload: payload})
}

func (b *vmBench) startGateway(manifest string) {
	b.t.Helper()
	if err := errors.Join(b.Gateway.WriteManifest("vm", manifest), b.Gateway.Start(), b.Gateway.WaitBottle(b.ctx, "vm")); err != nil {
		b.t.Fatal(err)
	}
}

// startVM boots the VM, with the internet's authority besides its payload.
func (b *vmBench) startVM(o vm.Options) {
	t := b.t
	t.Helper()
	ca := filepath.Join(b.World.Dir, "internet-ca.pem")
	writeFile(t, ca, b.World.Internet.CA.PEM())
	o.Payload = append(o.Payload, initramfs.Payload{Host: ca, At: "/internet-ca.pem"})
	machine, err := vm.Boot(b.ctx, b.World, b.Gateway, o)
	if err != nil {
		t.Fatalf("%v\n%s", err, b.Gateway.Log())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s\ngatewayd:\n%s", machine.Console(), b.Gateway.Log())
		}
		if err := machine.Close(); err != nil {
			t.Error(err)
		}
	})
	b.VM = machine
	t.Logf("Linux %s, %s", machine.Kernel, machine.How)
}

// staticClient builds this test's binary such that it runs where there are no libraries.
func staticClient(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client")
	build := exec.Command("go", "test", "-c", "-o", path, "gatewayd/e2e")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build client: %v\n%s", err, out)
	}
	return path
}

// client runs a client of this package in the VM and returns what it printed.
func (b *vmBench) client(name string, args ...string) []byte {
	b.t.Helper()
	out, errOut, err := b.VM.Output(b.ctx, []string{clientVariable + "=" + name}, append([]string{guestClient}, args...)...)
	if err != nil {
		b.t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, errOut)
	}
	return out
}

func (b *vmBench) get(args ...string) demo.Seen {
	b.t.Helper()
	return b.getFrom("get", args...)
}

// getFrom is get by a client that prints the same.
func (b *vmBench) getFrom(client string, args ...string) demo.Seen {
	b.t.Helper()
	var seen demo.Seen
	if err := json.Unmarshal(b.client(client, args...), &seen); err != nil {
		b.t.Fatal(err)
	}
	return seen
}

// TestVM boots a real guest kernel on the tap and tries from inside what should work and what should not.
func TestVM(t *testing.T) {
	b := newVMBench(t)
	b.serveSites()
	b.Gateway.Env = append(b.Gateway.Env, "VM_TOKEN="+vmToken)
	b.boot(vmManifest, 0, initramfs.Payload{Host: staticClient(t), At: guestClient})
	dummy := b.dummy()
	frames, err := lab.NewCapture(b.World.Gateway, vmTap)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("injected", func(t *testing.T) {
		seen := b.get("-header", "Authorization: Bearer "+dummy, "https://api.example.org/one")
		requests := b.api.Requests()
		if seen.Status != 200 || len(requests) != 1 || requests[0].Header.Get("Authorization") != "Bearer "+vmToken || strings.Contains(seen.Body, vmToken) {
			t.Errorf("%+v, %v", seen, requests)
		}
	})
	t.Run("passed through", b.passedThrough)
	t.Run("relayed", b.relayed)
	t.Run("denied", b.denied)
	t.Run("leak", func(t *testing.T) { b.leak(t, dummy) })
	if data, err := frames.Stop(); err != nil {
		t.Error(err)
	} else {
		mustSpan(t, data, 1500)
		if n := frames.Largest(); n <= 1500+ethernetHeader {
			t.Errorf("the longest frame has %d bytes: no segments came or went that are still to be cut", n)
		}
	}
	t.Run("QUIC", func(t *testing.T) {
		if seen := b.get("-udp", "packages.example.org:443"); !seen.Refused || seen.Milliseconds > 1000 {
			t.Errorf("%+v", seen)
		}
	})
	t.Run("clock", func(t *testing.T) { b.clocks(t, "Authorization: Bearer "+dummy) })
	t.Run("DNS tunnel", func(t *testing.T) { b.tunnel(t, dummy) })
	t.Run("hostile root", b.hostile)
	code, err := b.VM.Run(b.ctx, qemu.Command{Argv: []string{"/gatewayd", "explain"}}, nil, nil)
	if err != nil || code != 2 {
		t.Errorf("a program that ends with 2: %d, %v", code, err)
	}
}

// hostile lets root in the guest send what no honest guest sends. The frames carry a marker: it must be seen on the tap,
// or nothing was tried, and not on the uplink.
func (b *vmBench) hostile(t *testing.T) {
	onTap, err := lab.NewCapture(b.World.Gateway, b.link)
	if err != nil {
		t.Fatal(err)
	}
	onUplink, err := lab.NewCapture(b.World.Gateway, lab.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b.client("hostile", b.evil.Addr.String(), b.packages.Addr.String()))
	if err := b.World.Settle(b.ctx); err != nil {
		t.Fatal(err)
	}
	tap, errTap := onTap.Stop()
	uplink, errUplink := onUplink.Stop()
	if err := errors.Join(errTap, errUplink); err != nil {
		t.Fatal(err)
	}
	names := hostileFrames
	if b.mtu == 0 || b.mtu >= 1280 { // no kernel has IPv6 below (RFC 8200, section 5)
		names = append(slices.Clone(names), ipv6Socket)
	}
	for _, name := range names {
		if !bytes.Contains(tap, hostileMarker(name)) {
			t.Errorf("frame %q did not reach the tap: nothing was tried", name)
		}
		if bytes.Contains(uplink, hostileMarker(name)) {
			t.Errorf("frame %q left", name)
		}
	}
	if bytes.Contains(uplink, []byte(hostileWord)) {
		t.Error("something hostile left")
	}
	left := b.World.Internet.Counter.Sum(func(k lab.FlowKey) bool {
		return k.EtherType != 0x0800 && k.EtherType != 0x0806 || k.Dst == b.evil.Addr || k.EtherType == 0x0800 && k.Src != lab.GatewayUplink
	})
	if left.Packets != 0 {
		t.Errorf("%d packets left that no plan allows", left.Packets)
	}
	// What must work still does.
	if seen := b.get("-ca", "/internet-ca.pem", "https://packages.example.org/"); seen.Status != 200 {
		t.Errorf("afterwards: %+v", seen)
	}
}
