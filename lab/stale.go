package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// bpffsName is the mount point of the BPF file system below a world's directory.
const bpffsName = "bpf"

// prefix begins every name that the package gives: "gwl" PID "x" START "n"
// SEQUENCE, where START is the process's start time in clock ticks, decimal: a
// letter in it could be taken for one that separates.
// A PID alone could have been taken by another process since.
const prefix = "gwl"

var sequence atomic.Uint32

func newID() (string, error) {
	start, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%dx%sn%d", prefix, os.Getpid(), start, sequence.Add(1)), nil
}

// startTime is field 22 of /proc/PID/stat (proc_pid_stat(5)).
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	// The command name, field 2, may hold spaces and brackets itself.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	const startTimeAfterName = 22 - 3
	if len(fields) <= startTimeAfterName {
		return "", fmt.Errorf("read start time of process %d: %d fields", pid, len(fields))
	}
	ticks, err := strconv.ParseUint(fields[startTimeAfterName], 10, 64)
	if err != nil {
		return "", fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return strconv.FormatUint(ticks, 10), nil
}

// orphaned says whether a name was given by a process that is no more.
func orphaned(name string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	pidText, rest, ok := strings.Cut(rest, "x")
	if !ok {
		return false
	}
	start, _, ok := strings.Cut(rest, "n")
	if !ok {
		return false
	}
	pid, err := strconv.Atoi(pidText)
	if err != nil || pid <= 0 {
		return false
	}
	now, err := startTime(pid)
	if err == nil {
		return now != start
	}
	// No such process, or none that may be looked at.
	return unix.Kill(pid, 0) == unix.ESRCH
}

// RemoveStale removes namespaces and world directories below parent whose maker
// no longer runs, with the BPF objects in them, and returns their names. What
// cannot be removed is left for the next call.
func RemoveStale(parent string) []string {
	var removed []string
	for _, name := range namesIn(netnsDir, prefix) {
		if orphaned(name) && removeNamespace(name) == nil {
			removed = append(removed, filepath.Join(netnsDir, name))
		}
	}
	for _, name := range namesIn(parent, prefix) {
		dir := filepath.Join(parent, name)
		if orphaned(name) && unmountBPF(dir) == nil && os.RemoveAll(dir) == nil {
			removed = append(removed, dir)
		}
	}
	return removed
}

// Leftovers lists what still exists on this host of the world that had the
// given ID: names of namespaces, and its directory below parent, which holds
// its BPF objects. After World.Close it must be empty.
func Leftovers(id, parent string) []string {
	var left []string
	for _, dir := range []string{netnsDir, parent} {
		for _, name := range namesIn(dir, id) {
			if rest := name[len(id):]; rest == "" || rest[0] == '-' {
				left = append(left, filepath.Join(dir, name))
			}
		}
	}
	return left
}

// mountBPF mounts a BPF file system below a world's directory. Every mount is
// an instance of its own (kernel/bpf/inode.c, bpf_get_tree).
func mountBPF(dir string) error {
	at := filepath.Join(dir, bpffsName)
	if err := os.Mkdir(at, 0o700); err != nil {
		return fmt.Errorf("make mount point for BPF objects: %w", err)
	}
	if err := unix.Mount("bpf", at, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount BPF file system at %s: %w", at, err)
	}
	return nil
}

// unmountBPF undoes mountBPF, as often as it was done.
func unmountBPF(dir string) error {
	at := filepath.Join(dir, bpffsName)
	err := unix.Unmount(at, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount BPF file system at %s: %w", at, err)
	}
	return nil
}
