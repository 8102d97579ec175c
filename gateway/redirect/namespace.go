package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNetns is the network namespace of the calling thread.
const threadNetns = "/proc/thread-self/ns/net"

// onThread runs fn on a thread of its own that fn may move to another network
// namespace. Afterwards the thread goes back to where it came from; one that
// cannot is left locked, and the runtime ends it with its goroutine.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(threadNetns)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open network namespace: %w", err)
			return
		}
		defer home.Close()
		err = fn()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, fmt.Errorf("return to network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// inNetns runs fn with its thread in the namespace ns. fn must not start
// goroutines that need to be there.
func inNetns(ns *os.File, fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// openNetns opens the namespace bound at path. It returns an error that wraps
// fs.ErrNotExist if there is nothing or only an empty file, which is what a
// namespace leaves when its mount is gone.
func openNetns(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fsys); err != nil {
		f.Close()
		return nil, fmt.Errorf("examine namespace %s: %w", path, err)
	}
	if fsys.Type == unix.NSFS_MAGIC {
		return f, nil
	}
	st, err := f.Stat()
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("examine namespace %s: %w", path, err)
	}
	if st.Mode().IsRegular() && st.Size() == 0 {
		return nil, fmt.Errorf("open namespace %s: nothing is mounted there: %w", path, fs.ErrNotExist)
	}
	return nil, &StateError{Object: path, Cause: "it is no network namespace",
		Remedy: "remove it, or name another path in the link"}
}

// namedNetns is the directory of ip-netns(8).
const namedNetns = "/run/netns"

// shareNamedNetns makes the directory of ip-netns(8) a mount of its own that is
// shared, as that does when it finds it otherwise. Were it done later, by others,
// the mounts that are there by then would be hidden below it, and could not be
// removed any more.
func shareNamedNetns() error {
	dir, err := os.Open(namedNetns)
	if err != nil {
		return fmt.Errorf("open directory of namespaces: %w", err)
	}
	defer dir.Close()
	// The lock that ip-netns(8) takes for the same.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", namedNetns, err)
	}
	share := func() error { return unix.Mount("", namedNetns, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err = share()
	if errors.Is(err, unix.EINVAL) { // no mount
		if err := unix.Mount(namedNetns, namedNetns, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", namedNetns, err)
		}
		err = share()
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", namedNetns, err)
	}
	return nil
}

// makeNetns creates a network namespace and binds it at path, as ip-netns(8)
// does. The mount is visible in the process's mount namespace.
func makeNetns(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create directory for namespace: %w", err)
	}
	if filepath.Dir(path) == namedNetns {
		if err := shareNamedNetns(); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return fmt.Errorf("create mount point: %w", err)
	}
	f.Close()
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create network namespace: %w", err)
		}
		if err := unix.Mount(threadNetns, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind network namespace at %s: %w", path, err)
		}
		return nil
	})
}

// removeNetns undoes makeNetns. The namespace itself lives on while a process
// is in it.
func removeNetns(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove mount point: %w", err)
	}
	return nil
}
