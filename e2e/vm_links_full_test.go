//go:build testvm

package e2e

import (
	"fmt"
	"net/netip"
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
