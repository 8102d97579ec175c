package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"gatewayd/vmimage/initramfs"
	"gatewayd/vmimage/qemu"

	"golang.org/x/sys/unix"
)

const (
	suiteLimit = 90 * time.Minute // for the tests of one package, emulated on a busy machine
	memoryMiB  = 2560
	cpus       = 2
)

// machine is a kernel that the tests run on.
type machine struct {
	name string
	// dir lies below the cache of kernels; "" is this machine's own kernel.
	dir string
	// lacks are, by package, the tests that make no sense on it: patterns as of go test -skip, with the reason.
	lacks map[string]map[string]string
}

const (
	tcxTests, noTCX   = "/^tcx$", "tcx needs Linux 6.6; the same tests run with clsact"
	qemuTests, noQEMU = "^TestQEMUAsTheOwner$", "QEMU is not packed; TestTapIsItsOwners opens the tap without it"
	// What reads the source in the repository says the same on every kernel, and runs on the host.
	sourceTests, noSource = "^TestOneWayOut$", "it reads the programs' source, which is not packed and the same for every kernel"
)

var machines = []machine{
	{name: "host"},
	{name: "6.1", dir: "bookworm", lacks: map[string]map[string]string{
		"fastpath":         {tcxTests: noTCX},
		"gateway/redirect": {tcxTests: noTCX, qemuTests: noQEMU, sourceTests: noSource},
	}},
	{name: "6.12", dir: "trixie", lacks: map[string]map[string]string{"gateway/redirect": {qemuTests: noQEMU, sourceTests: noSource}}},
}

func kernelNames() []string {
	var names []string
	for _, m := range machines {
		names = append(names, m.name)
	}
	return names
}

// kernels are the machines asked for.
func (o *options) kernels() ([]machine, error) {
	if o.only == "" {
		return machines, nil
	}
	var some []machine
	for name := range strings.SplitSeq(o.only, ",") {
		i := slices.IndexFunc(machines, func(m machine) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("read arguments: -only names %q; write some of %s", name, strings.Join(kernelNames(), ", "))
		}
		some = append(some, machines[i])
	}
	return some, nil
}

// modules are what the tests need of a kernel that loads nothing by itself: links, classifiers and BPF on links, and netfilter.
var modules = []string{
	"virtio_mmio", "virtio_pci", "virtio_console", "tun", "veth", "8021q", "bridge", "macvlan", "sch_ingress", "cls_bpf", "cls_matchall", "act_mirred", "nf_tables", "nft_ct", "nft_masq",
	"nft_chain_nat", "nft_limit", "nft_log", "nft_reject_inet", "nft_tproxy", "nft_flow_offload", "nf_flow_table_inet",
	"nf_conntrack_netlink", "nf_log_syslog",
}

// runner runs a program on a kernel and returns its exit code. Dir is below the tree.
type runner func(ctx context.Context, dir string, env, argv []string, stdout, stderr io.Writer) (int, error)

// run runs on the machine what was asked for. The kernel is returned with what ran on it also beside an error.
func (m machine) run(ctx context.Context, o *options, b *built) (*Kernel, error) {
	if m.dir == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return nil, fmt.Errorf("name the kernel: %w", err)
		}
		k := &Kernel{Name: m.name, Release: unix.ByteSliceToString(u.Release[:]), How: "native"}
		return k, m.runSuites(ctx, o, b, k, b.runHere)
	}
	kernel, err := initramfs.FindKernel(filepath.Join(o.cache, m.dir))
	if err != nil {
		return nil, fmt.Errorf("%w (`.ci/deps kernels` unpacks it)", err)
	}
	k := &Kernel{Name: m.name, Release: kernel.Release}
	g := &guest{boot: func(ctx context.Context) (virtual, error) {
		vm, err := m.boot(ctx, o, b, kernel)
		if err != nil {
			return nil, err
		}
		k.How = fmt.Sprintf("%s, %d CPUs", vm.How, cpus)
		return vm, nil
	}}
	return k, errors.Join(m.runSuites(ctx, o, b, k, g.run), g.close())
}

// runHere runs a program on this machine. Its process group ends with ctx.
func (b *built) runHere(ctx context.Context, dir string, env, argv []string, stdout, stderr io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = filepath.Join(b.root, dir), append(os.Environ(), env...), stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// Where a VM has the tests, and the part of the tree that they read.
const (
	guestTests = "/tests"
	guestTree  = "/tree"
)

func inGuest(program string) string { return path.Join(guestTests, filepath.Base(program)) }

// boot boots the kernel with everything in its memory.
func (m machine) boot(ctx context.Context, o *options, b *built, kernel initramfs.Kernel) (vm *qemu.Machine, err error) {
	spec := initramfs.Spec{Init: b.gatewayd}
	if spec.Modules, err = initramfs.LoadModules(ctx, kernel, modules...); err != nil {
		return nil, err
	}
	if spec.Payload, err = b.payload(ctx); err != nil {
		return nil, err
	}
	initrd := filepath.Join(b.dir, "initramfs-"+m.name)
	if err := spec.WriteFile(initrd); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(initrd)) }() // QEMU has read it by then
	o.say("booting Linux %s", kernel.Release)
	vm, err = qemu.Start(ctx, qemu.Config{Kernel: kernel, Initrd: initrd, Init: []string{initramfs.InitPath, "vm-init"}, MemoryMiB: memoryMiB, CPUs: cpus})
	if err != nil {
		return nil, err
	}
	for _, argv := range setup {
		var said bytes.Buffer
		code, err := vm.Run(ctx, qemu.Command{Argv: argv}, &said, &said)
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d: %s", code, bytes.TrimSpace(said.Bytes()))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("run %s in the VM: %w", strings.Join(argv, " "), err), vm.Close())
		}
	}
	return vm, nil
}

// setup makes of the VM what a distribution makes of a machine.
var setup = [][]string{
	{"mount", "-t", "bpf", "bpf", "/sys/fs/bpf"},
	{"mount", "-t", "tmpfs", "shm", "/dev/shm", "-o", "mode=1777,X-mount.mkdir"},
	{"ip", "link", "set", "lo", "up"},
}

// payload is everything that the VM holds beside the init.
func (b *built) payload(ctx context.Context) ([]initramfs.Payload, error) {
	var all []initramfs.Payload
	for pkg, binary := range b.tests {
		all = append(all, initramfs.Payload{Host: binary, At: inGuest(binary)})
		all = append(all, initramfs.Payload{Host: filepath.Join(b.root, pkg), At: path.Join(guestTree, pkg)})
	}
	for _, program := range []string{b.gatewayd, b.other, b.bench} {
		all = append(all, initramfs.Payload{Host: program, At: inGuest(program)})
	}
	all = append(all, initramfs.Payload{Host: "/etc/protocols", At: "/etc/protocols"})
	for name, text := range map[string]string{"hosts": "127.0.0.1 localhost\n", "resolv.conf": "nameserver 127.0.0.1\n"} {
		file := filepath.Join(b.dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("write file: %w", err)
		}
		all = append(all, initramfs.Payload{Host: file, At: "/etc/" + name})
	}
	for _, name := range tools {
		p, err := initramfs.Program(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, p...)
	}
	return all, nil
}
