package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Guest describes how a program runs inside a bottle.
type Guest struct {
	// Netns is the path of the bottle's network namespace; required.
	Netns string
	// Resolver is the address that /etc/resolv.conf names, for every program
	// alike; without one, the host's file stays.
	Resolver string
	// Env is the whole environment: nothing is inherited.
	Env []string
	// Dir is the working directory; "/" when empty.
	Dir string
	// Bind puts a host path (value) at a path (key) that the guest sees; both
	// must exist. Hidden paths are covered first, so a path below a hidden
	// directory can be bound elsewhere.
	Bind map[string]string
	// Hide are directories that the guest sees empty.
	Hide []string
	// User runs the program as this uid and gid; root when 0.
	User uint32
}

// Process is a program that runs inside a bottle.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts a program inside the bottle: in its network namespace, and in
// a mount namespace of its own where resolv.conf is the bottle's. The caller
// waits for it; it is killed, with its process group, when ctx ends.
func (g Guest) Start(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, argv ...string) (*Process, error) {
	if len(argv) == 0 {
		return nil, errors.New("start guest program: no program named")
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append([]string{}, g.Env...)
	cmd.Dir = g.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if g.User != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: g.User, Gid: g.User}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The thread dies with this goroutine, and its namespaces with it. The
		// child was forked from it and keeps them.
		runtime.LockOSThread()
		err := g.enter()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", filepath.Base(argv[0]), g.Netns, err)
	}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Wait waits for the end of the program and returns its outcome as
// exec.Cmd.Wait does.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Pid is the program's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal to the program's process group.
func (p *Process) Signal(s syscall.Signal) error { return syscall.Kill(-p.cmd.Process.Pid, s) }

// enter moves the calling thread, which must be locked and is spoiled by it.
func (g Guest) enter() error {
	h, err := netns.GetFromPath(g.Netns)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer h.Close()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := g.arrangeFiles(); err != nil {
		return err
	}
	if err := netns.Set(h); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

func (g Guest) arrangeFiles() error {
	sources := map[string]*os.File{}
	defer func() {
		for _, f := range sources {
			f.Close()
		}
	}()
	for at, from := range g.Bind {
		f, err := os.OpenFile(from, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s to bind it: %w", from, err)
		}
		sources[at] = f
	}
	for _, dir := range g.Hide {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	for at, f := range sources {
		if err := bindMount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), at); err != nil {
			return err
		}
	}
	if g.Resolver == "" {
		return nil
	}
	return bindResolvConf(g.Resolver)
}

func bindMount(from, at string) error {
	if err := unix.Mount(from, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s at %s: %w", from, at, err)
	}
	return nil
}

// bindResolvConf puts a file with one nameserver line at /etc/resolv.conf,
// which must exist. The mount keeps the file when its name is gone.
func bindResolvConf(server string) error {
	f, err := os.CreateTemp("", "resolv.conf")
	if err != nil {
		return fmt.Errorf("make resolv.conf: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("make resolv.conf: %w", err)
	}
	if _, err := fmt.Fprintf(f, "nameserver %s\noptions timeout:1 attempts:3\n", server); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	return bindMount(f.Name(), "/etc/resolv.conf")
}
