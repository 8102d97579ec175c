package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gatewayd/lab"
	"gatewayd/lab/vm"
	"gatewayd/vmimage/initramfs"
)

// TestVMPod boots a VM as smolmachines does, in a namespace that gatewayd made.
func TestVMPod(t *testing.T) {
	b := newVMBench(t)
	b.bootPod("link: { netns: "+b.World.BottleNetns("vm")+" }\n", "gw-vm")
	b.checkPod(t, 1500)
}

// bootPod starts gatewayd with the link, and boots the VM in the namespace, in a
// runtime's part.
func (b *vmBench) bootPod(link, hostEnd string) {
	t := b.t
	t.Helper()
	b.serveSites()
	b.Gateway.Env = append(b.Gateway.Env, "VM_TOKEN="+vmToken)
	b.startGateway("bottle: vm\n" + link + vmRoutes)
	p, err := vm.OpenPod(b.World, "vm")
	if err != nil {
		t.Fatal(err)
	}
	b.link, b.pod = hostEnd, p
	b.startVM(vm.Options{Bottle: "vm", Pod: p, Modules: []string{"8021q"}, Payload: []initramfs.Payload{{Host: staticClient(t), At: guestClient}}})
	t.Logf("guest %s, gateway %s, MTU %d, frames sent on by %s", p.Guest, p.Gateway, p.MTU, p.Classifier)
}

// checkPod tries every lane from inside, with hellos that take more than one
// frame, and then what root in the guest should not do. mtu is the link's.
func (b *vmBench) checkPod(t *testing.T, mtu int) {
	netns, tap := b.World.Gateway, b.link
	if b.pod != nil {
		var err error
		if netns, err = lab.OpenNamespace(b.World.BottleNetns("vm")); err != nil {
			t.Fatal(err)
		}
		tap = vm.PodTap
	}
	frames, err := lab.NewCapture(netns, tap)
	if err != nil {
		t.Fatal(err)
	}
	b.mtu = mtu
	b.checkLanes(t)
	if mtu >= 1280 { // QUIC has no smaller datagrams (RFC 9000, section 14), and fragments are dropped
		if seen := b.get("-udp", "packages.example.org:443"); !seen.Refused {
			t.Errorf("QUIC: %+v", seen)
		}
	}
	data, err := frames.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if n := frames.Largest(); b.pod != nil && n > mtu+ethernetHeader {
		t.Errorf("a frame of %d bytes on a link of %d without offload", n, mtu)
	}
	mustSpan(t, data, mtu)
	t.Run("hostile root", b.hostile)
}

// checkLanes has one request by each way that there is.
func (b *vmBench) checkLanes(t *testing.T) {
	t.Run("passed through", b.passedThrough)
	t.Run("relayed", b.relayed)
	t.Run("denied", b.denied)
	dummy := b.dummy()
	seen := b.get("-header", "Authorization: Bearer "+dummy, "https://api.example.org/one")
	if requests := b.api.Requests(); seen.Status != 200 || len(requests) == 0 || requests[len(requests)-1].Header.Get("Authorization") != "Bearer "+vmToken {
		t.Errorf("injected: %+v, %v", seen, requests)
	}
	b.leak(t, dummy)
	mustHaveLane(t, b.Gateway, "api.example.org", "intercept")
}

// leak sends the dummy to a host that it is not for: the guest is told no, the host sees nothing, and the record says why.
func (b *vmBench) leak(t *testing.T, dummy string) {
	t.Helper()
	const url, path = "https://files.example.org/leak", "/leak"
	if seen := b.get("-header", "X-Note: "+dummy, url); seen.Status != 403 {
		t.Errorf("leak: %+v", seen)
	}
	for _, r := range b.files.Requests() {
		if r.URI == path || strings.Contains(fmt.Sprint(r.Header), dummy) {
			t.Errorf("leak: the host saw %+v", r)
		}
	}
	eventually(t, func() error {
		for _, r := range readRecords(t, b.Gateway) {
			if r.Host == "files.example.org" && r.Path == path && r.Reason == "leak" && r.Decision == "deny" {
				return nil
			}
		}
		return errors.New("no record says leak")
	})
}

// dummy is what the guest holds in place of the token.
func (b *vmBench) dummy() string {
	b.t.Helper()
	for _, kv := range b.VM.Env {
		if v, ok := strings.CutPrefix(kv, "VM_TOKEN="); ok {
			return v
		}
	}
	b.t.Fatalf("the guest holds no dummy: %q", b.VM.Env)
	return ""
}

// ethernetHeader is an Ethernet header's length in bytes.
const ethernetHeader = 14

// mustSpan checks that a hello among captured frames takes more than one segment of a link.
func mustSpan(t *testing.T, data []byte, mtu int) {
	t.Helper()
	if n := longestHello(data); n <= mtu-40 {
		t.Errorf("the longest hello has %d bytes: it fits one segment of %d", n, mtu-40)
	} else {
		t.Logf("the longest hello has %d bytes, segments at most %d", n, mtu-40)
	}
}

// longestHello finds the records that hold ClientHellos in captured frames and
// returns the length of the longest, by what its header says.
func longestHello(data []byte) int {
	longest := 0
	for {
		i := bytes.Index(data, []byte{0x16, 3, 1})
		if i < 0 || len(data) < i+11 {
			return longest
		}
		// The record's length, its one message's, and the message's version.
		n := int(binary.BigEndian.Uint16(data[i+3:]))
		if data[i+5] == 1 && data[i+6] == 0 && int(binary.BigEndian.Uint16(data[i+7:]))+4 == n && data[i+9] == 3 && data[i+10] == 3 {
			longest = max(longest, n+5)
		}
		data = data[i+3:]
	}
}
