//go:build testvm

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"gatewayd/lab/vm"
	"gatewayd/vmimage/initramfs"
)

// TestVMQueues boots a VM that uses two queues of a tap made for several: every lane works, and nothing hostile leaves by
// either.
func TestVMQueues(t *testing.T) {
	const queues = 2
	b := newVMBench(t)
	b.serveSites()
	b.Gateway.Env = append(b.Gateway.Env, "VM_TOKEN="+vmToken)
	b.startGateway("bottle: vm\nlink: { tap: " + vmTap + ", multi_queue: true }\n" + vmRoutes)
	b.link = vmTap
	sockets := b.perQueue(t, queues)
	b.startVM(vm.Options{Bottle: "vm", Tap: vmTap, CPUs: queues, Queues: queues, Modules: []string{"8021q"},
		Payload: []initramfs.Payload{{Host: staticClient(t), At: guestClient}}})
	b.client("queues", b.evil.Addr.String(), fmt.Sprint(queues))
	came := map[int][]int{} // by CPU, the sockets that got its frames
	if err := b.World.Settle(b.ctx); err != nil {
		t.Fatal(err)
	}
	for i, fd := range sockets {
		frames := drain(t, fd)
		for cpu := range queues {
			if bytes.Contains(frames, fmt.Appendf(nil, "%s%d;", queueWord, cpu)) {
				came[cpu] = append(came[cpu], i)
			}
		}
	}
	t.Logf("by CPU: %v", came)
	if len(came[0]) != 1 || len(came[1]) != 1 || came[0][0] == came[1][0] {
		t.Errorf("frames of the CPUs came by the queues %v, want one each", came)
	}
	b.checkLanes(t)
	t.Run("hostile root", b.hostile)
}

// perQueue opens sockets at the tap among which frames are divided by the queue that they came by (packet(7),
// PACKET_FANOUT_QM).
func (b *vmBench) perQueue(t *testing.T, n int) (fds []int) {
	t.Helper()
	err := b.World.Gateway.Do(func() error {
		card, err := net.InterfaceByName(vmTap)
		if err != nil {
			return err
		}
		for range n {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { unix.Close(fd) })
			const proto = unix.ETH_P_IP >> 8 // in network byte order; what goes out comes to nobody but ETH_P_ALL
			if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: card.Index}); err != nil {
				return err
			}
			group := os.Getpid()&0xffff | unix.PACKET_FANOUT_QM<<16
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group); err != nil {
				return err
			}
			fds = append(fds, fd)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fds
}

// drain reads what a socket has got so far.
func drain(t *testing.T, fd int) []byte {
	t.Helper()
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, buf[:n]...)
	}
}
