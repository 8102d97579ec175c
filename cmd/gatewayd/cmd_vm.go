package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gatewayd/plan"
	"gatewayd/vmimage"
	"gatewayd/vmimage/guest"
	"gatewayd/vmimage/initramfs"
	vmpod "gatewayd/vmimage/pod"
	"gatewayd/vmimage/qemu"
)

// vmInit is the hidden command that the VM's kernel starts.
const vmInit = "vm-init"

// vmRun is what `vm run` was asked for.
type vmRun struct {
	kernel, accel, machine string
	payload                []string
	memory                 int
	offload                bool
	verbose                bool
}

// vmCommand boots bottles.
func (a *app) vmCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "vm", Short: "boot a bottle as a VM under QEMU",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command vm %q; `gatewayd vm --help` lists them", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.vmRunCommand())
	return c
}

func (a *app) vmRunCommand() *cobra.Command {
	var r vmRun
	c := &cobra.Command{
		Use:   "run BOTTLE [flags] [-- COMMAND...]",
		Short: "boot the bottle under QEMU and run a command on its console",
		Long: `Run boots a small VM from a distribution's kernel and an archive that holds the bottle's guest files
and what --payload names, on the link that a running gatewayd has made for the bottle: its tap, or in
its namespace (link.netns) a tap that tc joins to eth0, as smolmachines' runtime does it. A namespace
that gatewayd has adopted is its runtime's to start a VM in. COMMAND runs on the VM's console with the bottle's environment; without one, busybox's shell does (Debian's
busybox-static). The VM ends with the command, whose exit status is that of this program: 128 and the
number of the signal that ended it, 127 if the VM has no such command, 126 if it is no program.

On a terminal all keys go to the command, Ctrl-C too, but for Ctrl-A x, which ends the VM (Ctrl-A
twice is one Ctrl-A). SIGINT and SIGTERM to this program switch the VM off, and it ends with 130. The
console is a terminal: the end of a pipe's input does not reach the command.

A payload may be a whole system, DIR:/ with what debootstrap or an unpacked image has in DIR; programs
then run as there. Otherwise they must be static or bring their libraries. KVM is used where it works.
Nothing is kept of the VM's files.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("gatewayd vm run takes a bottle, and a command after --")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return a.runVM(c.Context(), r, args[0], args[1:]) },
	}
	f := c.Flags()
	f.StringVar(&r.kernel, "kernel", "/", "`directory` with boot/vmlinuz-* and lib/modules, an unpacked kernel package for instance")
	f.StringArrayVar(&r.payload, "payload", nil, "put `HOST:GUEST`, a file or directory, into the VM; may be given again")
	f.IntVar(&r.memory, "memory", 0, "the VM's memory in `MiB`; it holds all files of the VM, for a moment twice. Without it, what they need, at least 512")
	f.StringVar(&r.accel, "accel", "", "kvm or tcg (emulation); without it, KVM where it works")
	f.StringVar(&r.machine, "machine", "", "microvm or q35, QEMU's machine type; without it, microvm where it boots")
	f.BoolVar(&r.offload, "offload", true, "let the VM hand over segments that are still to be cut; in a namespace it never does")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "show the console from the kernel's first line")
	return c
}

func (r vmRun) check() error {
	if r.accel != "" && r.accel != qemu.KVM && r.accel != qemu.TCG {
		return usagef("--accel %s: write kvm or tcg", r.accel)
	}
	if r.machine != "" && r.machine != qemu.Microvm && r.machine != qemu.Q35 {
		return usagef("--machine %s: write microvm or q35", r.machine)
	}
	if r.memory != 0 && r.memory < 128 || r.memory > 1<<20 {
		return usagef("--memory %d: write a number of MiB from 128 on", r.memory)
	}
	return nil
}

func (a *app) runVM(ctx context.Context, r vmRun, bottle string, command []string) error {
	if err := r.check(); err != nil {
		return err
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	p, err := a.find(bottle)
	if err != nil {
		return err
	}
	in, err := guestInputs(ctx, cfg, p, vmimage.DefaultAt)
	if err != nil {
		return err
	}
	files, err := vmimage.GuestFiles(p.Plan, in)
	if err != nil {
		return err
	}
	spec := initramfs.Spec{Files: files}
	if command, err = r.fill(&spec, command); err != nil {
		return err
	}
	c, release, err := r.connect(p.Plan, in.Network.MAC)
	if err != nil {
		return err
	}
	err = errors.Join(a.bootVM(ctx, r, spec, c, command), release())
	if ctx.Err() != nil {
		return &exitError{code: exitInterrupted, err: errors.New("interrupted; the VM is gone")}
	}
	return err
}

// connect says where the VM's card goes. The caller calls release once the VM is gone.
func (r vmRun) connect(p *plan.Plan, mac net.HardwareAddr) (c qemu.Config, release func() error, err error) {
	release = func() error { return nil }
	switch l := p.Link; {
	case l.Tap != "":
		c.Cards = []qemu.Card{{Tap: l.Tap, MAC: mac, VnetHdr: true, Offload: r.offload}}
		// QEMU would make a tap that is missing, and nobody would guard it.
		if _, err := net.InterfaceByName(l.Tap); err != nil {
			return c, nil, fmt.Errorf("find tap %s: %w: %s", l.Tap, err, madeByRun)
		}
	case l.Adopt:
		return c, nil, fmt.Errorf("the namespace of bottle %s is somebody else's (adopt: true), and so is the VM in it: have the runtime start it, or write  link: { tap: gw-%s }", p.Bottle, p.Bottle)
	case l.Netns != "":
		pod, err := vmpod.Open(l.Netns)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %s", err, madeByRun)
		}
		if err != nil {
			return c, nil, err
		}
		c.Netns, release = l.Netns, pod.Close
		c.Cards = []qemu.Card{{Tap: vmpod.Tap, MAC: pod.MAC}}
	default:
		return c, nil, fmt.Errorf("bottle %s has no link that a VM can be put on: write  link: { tap: gw-%s }  or  { netns: /run/netns/%s }  in its manifest", p.Bottle, p.Bottle, p.Bottle)
	}
	return c, release, nil
}

// madeByRun says where a link comes from.
const madeByRun = "it is made by gatewayd run; see gatewayd bottles"

// fill adds the init and the payload, and returns the command to run.
func (r vmRun) fill(spec *initramfs.Spec, command []string) ([]string, error) {
	var err error
	if spec.Init, err = os.Executable(); err != nil {
		return nil, err
	}
	for _, p := range r.payload {
		host, at, ok := strings.Cut(p, ":")
		if !ok || host == "" || at == "" {
			return nil, usagef("--payload %s: write HOST:GUEST, two paths", p)
		}
		spec.Payload = append(spec.Payload, initramfs.Payload{Host: host, At: at})
	}
	if len(command) > 0 {
		return command, nil
	}
	shell, err := exec.LookPath("busybox")
	if err != nil {
		return nil, errors.New("there is no shell for the VM: install busybox-static, or name a command after --, and what it needs with --payload")
	}
	spec.Payload = append(spec.Payload, initramfs.Payload{Host: shell, At: "/bin/busybox"})
	return []string{"/bin/busybox", "sh"}, nil
}

// bootVM boots, runs the command on the console and switches off.
func (a *app) bootVM(ctx context.Context, r vmRun, spec initramfs.Spec, c qemu.Config, command []string) (err error) {
	c.Accel, c.Type = r.accel, r.machine
	if _, err := exec.LookPath(qemu.Program); err != nil {
		return qemu.ErrNoQEMU
	}
	if c.Kernel, err = initramfs.FindKernel(r.kernel); err != nil {
		return err
	}
	if spec.Modules, err = initramfs.LoadModules(ctx, c.Kernel, initramfs.DefaultModules...); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gatewayd-vm")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c.Initrd = filepath.Join(dir, "initramfs")
	if err := spec.WriteFile(c.Initrd); err != nil {
		return err
	}
	if c.MemoryMiB, err = r.fitMemory(c.Initrd); err != nil {
		return err
	}
	// A console on a terminal is put into raw mode by QEMU, and left so if QEMU is killed.
	if state, err := term.GetState(int(os.Stdin.Fd())); err == nil {
		defer func() { _ = term.Restore(int(os.Stdin.Fd()), state) }()
	}
	c.Init = []string{initramfs.InitPath, vmInit}
	c.ConsoleIn, c.ConsoleOut, c.Verbose = os.Stdin, a.out, r.verbose
	c.Escape = term.IsTerminal(int(os.Stdin.Fd()))
	m, err := qemu.Start(ctx, c)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, m.Mute)() // a screen that takes nothing would keep the VM, and this program, for ever
	code, err := m.Run(ctx, qemu.Command{Argv: command, Console: true}, nil, nil)
	closed := m.Close()
	if start := new(qemu.StartError); errors.As(err, &start) {
		return &exitError{code: code, err: errors.Join(err, closed)}
	}
	if err := errors.Join(err, closed); err != nil {
		return err
	}
	if code != 0 {
		return &exitError{code: code}
	}
	return nil
}

// fitMemory returns how much memory the VM gets that boots from an archive.
func (r vmRun) fitMemory(archive string) (int, error) {
	info, err := os.Stat(archive)
	if err != nil {
		return 0, err
	}
	need := initramfs.MemoryMiB(info.Size())
	if r.memory != 0 && r.memory < need {
		return 0, usagef("--memory %d: the VM's files have %d MiB, and it needs %d", r.memory, info.Size()>>20, need)
	}
	return cmp.Or(r.memory, max(need, qemu.DefaultMemoryMiB)), nil
}

// vmInitCommand is the init of the VM.
func (a *app) vmInitCommand() *cobra.Command {
	return &cobra.Command{
		Use: vmInit, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := guest.Main([]string{"/" + initramfs.InitPath, vmInit}, args); code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
}
