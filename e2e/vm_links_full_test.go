//go:build testvm

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"gatewayd/lab/vm"
	"gatewayd/vmimage/initramfs"
)

// TestVMPodMTU is TestVMPod with smaller frames.
func TestVMPodMTU(t *testing.T) {
	for _, mtu := range []int{1280, 576} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			b := newVMBench(t)
			b.bootPod(fmt.Sprintf("link: { netns: %s, mtu: %d }\n", b.World.BottleNetns("vm"), mtu), "gw-vm")
			b.checkPod(t, mtu)
		})
	}
}

// TestVMAdopted boots a VM in namespaces as a CNI plugin leaves them.
func TestVMAdopted(t *testing.T) {
	for _, c := range []struct {
		guest string
		mtu   int
	}{{"198.18.250.7/24", 1450}, {"198.18.250.7/32", 576}} {
		t.Run(c.guest, func(t *testing.T) {
			b := newVMBench(t)
			host, err := b.World.MakePod("vm", netip.MustParsePrefix(c.guest), netip.MustParseAddr("198.18.250.1"), c.mtu)
			if err != nil {
				t.Fatal(err)
			}
			b.bootPod("link: { netns: "+b.World.BottleNetns("vm")+", adopt: true }\n", host)
			if b.pod.Guest.String() != c.guest || b.pod.MTU != c.mtu {
				t.Errorf("the pod is %+v", b.pod)
			}
			b.checkPod(t, c.mtu)
		})
	}
}

// TestVMTapWithoutOffload boots a VM whose card leaves nothing to the host.
func TestVMTapWithoutOffload(t *testing.T) {
	b := newVMBench(t)
	b.serveSites()
	b.Gateway.Env = append(b.Gateway.Env, "VM_TOKEN="+vmToken)
	b.startGateway("bottle: vm\nlink: { tap: " + vmTap + ", mtu: 1280 }\n" + vmRoutes)
	b.link = vmTap
	b.startVM(vm.Options{Bottle: "vm", Tap: vmTap, NoOffload: true, Modules: []string{"8021q"},
		Payload: []initramfs.Payload{{Host: staticClient(t), At: guestClient}}})
	b.checkPod(t, 1280)
}

// TestVMReturnsWithAnotherMAC kills a VM while root in it does what it should
// not, and boots it again with another MAC: the old one's frames were as futile
// as the new one's are.
func TestVMReturnsWithAnotherMAC(t *testing.T) {
	b := newVMBench(t)
	b.serveSites()
	b.Gateway.Env = append(b.Gateway.Env, "VM_TOKEN="+vmToken)
	b.link = vmTap
	options := vm.Options{Bottle: "vm", Tap: vmTap, Modules: []string{"8021q"}, Payload: []initramfs.Payload{{Host: staticClient(t), At: guestClient}}}
	manifest := "bottle: vm\nlink: { tap: " + vmTap + ", mac: '%s' }\n" + vmRoutes
	b.startGateway(fmt.Sprintf(manifest, "02:00:00:00:01:01"))
	b.startVM(options)
	running := make(chan error, 1)
	go func() {
		_, _, err := b.VM.Output(b.ctx, []string{clientVariable + "=hostile"}, guestClient, b.evil.Addr.String(), b.packages.Addr.String())
		running <- err
	}()
	eventually(t, func() error { // it has begun
		out, err := b.Gateway.Command(b.ctx, "bottles", "-o", "json")
		if err == nil && !strings.Contains(string(out), `"source_mac"`) {
			err = errors.New("no frame with another MAC has come from the VM")
		}
		return err
	})
	if err := b.VM.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-running; err == nil {
		t.Error("the VM was killed after its program had ended")
	}
	if err := b.Gateway.WriteManifest("vm", fmt.Sprintf(manifest, "02:00:00:00:02:02")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		out, err := b.Gateway.Command(b.ctx, "bottles", "-o", "json")
		if err == nil && !strings.Contains(string(out), "02:00:00:00:02:02") {
			err = errors.New("the new MAC is not in force")
		}
		return err
	})
	b.startVM(options)
	if seen := b.get("-ca", "/internet-ca.pem", "https://packages.example.org/"); seen.Status != 200 {
		t.Errorf("with the new MAC: %+v", seen)
	}
	b.hostile(t)
}
