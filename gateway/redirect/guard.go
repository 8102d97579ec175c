package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// guardPin is the name of the pinned link of the socket-lookup program.
const guardPin = "listeners"

// ensureGuard puts the program that keeps bottles from the host's listeners at
// the namespace's socket lookup, and reports whether it had to.
func ensureGuard(dir *pinDir, prog *ebpf.Program) (changed bool, err error) {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return false, fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	pin := dir.join(linksDir, guardPin)
	l, err := link.LoadPinnedLink(pin, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, attachGuard(ns, prog, pin)
	case err != nil:
		return false, fmt.Errorf("open pinned link: %w", err)
	}
	defer l.Close()
	alive, current, err := guardState(l, ns, prog)
	switch {
	case err != nil:
		return false, err
	case !alive:
		if err := l.Unpin(); err != nil {
			return false, fmt.Errorf("unpin link: %w", err)
		}
		return true, attachGuard(ns, prog, pin)
	case !current:
		if err := l.Update(prog); err != nil {
			return false, fmt.Errorf("update link: %w", err)
		}
		return true, nil
	}
	return false, nil
}

func attachGuard(ns *os.File, prog *ebpf.Program, pin string) error {
	l, err := link.AttachNetNs(int(ns.Fd()), prog)
	if err != nil {
		return fmt.Errorf("attach socket lookup program: %w", err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin link: %w", err)
	}
	return nil
}

// guardState tells whether the link is attached to ns, and runs prog.
func guardState(l link.Link, ns *os.File, prog *ebpf.Program) (alive, current bool, err error) {
	info, err := l.Info()
	if err != nil {
		return false, false, fmt.Errorf("examine pinned link: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return false, false, fmt.Errorf("examine network namespace: %w", err)
	}
	id, err := programID(prog)
	if err != nil {
		return false, false, err
	}
	there := info.NetNs()
	alive = there != nil && there.NetnsInode != 0 && uint64(there.NetnsInode) == st.Ino
	return alive, info.Program == id, nil
}
