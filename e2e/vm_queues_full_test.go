//go:build testvm

package e2e

import (
	"bytes"
	"fmt"
	"testing"

	"gatewayd/lab"
	"gatewayd/lab/vm"
	"gatewayd/vmimage/initramfs"
)

// TestVMQueues boots a VM with two CPUs whose kernel sends by a queue for each, on a tap made for several: every lane works, and
// nothing hostile leaves.
func TestVMQueues(t *testing.T) {
	const queues = 2
	b := newVMBench(t)
	b.serveSites()
	b.Gateway.Env = append(b.Gateway.Env, "VM_TOKEN="+vmToken)
	b.startGateway("bottle: vm\nlink: { tap: " + vmTap + ", multi_queue: true }\n" + vmRoutes)
	b.link = vmTap
	b.startVM(vm.Options{Bottle: "vm", Tap: vmTap, CPUs: queues, Queues: queues, Modules: []string{"8021q"},
		Payload: []initramfs.Payload{{Host: staticClient(t), At: guestClient}}})
	onTap, err := lab.NewCapture(b.World.Gateway, vmTap)
	if err != nil {
		t.Fatal(err)
	}
	if out := string(b.client("queues", b.evil.Addr.String(), fmt.Sprint(queues))); out != "CPUs 1\nCPUs 2\n" {
		t.Errorf("the guest's queues: %q", out)
	}
	frames, err := onTap.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for cpu := range queues {
		if !bytes.Contains(frames, fmt.Appendf(nil, "%s%d;", queueWord, cpu)) {
			t.Errorf("nothing came from CPU %d", cpu)
		}
	}
	b.checkLanes(t)
	t.Run("hostile root", b.hostile)
}
