package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// RunningError says that another daemon holds the instance.
type RunningError struct {
	// Path is the lock, PID what it holds: the other's process id, if it could be read.
	Path, PID string
}

// Error names the other.
func (e *RunningError) Error() string {
	return fmt.Sprintf("another gatewayd (pid %s) holds %s; stop it, or give this one its own --instance and directories", e.PID, e.Path)
}

// lock takes the instance's lock for the life of the process, without waiting; the error is *RunningError if another has
// it. The file holds the process id, for people.
func lock(runDir string) (unlock func(), err error) {
	path := filepath.Join(runDir, "gatewayd.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		pid := make([]byte, 16)
		n, _ := f.Read(pid)
		return nil, &RunningError{Path: path, PID: strings.TrimSpace(string(pid[:n]))}
	}
	if err = f.Truncate(0); err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// Locked tells whether a daemon holds the instance whose run directory this is.
func Locked(runDir string) bool {
	f, err := os.Open(filepath.Join(runDir, "gatewayd.lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}
