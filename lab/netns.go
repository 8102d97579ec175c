package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

// Namespace is a named network namespace: a bind mount below /run/netns, as
// ip-netns(8) makes them.
type Namespace struct {
	// Name is the file name below /run/netns.
	Name string
	// Path is the whole path.
	Path string
}

// NewNamespace makes a namespace with its loopback interface up.
func NewNamespace(name string) (*Namespace, error) {
	n := &Namespace{Name: name, Path: filepath.Join(netnsDir, name)}
	err := onThread(func() error {
		if err := shareDir(); err != nil {
			return fmt.Errorf("make %s as ip-netns(8) has it: %w", netnsDir, err)
		}
		h, err := netns.NewNamed(name)
		if err != nil {
			return fmt.Errorf("make network namespace %s: %w", name, err)
		}
		return h.Close()
	})
	if err != nil {
		return nil, err
	}
	return n, n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find loopback of %s: %w", name, err)
		}
		return netlink.LinkSetUp(lo)
	})
}

// shareDir makes the directory of namespaces a shared mount of its own before anything is mounted there. ip-netns(8) does
// so when it finds it otherwise, and would hide below it what is there by then.
func shareDir() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(netnsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	share := func() error { return unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	if err := share(); !errors.Is(err, unix.EINVAL) {
		return err
	}
	return errors.Join(unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""), share())
}

// OpenNamespace returns the namespace whose path is given, which must exist.
func OpenNamespace(path string) (*Namespace, error) {
	n := &Namespace{Name: filepath.Base(path), Path: path}
	return n, n.Do(func() error { return nil })
}

// Do runs f on a thread of its own that is in the namespace. Sockets made by
// f belong to the namespace for ever, goroutines started by f do not run in it.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		h, err := netns.GetFromPath(n.Path)
		if err != nil {
			return fmt.Errorf("open network namespace %s: %w", n.Path, err)
		}
		defer h.Close()
		if err := netns.Set(h); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Path, err)
		}
		return f()
	})
}

// onThread runs f on a thread that it may spoil: the goroutine ends without
// unlocking it, so that the runtime ends the thread too.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// removeNamespace removes one named namespace. Processes that still run in it
// keep it alive without a name, which is why they are killed first.
func removeNamespace(name string) error {
	path := filepath.Join(netnsDir, name)
	errKill := killInside(path)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil &&
		!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return errKill
}

// removeNamespaces removes every namespace that carries a world's name.
func removeNamespaces(id string) error {
	var errs []error
	for _, name := range namesIn(netnsDir, id+"-") {
		errs = append(errs, removeNamespace(name))
	}
	return errors.Join(errs...)
}

// killInside kills the processes, other than this one, whose network namespace
// is the one bound to path. A path that is no namespace has none.
func killInside(path string) error {
	pids, err := ProcessesIn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d in %s: %w", pid, path, err)
		}
	}
	return err
}

// ProcessesIn lists the processes, other than this one, whose network
// namespace is the one at path.
func ProcessesIn(path string) ([]int, error) {
	var want unix.Stat_t
	if err := unix.Stat(path, &want); err != nil {
		return nil, fmt.Errorf("look at namespace %s: %w", path, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil || pid == os.Getpid() {
			continue
		}
		var got unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &got) == nil && got.Dev == want.Dev && got.Ino == want.Ino {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func namesIn(dir, prefix string) []string {
	entries, _ := os.ReadDir(dir) // absent means empty
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names
}
