// Package guest is the init of a bottle that boots from package initramfs: it loads modules, sets up the network as the
// guest files say, and runs what the host asks for over the control port. It runs as process 1 of a VM and nowhere else.
package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"gatewayd/vmimage/initramfs"
)

// serve is the argument by which process 1 starts the part that does the work.
const serve = "serve"

// Main is the init. Process 1 mounts, loads modules, starts itself again with serveArgs and switches the VM off when that
// process ends, so that a fault there is no kernel panic; with the argument "serve" it is that process. It returns an exit code,
// which only the second sees. command is how to call it: the program's path and the arguments that lead here.
func Main(command, args []string) int {
	if os.Getpid() != 1 && (len(args) != 1 || args[0] != serve) {
		fmt.Fprintln(os.Stderr, "this is the init of a VM, and runs nowhere else")
		return 2
	}
	if os.Getpid() != 1 {
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
			return 1
		}
		return 0
	}
	err := begin()
	if err == nil {
		err = reap(append(append([]string{}, command...), serve))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	// The kernel's last words are no part of what a command wrote.
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("0"), 0o644)
	unix.Sync()
	// The VM is started such that a restart ends it, which every machine can do; not every one can switch off.
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	fmt.Fprintln(os.Stderr, "init: restart:", err)
	return 1
}

// mounts are made in this order.
var mounts = []struct{ source, target, kind, data string }{
	{"proc", "/proc", "proc", ""},
	{"sys", "/sys", "sysfs", ""},
	{"dev", "/dev", "devtmpfs", "mode=0755"},
	{"pts", "/dev/pts", "devpts", "mode=0620,ptmxmode=0666"},
	{"run", "/run", "tmpfs", "mode=0755"},
	{"tmp", "/tmp", "tmpfs", "mode=1777"},
}

func begin() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return loadModules("/" + initramfs.ModulesDir)
}

// loadModules loads every module of the directory in the order of their names.
func loadModules(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", filepath.Base(name), err)
		}
		if err := os.Remove(name); err != nil { // it is memory
			return err
		}
	}
	return nil
}

// reap starts the command and waits for orphans until it ends.
func reap(argv []string) error {
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...) // the VM ends with it
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == cmd.Process.Pid:
			return nil
		}
	}
}
