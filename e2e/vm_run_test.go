package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"gatewayd/lab"
	"gatewayd/lab/demo"
	"gatewayd/lab/privileged"
	"gatewayd/lab/vm"
	"gatewayd/vmimage/initramfs"
	"gatewayd/vmimage/qemu"

	"golang.org/x/sys/unix"
)

// vmRunner runs `gatewayd vm run` for a bottle that is up.
type vmRunner struct {
	*vmBench
	bottle   string
	kernel   string
	payloads []string
}

func newVMRunner(t *testing.T) *vmRunner {
	b := newVMBench(t)
	privileged.Require(t, privileged.Program("ldd"), privileged.File("/bin/sh"))
	b.serveSites()
	b.Gateway.Env = append(b.Gateway.Env, "VM_TOKEN="+vmToken)
	if err := errors.Join(b.Gateway.WriteManifest("vm", vmManifest), b.Gateway.Start(), b.Gateway.WaitBottle(b.ctx, "vm")); err != nil {
		t.Fatal(err)
	}
	k, err := vm.FindKernel()
	if err != nil {
		t.Fatal(err)
	}
	r := &vmRunner{vmBench: b, bottle: "vm", kernel: filepath.Dir(filepath.Dir(k.Image))}
	ca := filepath.Join(b.World.Dir, "internet-ca.pem")
	writeFile(t, ca, b.World.Internet.CA.PEM())
	r.payloads = []string{ca + ":/internet-ca.pem", staticClient(t) + ":" + guestClient}
	shell, err := initramfs.Program(b.ctx, "/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range shell {
		r.payloads = append(r.payloads, p.Host+":"+p.At)
	}
	return r
}

// start starts the command with its standard streams connected to a file or a writer.
func (r *vmRunner) start(ctx context.Context, stdin io.Reader, stdout io.Writer, stderr io.Writer, flags, command []string) (*exec.Cmd, error) {
	args := append([]string{"vm", "run", r.bottle, "--config", r.Gateway.Config, "--kernel", r.kernel, "--memory", "768"}, flags...)
	for _, p := range r.payloads {
		args = append(args, "--payload", p)
	}
	cmd := exec.CommandContext(ctx, r.Gateway.Binary, append(append(args, "--"), command...)...)
	cmd.Env, cmd.Dir = r.Gateway.Env, r.Gateway.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd, r.World.Gateway.Do(cmd.Start)
}

// TestVMDemo is the demo with a VM for a bottle.
func TestVMDemo(t *testing.T) {
	requireVM(t)
	k, err := vm.FindKernel()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vmDeadline)
	defer cancel()
	var out bytes.Buffer
	o := demo.Options{Gatewayd: gatewaydBinary(t), VM: "qemu", Kernel: filepath.Dir(filepath.Dir(k.Image)), Out: &out, JSON: true}
	if err := demo.Run(ctx, o); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	var report struct {
		OK       bool
		Outcomes []demo.Outcome
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil || !report.OK || len(report.Outcomes) != 6 {
		t.Errorf("the report: %v: %s", err, out.String())
	}
}

const getPackages = "GATEWAYD_E2E_CLIENT=get " + guestClient + " -ca /internet-ca.pem https://packages.example.org/"

// TestVMRun boots with the flags that TestVM does not use, and with a terminal.
func TestVMRun(t *testing.T) {
	r := newVMRunner(t)
	t.Run("q35 without offload", func(t *testing.T) { r.plain(t, "--machine", qemu.Q35, "--offload=false", "--accel", qemu.TCG) })
	t.Run("in a namespace", r.inNamespace)
	t.Run("kvm", r.kvm)
	t.Run("console", r.console)
}

// plain runs one request with its output in a pipe. The exit status is the command's.
func (r *vmRunner) plain(t *testing.T, flags ...string) {
	before := r.packages.Connections()
	var out, errOut bytes.Buffer
	cmd, err := r.start(r.ctx, nil, &out, &errOut, flags, []string{"/bin/sh", "-c", getPackages + "; exit 5"})
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Fatalf("%v\n%s\n%s", err, errOut.String(), out.String())
	}
	var seen demo.Seen
	if err := json.Unmarshal(bytes.TrimSpace(out.Bytes()), &seen); err != nil || seen.Status != 200 || r.packages.Connections() != before+1 {
		t.Errorf("%v: %q", err, out.String())
	}
}

// inNamespace boots another bottle, whose link is a namespace, and finds nothing of the VM there afterwards.
func (r *vmRunner) inNamespace(t *testing.T) {
	pod := *r
	pod.bottle = "pod"
	path := r.World.BottleNetns(pod.bottle)
	manifest := "bottle: pod\nlink: { netns: " + path + " }\n" + vmRoutes
	if err := errors.Join(r.Gateway.WriteManifest(pod.bottle, manifest), r.Gateway.WaitBottle(r.ctx, pod.bottle)); err != nil {
		t.Fatal(err)
	}
	pod.plain(t)
	ns, err := lab.OpenNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() error {
		_, err := net.InterfaceByName(vm.PodTap)
		return err
	})
	if err == nil {
		t.Error("the VM's tap is still there")
	}
}

// kvm either works, or ends with a word on what was tried: emulation was not asked for.
func (r *vmRunner) kvm(t *testing.T) {
	var out, errOut bytes.Buffer
	cmd, err := r.start(r.ctx, nil, &out, &errOut, []string{"--accel", qemu.KVM}, []string{"/bin/sh", "-c", "echo up; exit 5"})
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	switch code := cmd.ProcessState.ExitCode(); {
	case code == 5 && strings.TrimSpace(out.String()) == "up":
		t.Log("KVM works here")
	case code == 1 && strings.Contains(errOut.String(), "q35 under kvm") && out.Len() == 0:
		t.Logf("KVM does not work here: %s", errOut.String())
	default:
		t.Errorf("%v\n%s\n%s", err, errOut.String(), out.String())
	}
}

// console types at a shell on a terminal.
func (r *vmRunner) console(t *testing.T) {
	terminal, far := openTerminal(t)
	cmd, err := r.start(r.ctx, far, far, far, nil, []string{"/bin/sh", "-i"})
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	screen := &screen{changed: make(chan struct{}, 1)}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(screen, terminal) }) // ends with the last program on the far side
	expect := func(what string) {
		t.Helper()
		if err := screen.await(r.ctx, what); err != nil {
			t.Fatalf("%v\n%s", err, screen.String())
		}
	}
	expect("# ")
	for _, c := range []struct{ typed, answered string }{
		{"echo answer=$((6*7))", "answer=42"},
		{getPackages, `"status":200`},
		{"exit 3", ""},
	} {
		if _, err := fmt.Fprintf(terminal, "%s\r", c.typed); err != nil {
			t.Fatal(err)
		}
		expect(c.answered)
	}
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d: %v\n%s", code, err, screen.String())
	}
	terminal.Close()
	reading.Wait()
}

// openTerminal makes a pair of a terminal and its far side (pty(7)).
func openTerminal(t *testing.T) (terminal, far *os.File) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	raw, err := terminal.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	errControl := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, errControl); err != nil {
		t.Fatal(err)
	}
	far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return terminal, far
}

// screen keeps what a terminal showed.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

// String is all of it.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await blocks until the screen shows the text.
func (s *screen) await(ctx context.Context, text string) error {
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return fmt.Errorf("the screen never showed %q: %w", text, context.Cause(ctx))
		}
	}
	return nil
}
