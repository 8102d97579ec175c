// Package qemu boots a bottle as a VM under QEMU and runs programs in it.
package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"gatewayd/vmimage/control"
	"gatewayd/vmimage/initramfs"
	"gatewayd/vmimage/pod"

	"golang.org/x/sys/unix"
)

// Program is QEMU's for this architecture.
const Program = "qemu-system-x86_64"

// DefaultMemoryMiB is what a guest gets unless told otherwise.
const DefaultMemoryMiB = 512

// Card is a network card of the guest.
type Card struct {
	// Tap is a tap of the network namespace where QEMU starts, and MAC the guest's address there. VnetHdr says that the tap
	// has virtio headers (IFF_VNET_HDR). Offload lets the guest hand over segments that are still to be cut, which needs them.
	Tap              string
	MAC              net.HardwareAddr
	VnetHdr, Offload bool
	// Queues is how many the card has, and opens of the tap, which must have been made for several; 0 is one. The guest's
	// kernel uses no more than it has CPUs.
	Queues int
}

// Config says what to boot.
type Config struct {
	// Kernel, and Initrd, the path of an archive that initramfs.Write made for it.
	Kernel initramfs.Kernel
	Initrd string
	// Init is how the guest's kernel calls the init: its path from the root, and its arguments.
	Init []string
	// Cards are the guest's network cards, eth0 first. There may be none.
	Cards []Card
	// MemoryMiB is the guest's memory; 0 is DefaultMemoryMiB. CPUs is how many it has; 0 is one.
	MemoryMiB, CPUs int
	// Accel is KVM, TCG or "", which is KVM where it works, else TCG. Type is Microvm, Q35 or "", which tries the first first.
	Accel, Type string
	// ConsoleIn and ConsoleOut are connected to the VM's serial line; ConsoleOut only once a command runs on it, or from the
	// beginning with Verbose. Both may be nil.
	ConsoleIn  *os.File
	ConsoleOut io.Writer
	Verbose    bool
	// Escape makes Ctrl-A the beginning of a key for QEMU itself: x after it ends the VM, whatever the guest does.
	Escape bool
	// Netns is the path of the network namespace with the taps; "" is that of the caller.
	Netns string
	// Log receives which ways to boot failed; discarded when nil.
	Log *slog.Logger
}

// ErrNoQEMU says that there is no QEMU, and how to get it.
var ErrNoQEMU = errors.New(Program + " is missing: install Debian's qemu-system-x86 (Fedora: qemu-system-x86-core, Alpine: qemu-system-x86_64)")

// BootError says that the VM did not come up.
type BootError struct {
	Cause   error
	Console string // the end of what the guest's kernel wrote
}

// Error holds the last lines of the console.
func (e *BootError) Error() string {
	lines := strings.Split(strings.TrimSpace(e.Console), "\n")
	if len(lines) > 12 {
		lines = lines[len(lines)-12:]
	}
	return fmt.Sprintf("boot VM: %v; its console ends with:\n%s", e.Cause, strings.Join(lines, "\n"))
}

// Unwrap returns the cause.
func (e *BootError) Unwrap() error { return e.Cause }

// setupError is what the guest's init reports: another machine would not help.
type setupError struct{ text string }

func (e *setupError) Error() string { return "set up guest: " + e.text }

// Machine is a VM that is up. Its methods are safe for concurrent use.
type Machine struct {
	// How says which way it was booted, "microvm under tcg" for instance.
	How string

	cmd     *exec.Cmd
	port    net.Conn
	console *console
	out     io.Writer
	ended   chan struct{} // closed when QEMU has
	failure error         // of QEMU, once ended
	session *session
}

// Start boots the VM and blocks until its init reports, which takes seconds, trying other machines when one hangs. The
// caller closes the Machine; nothing runs when an error is returned. The error is ErrNoQEMU, a *BootError, or the
// context's.
func Start(ctx context.Context, c Config) (*Machine, error) {
	program, err := exec.LookPath(Program)
	if err != nil {
		return nil, ErrNoQEMU
	}
	if len(c.Init) == 0 {
		return nil, errors.New("boot VM: no init named")
	}
	c.MemoryMiB = cmp.Or(c.MemoryMiB, DefaultMemoryMiB)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var failed error
	for _, a := range attempts(c.Accel, c.Type, func() bool { return kvmWorks(ctx, program) }) {
		m, err := c.boot(ctx, program, a)
		if err == nil {
			return m, nil
		}
		failed = err
		var setup *setupError
		if ctx.Err() != nil || errors.As(err, &setup) {
			break
		}
		c.Log.Debug("this way to boot does not work here", "way", a.String(), "cause", err)
	}
	return nil, failed
}

// boot tries one way.
func (c Config) boot(ctx context.Context, program string, a attempt) (*Machine, error) {
	m, err := c.launch(program, a)
	if err != nil {
		return nil, fmt.Errorf("boot VM: %w", err)
	}
	if err := m.awaitHello(ctx, a); err != nil {
		err = errors.Join(err, m.Kill())
		return nil, &BootError{Cause: fmt.Errorf("%s: %w", a, err), Console: m.console.text()}
	}
	if !c.Verbose {
		m.console.show(nil)
	}
	return m, nil
}

