// Package vm boots a bottle of a lab world as a real VM, on the tap that gatewayd made for it.
package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"gatewayd/lab"
	"gatewayd/vmimage"
	"gatewayd/vmimage/initramfs"
	"gatewayd/vmimage/pod"
	"gatewayd/vmimage/qemu"
)

// KernelsVariable is the environment variable that names directories with kernels, separated as in PATH. Without it the
// host's own kernel is taken.
const KernelsVariable = "GATEWAYD_TEST_KERNELS"

// maxOutput bounds what is kept of one stream of a program.
const maxOutput = 16 << 20

// Options of a VM.
type Options struct {
	// Bottle is the name in the manifest, whose link is Tap.
	Bottle, Tap string
	// Pod puts the VM into a pod's namespace instead, on a tap without virtio headers, with what the pod's eth0 says.
	Pod *Pod
	// Payload is what the guest gets besides its guest files and gatewayd.
	Payload []initramfs.Payload
	// MemoryMiB is 512 if 0. CPUs is one if 0.
	MemoryMiB, CPUs int
	// Queues are those of the bottle's card; one if 0.
	Queues int
	// Kernel is a directory of a kernel; "" looks where KernelsVariable says.
	Kernel string
	// Type is a machine type of QEMU; "" is any that works.
	Type string
	// NoOffload makes the guest cut segments and sum checksums itself.
	NoOffload bool
	// Cards are the guest's network cards after the bottle's.
	Cards []qemu.Card
	// Modules are loaded besides initramfs.DefaultModules.
	Modules []string
}

// Pod is a namespace with a tap for a VM.
type Pod = pod.Pod

// PodTap is the tap in a pod.
const PodTap = pod.Tap

// OpenPod makes the bottle's namespace ready for a VM.
func OpenPod(w *lab.World, bottle string) (*Pod, error) { return pod.Open(w.BottleNetns(bottle)) }

// VM is a bottle that runs as a VM. Its methods are those of the machine, and what programs in it print.
type VM struct {
	*qemu.Machine
	// Files are the guest files, as they lie on the host.
	Files string
	// Kernel is the guest's release.
	Kernel string
	// Env is the bottle's environment.
	Env []string
}

// FindKernel finds the kernel for VMs on this machine.
func FindKernel() (initramfs.Kernel, error) {
	if dirs := filepath.SplitList(os.Getenv(KernelsVariable)); len(dirs) > 0 {
		return initramfs.FindKernel(dirs...)
	}
	return initramfs.FindKernel("/")
}

// Boot writes the guest files of a running bottle, makes an initramfs with them and boots it. It blocks for some seconds.
// The caller closes the VM before the world.
func Boot(ctx context.Context, w *lab.World, g *lab.Gatewayd, o Options) (*VM, error) {
	kernel, err := FindKernel()
	if o.Kernel != "" {
		kernel, err = initramfs.FindKernel(o.Kernel)
	}
	if err != nil {
		return nil, err
	}
	v := &VM{Files: w.GuestFiles(o.Bottle), Kernel: kernel.Release}
	if _, err := g.Command(ctx, "guest", o.Bottle, "-o", v.Files, "--at", vmimage.DefaultAt); err != nil {
		return nil, err
	}
	spec := initramfs.Spec{Init: g.Binary, Payload: o.Payload}
	if spec.Files, err = readFiles(v.Files); err != nil {
		return nil, err
	}
	if spec.Modules, err = initramfs.LoadModules(ctx, kernel, append(append([]string{}, initramfs.DefaultModules...), o.Modules...)...); err != nil {
		return nil, err
	}
	if v.Env, err = v.environment(); err != nil {
		return nil, err
	}
	c := qemu.Config{Kernel: kernel, Init: []string{initramfs.InitPath, "vm-init"}, MemoryMiB: o.MemoryMiB, CPUs: o.CPUs, Type: o.Type}
	if err := o.connect(w, v, &c, spec.Files); err != nil {
		return nil, err
	}
	initrd := filepath.Join(w.Dir, "initramfs-"+o.Bottle)
	if err := spec.WriteFile(initrd); err != nil {
		return nil, err
	}
	defer os.Remove(initrd) // QEMU has read it by then
	c.Initrd = initrd
	v.Machine, err = qemu.Start(ctx, c)
	return v, err
}

// connect says where the VM's cards go, and what the guest must know of it.
func (o Options) connect(w *lab.World, v *VM, c *qemu.Config, files []vmimage.File) (err error) {
	card := qemu.Card{Tap: o.Tap, VnetHdr: true, Offload: !o.NoOffload, Queues: o.Queues}
	c.Netns = w.Gateway.Path
	if o.Pod != nil {
		card, c.Netns = qemu.Card{Tap: pod.Tap, MAC: o.Pod.MAC}, w.BottleNetns(o.Bottle)
	} else if card.MAC, err = v.mac(); err != nil {
		return err
	}
	c.Cards = append([]qemu.Card{card}, o.Cards...)
	if o.Pod == nil {
		return nil
	}
	for i, f := range files {
		if f.Path != "network.json" {
			continue
		}
		files[i].Data, err = json.Marshal(map[string]any{
			"interface": "eth0", "address": o.Pod.Guest, "gateway": o.Pod.Gateway, "dns": o.Pod.Gateway, "mac": o.Pod.MAC.String(), "mtu": o.Pod.MTU,
		})
		return err
	}
	return errors.New("the guest files lack network.json")
}

// readFiles reads the guest files back.
func readFiles(dir string) ([]vmimage.File, error) {
	var files []vmimage.File
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := fs.ReadFile(root, path)
		files = append(files, vmimage.File{Path: path, Mode: info.Mode().Perm(), Data: data})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read guest files: %w", err)
	}
	return files, nil
}

func (v *VM) environment() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(v.Files, "env"))
	if err != nil {
		return nil, fmt.Errorf("read environment of the VM: %w", err)
	}
	return lab.ParseEnv(text)
}

// mac reads the guest's address, by which gatewayd will know it.
func (v *VM) mac() (net.HardwareAddr, error) {
	text, err := os.ReadFile(filepath.Join(v.Files, "network.json"))
	if err != nil {
		return nil, fmt.Errorf("read address of the VM: %w", err)
	}
	var n struct{ MAC string }
	if err := json.Unmarshal(text, &n); err != nil {
		return nil, fmt.Errorf("read address of the VM: %w", err)
	}
	return net.ParseMAC(n.MAC)
}

// Output runs a program in the VM and returns what it wrote to its two streams. A program that fails is an error, which
// holds the end of what it wrote to the second.
func (v *VM) Output(ctx context.Context, env []string, argv ...string) (stdout, stderr []byte, err error) {
	var out, errOut bounded
	code, err := v.Run(ctx, qemu.Command{Argv: argv, Env: env}, &out, &errOut)
	if err == nil && code != 0 {
		text := strings.TrimSpace(errOut.String())
		err = fmt.Errorf("run %s in the VM: exit code %d: %s", filepath.Base(argv[0]), code, text[max(0, len(text)-2000):])
	}
	return out.Bytes(), errOut.Bytes(), err
}

// bounded keeps the first maxOutput bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxOutput-b.Len())])
	return len(p), nil
}
