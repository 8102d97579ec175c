// Package privileged is the one place where a test may skip itself because
// the machine cannot run it. A skip names what is missing, and with
// GATEWAYD_TEST_PRIVILEGED=1 in the environment it becomes a failure, so that
// a machine that is meant to run everything cannot quietly run half.
package privileged

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Variable is the environment variable which turns skips into failures.
const Variable = "GATEWAYD_TEST_PRIVILEGED"

// Requirement is something that a test needs of the machine: it returns nil
// where the need is met, and otherwise an error that names what is missing.
type Requirement func() error

// Require skips the test when one of the requirements is not met, and fails
// it instead when Variable is "1". With no requirement it asks for Root.
func Require(t testing.TB, needs ...Requirement) {
	t.Helper()
	if len(needs) == 0 {
		needs = []Requirement{Root}
	}
	var missing []error
	for _, need := range needs {
		if err := need(); err != nil {
			missing = append(missing, err)
		}
	}
	err := errors.Join(missing...)
	switch {
	case err == nil:
	case os.Getenv(Variable) == "1":
		t.Fatalf("%s=1, but this machine cannot run the test: %v", Variable, err)
	default:
		t.Skipf("skipped: %v", err)
	}
}

// Root is met when the process runs with effective user id 0 and may make a
// network namespace (containers often have the one without the other).
func Root() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("root is missing (effective uid %d)", uid)
	}
	var data [2]unix.CapUserData
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	for _, c := range []struct {
		name string
		bit  uint
	}{{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			return fmt.Errorf("%s is missing", c.name)
		}
	}
	return nil
}

// BTF is met when the kernel publishes its types, which every loaded program
// needs.
func BTF() error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return errors.New("/sys/kernel/btf/vmlinux is missing (a kernel with CONFIG_DEBUG_INFO_BTF)")
	}
	return nil
}

// BPF is met when BTF is and a BPF file system is mounted at /sys/fs/bpf.
func BPF() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/bpf", &fs); err != nil || fs.Type != unix.BPF_FS_MAGIC {
		return errors.New("a bpf file system at /sys/fs/bpf is missing (mount -t bpf bpf /sys/fs/bpf)")
	}
	return BTF()
}

// File is met when there is something at path.
func File(path string) Requirement {
	return func() error {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s is missing", path)
		}
		return nil
	}
}

// Program is met when every named program is on the PATH.
func Program(names ...string) Requirement {
	return func() error {
		var missing []error
		for _, name := range names {
			if _, err := exec.LookPath(name); err != nil {
				missing = append(missing, fmt.Errorf("program %s is missing", name))
			}
		}
		return errors.Join(missing...)
	}
}
