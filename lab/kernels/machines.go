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

	"gatewayd/lab/privileged"
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

var machines = []machine{
	{name: "host"},
	{name: "6.1", dir: "bookworm", lacks: map[string]map[string]string{
		"gateway/redirect": {"/^tcx$": "tcx needs Linux 6.6; the same tests run with clsact"}}},
	{name: "6.12", dir: "trixie"},
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

// run runs all suites on the machine.
func (m machine) run(ctx context.Context, o *options, b *built) (*Kernel, error) {
	if m.dir == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return nil, fmt.Errorf("name the kernel: %w", err)
		}
		k := &Kernel{Name: m.name, Release: unix.ByteSliceToString(u.Release[:]), How: "native"}
		return k, m.runSuites(ctx, o, b, k, b.runHere)
	}
	vm, k, err := m.boot(ctx, o, b)
	if err != nil {
		return nil, err
	}
	run := func(ctx context.Context, dir string, env, argv []string, stdout, stderr io.Writer) (int, error) {
		return vm.Run(ctx, qemu.Command{Argv: argv, Env: env, Dir: path.Join(guestTree, dir)}, stdout, stderr)
	}
	err = m.runSuites(ctx, o, b, k, run)
	if err != nil {
		o.say("%s: the console ends with:\n%s", m.name, vm.Console())
	}
	return k, errors.Join(err, vm.Close())
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

func (m machine) runSuites(ctx context.Context, o *options, b *built, k *Kernel, run runner) error {
	for _, s := range suites {
		if !o.takes(s.pkg) {
			continue
		}
		begin := time.Now()
		p, err := m.runSuite(ctx, o, b, s, run)
		if err != nil {
			return err
		}
		p.Mark = newMark(b.root)
		p.Seconds = time.Since(begin).Seconds()
		k.Packages = append(k.Packages, *p)
		o.say("%-5s %-17s %s", m.name, s.pkg, p.counts())
		for _, t := range p.Tests {
			if t.Outcome == failed {
				o.say("%s: %s of %s failed:\n%s", m.name, t.Name, s.pkg, t.Reason)
			}
		}
	}
	if !o.takes(benchName) {
		return nil
	}
	return m.measure(ctx, o, b, k, run)
}

// runSuite runs the tests of one package. Whatever keeps them from running is an error; a test that fails is none.
func (m machine) runSuite(ctx context.Context, o *options, b *built, s suite, run runner) (*Package, error) {
	p := &Package{Name: s.pkg}
	binary, gatewayd := b.tests[s.pkg], b.gatewayd
	if m.dir != "" {
		binary, gatewayd = inGuest(binary), inGuest(gatewayd)
	}
	argv := append([]string{binary}, s.arguments(o, m)...)
	env := []string{privileged.Variable + "=1", "GATEWAYD_TEST_BINARY=" + gatewayd}
	var out, errOut bytes.Buffer
	code, err := run(ctx, s.pkg, env, argv, io.MultiWriter(&out, &follower{say: o.say, name: m.name}), &errOut)
	if err != nil {
		return nil, fmt.Errorf("run tests of %s: %w", s.pkg, err)
	}
	if p.Tests, err = convert(ctx, &out); err != nil {
		return nil, fmt.Errorf("run tests of %s: %w", s.pkg, err)
	}
	if said := strings.TrimSpace(errOut.String()); code != 0 && (!p.failed() || said != "") { // it did not end with its tests
		p.Tests = append(p.Tests, Test{Name: "the whole package", Outcome: failed,
			Reason: fmt.Sprintf("exit code %d: %s", code, said[max(0, len(said)-mostSaid):])})
	}
	for pattern, why := range m.lacks[s.pkg] {
		p.Tests = append(p.Tests, Test{Name: pattern, Outcome: skipped, Reason: why})
	}
	return p, nil
}

// convert reads what a test's binary printed. The Go tool has the converter.
func convert(ctx context.Context, in io.Reader) ([]Test, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-t")
	cmd.Stdin = in
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run go tool test2json: %w: %s", err, errOut.String())
	}
	return readResults(bytes.NewReader(out))
}

// Where a VM has the tests, and the part of the tree that they read.
const (
	guestTests = "/tests"
	guestTree  = "/tree"
)

func inGuest(program string) string { return path.Join(guestTests, filepath.Base(program)) }

// boot boots the kernel with everything in its memory.
func (m machine) boot(ctx context.Context, o *options, b *built) (vm *qemu.Machine, k *Kernel, err error) {
	kernel, err := initramfs.FindKernel(filepath.Join(o.cache, m.dir))
	if err != nil {
		return nil, nil, fmt.Errorf("%w (`.ci/deps kernels` unpacks it)", err)
	}
	spec := initramfs.Spec{Init: b.gatewayd}
	if spec.Modules, err = initramfs.LoadModules(ctx, kernel, modules...); err != nil {
		return nil, nil, err
	}
	if spec.Payload, err = b.payload(ctx); err != nil {
		return nil, nil, err
	}
	initrd := filepath.Join(b.dir, "initramfs-"+m.name)
	if err := spec.WriteFile(initrd); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(initrd)) }() // QEMU has read it by then
	o.say("booting Linux %s", kernel.Release)
	vm, err = qemu.Start(ctx, qemu.Config{Kernel: kernel, Initrd: initrd, Init: []string{initramfs.InitPath, "vm-init"}, MemoryMiB: memoryMiB, CPUs: cpus})
	if err != nil {
		return nil, nil, err
	}
	for _, argv := range setup {
		var said bytes.Buffer
		code, err := vm.Run(ctx, qemu.Command{Argv: argv}, &said, &said)
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d: %s", code, bytes.TrimSpace(said.Bytes()))
		}
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("run %s in the VM: %w", strings.Join(argv, " "), err), vm.Close())
		}
	}
	return vm, &Kernel{Name: m.name, Release: kernel.Release, How: fmt.Sprintf("%s, %d CPUs", vm.How, cpus)}, nil
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
	for _, s := range suites {
		all = append(all, initramfs.Payload{Host: b.tests[s.pkg], At: inGuest(b.tests[s.pkg])})
		all = append(all, initramfs.Payload{Host: filepath.Join(b.root, s.pkg), At: path.Join(guestTree, s.pkg)})
	}
	for _, program := range []string{b.gatewayd, b.bench} {
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