// launch starts QEMU with one end of a socket pair as the control port.
func (c Config) launch(program string, a attempt) (*Machine, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make control port: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer ours.Close()
	defer theirs.Close()
	port, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("make control port: %w", err)
	}
	m := &Machine{How: a.String(), port: port, out: c.ConsoleOut, console: newConsole(), ended: make(chan struct{})}
	if c.Verbose {
		m.console.show(c.ConsoleOut)
	}
	m.session = newSession(port)
	// No context: the VM outlives the boot, and Close ends it.
	m.cmd = exec.Command(program, c.arguments(a)...) //nolint:noctx
	m.cmd.Stdout, m.cmd.Stderr = m.console, m.console
	if c.ConsoleIn != nil {
		m.cmd.Stdin = c.ConsoleIn
	}
	m.cmd.ExtraFiles = []*os.File{theirs}
	// QEMU ends with this process, however it ends.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.start(c.Netns); err != nil {
		port.Close()
		return nil, fmt.Errorf("start %s: %w", Program, err)
	}
	go m.session.read(control.NewReader(port))
	return m, nil
}

// start starts QEMU in a network namespace. The signal at the parent's death is one at the death of the thread that started
// it (prctl(2), PR_SET_PDEATHSIG), so that thread does nothing else until QEMU has ended, and ends then.
func (m *Machine) start(netns string) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if netns != "" {
			if err := pod.Enter(netns); err != nil {
				started <- err
				return
			}
		}
		err := m.cmd.Start()
		started <- err
		if err == nil {
			m.failure = m.cmd.Wait()
			close(m.ended)
		}
	}()
	return <-started
}

// awaitHello waits until the init reports.
func (m *Machine) awaitHello(ctx context.Context, a attempt) error {
	life, up := time.NewTimer(a.life), time.NewTimer(a.up)
	defer life.Stop()
	defer up.Stop()
	alive, silent := m.console.alive, life.C
	var hello <-chan string // heard after the kernel's first word, so that this is not shown as a command's
	for {
		select {
		case <-alive:
			alive, silent, hello = nil, nil, m.session.hello
		case <-silent:
			return fmt.Errorf("the kernel said nothing for %s", a.life)
		case <-up.C:
			return fmt.Errorf("the init did not report within %s", a.up)
		case text, broken := <-hello:
			if !broken {
				return m.session.failure()
			}
			if text != "" {
				return &setupError{text}
			}
			return nil
		case <-m.ended:
			return fmt.Errorf("%s ended: %w", Program, cmp.Or(m.failure, errors.New("exit status 0")))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Command is a program to run in the guest.
type Command struct {
	Argv []string // the first is looked up in the guest's PATH
	Env  []string // in addition to the bottle's
	Dir  string   // "" is /root
	// Console connects it to the VM's console in place of Run's writers.
	Console bool
}

// Run runs a program in the guest and returns its exit status as a shell would: 127 and an error if it could not be
// started. What it writes goes to the two writers, which may be nil and are not written to after Run returns. When ctx
// ends, Run returns and the program goes on.
func (m *Machine) Run(ctx context.Context, c Command, stdout, stderr io.Writer) (int, error) {
	if c.Console {
		m.console.show(m.out)
	}
	code, err := m.session.run(ctx, c, stdout, stderr)
	var lost *lostError
	if errors.As(err, &lost) {
		select {
		case <-m.ended:
			return code, &BootError{Cause: errors.New("the VM ended while the program ran"), Console: m.console.text()}
		case <-time.After(offDeadline):
		}
	}
	return code, err
}

// Console returns the end of what the guest wrote to its console.
func (m *Machine) Console() string { return m.console.text() }

// offDeadline is how long a guest may take to switch off.
const offDeadline = 5 * time.Second

// Close asks the guest to switch off and ends QEMU if it does not in time. A second call does nothing.
func (m *Machine) Close() error {
	_ = m.session.send(control.Message{Kind: control.Off}) // a guest that is gone needs none
	late := time.NewTimer(offDeadline)
	defer late.Stop()
	select {
	case <-m.ended:
	case <-late.C:
	}
	return m.kill()
}

// Kill ends QEMU at once, if it runs, and waits for it: the guest has no time for anything. It mutes the console. A Close
// afterwards does nothing.
func (m *Machine) Kill() error {
	m.Mute()
	return m.kill()
}

// Mute ends what goes to ConsoleOut. What it does not take is not waited for any more, as Close does otherwise: the write
// that is under way may go on for as long as it blocks.
func (m *Machine) Mute() { m.console.mute() }

// kill ends QEMU, if it runs, and waits for it.
func (m *Machine) kill() error {
	err := m.cmd.Process.Signal(syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-m.ended
	m.port.Close()
	m.session.done.Wait()
	return err
}
