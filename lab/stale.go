package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const bpffsDir = "/sys/fs/bpf"

// prefix begins every name that the package gives: "gwl" PID "x" START "n"
// SEQUENCE, where START is the process's start time in clock ticks, base 36.
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

// startTime is field 22 of /proc/PID/stat (proc_pid_stat(5)), base 36.
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
	return strconv.FormatUint(ticks, 36), nil
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

// RemoveStale removes namespaces, BPF directories and world directories below
// parent whose maker no longer runs, and returns their names. What cannot be
// removed is left for the next call.
func RemoveStale(parent string) []string {
	var removed []string
	for _, name := range namesIn(netnsDir, prefix) {
		if orphaned(name) && removeNamespace(name) == nil {
			removed = append(removed, filepath.Join(netnsDir, name))
		}
	}
	for _, dir := range []string{bpffsDir, parent} {
		for _, name := range namesIn(dir, prefix) {
			if orphaned(name) && os.RemoveAll(filepath.Join(dir, name)) == nil {
				removed = append(removed, filepath.Join(dir, name))
			}
		}
	}
	return removed
}

// Leftovers lists what still exists on this host of the world that had the
// given ID: names of namespaces, BPF directories and its directory below
// parent. After World.Close it must be empty.
func Leftovers(id, parent string) []string {
	var left []string
	for _, dir := range []string{netnsDir, bpffsDir, parent} {
		for _, name := range namesIn(dir, id) {
			if rest := name[len(id):]; rest == "" || rest[0] == '-' {
				left = append(left, filepath.Join(dir, name))
			}
		}
	}
	return left
}

func removeBPF(id string) error {
	if err := os.RemoveAll(filepath.Join(bpffsDir, id)); err != nil {
		return fmt.Errorf("remove BPF directory: %w", err)
	}
	return nil
}
