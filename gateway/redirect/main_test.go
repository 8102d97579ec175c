package redirect

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// insideVariable tells the test binary that it runs in its own namespaces.
const insideVariable = "GATEWAYD_REDIRECT_INSIDE"

// TestMain runs the tests in a network and a mount namespace of their own, so
// that nothing of the machine is touched and nothing is left behind. Without
// the privilege for that, it runs what needs none.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) == "" && privileged.Root() == nil {
		os.Exit(enterNamespaces())
	}
	if os.Getenv(insideVariable) != "" {
		if err := arrangeMounts(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}

func enterNamespaces() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// arrangeMounts gives the tests a BPF file system that nobody else sees.
func arrangeMounts() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bpf", defaultBPFRoot, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	return nil
}
