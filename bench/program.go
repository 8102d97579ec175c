package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gatewayd/lab"
)

// program is a server that runs in a namespace until it is closed.
type program struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  lockedBuffer
}

// lockedBuffer keeps what a program wrote, from its end.
type lockedBuffer struct {
	mu   sync.Mutex
	text []byte
}

const mostLog = 64 << 10

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	b.text = b.text[max(0, len(b.text)-mostLog):]
	return len(p), nil
}

// String is the end of what was written.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(bytes.TrimSpace(b.text))
}

// startProgram starts argv in the namespace; it ends with ctx or by close. Files become its descriptors from 3 on; the
// caller closes its own.
func startProgram(ctx context.Context, ns *lab.Namespace, env []string, files []*os.File, argv ...string) (*program, error) {
	p := &program{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.ExtraFiles = files
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) } // workers, too
	if err := ns.Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(argv[0]), err)
	}
	go func() {
		_ = p.cmd.Wait() // whoever waits for a program looks at ended
		close(p.done)
	}()
	return p, nil
}

// ended is an error when the program does not run any more.
func (p *program) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %s: %s", filepath.Base(p.cmd.Path), p.cmd.ProcessState, p.log.String())
	default:
		return nil
	}
}

// close kills the program's process group and waits for the program.
func (p *program) close() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end %s: %w", filepath.Base(p.cmd.Path), err)
	}
	<-p.done
	return nil
}

// ticksPerSecond is USER_HZ, which is 100 wherever Linux runs Go.
const ticksPerSecond = 100

// family is the process and those that descend from it.
func family(pid int) []int {
	parents := map[int][]int{}
	entries, _ := os.ReadDir("/proc") // without /proc nothing here works, and usage says so
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields, err := statFields(child); err == nil {
			parent, _ := strconv.Atoi(fields[1])
			parents[parent] = append(parents[parent], child)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, parents[all[i]]...)
	}
	return slices.Compact(all)
}

// statFields are the fields of /proc/PID/stat behind the name: the state first (proc_pid_stat(5)).
func statFields(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("read process: %w", err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return nil, fmt.Errorf("read process %d: %d fields", pid, len(fields))
	}
	return fields, nil
}

// cpuTime is the CPU time of a process, of all its threads that are and were. Its clock's number is that of clock_getcpuclockid(3);
// /proc/PID/stat has the same in steps of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED (linux/posix-timers_types.h)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &ts); err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// usage is the CPU time, user and system, of a process and its descendants in seconds, and their resident bytes: pages
// that two of them share are counted twice.
func usage(pid int) (cpu float64, resident int64, err error) {
	for _, p := range family(pid) {
		took, err := cpuTime(p)
		if err != nil {
			return 0, 0, err
		}
		cpu += took.Seconds()
		pages, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p))
		if err != nil {
			return 0, 0, fmt.Errorf("read memory: %w", err)
		}
		var size, rss int64
		if _, err := fmt.Sscan(string(pages), &size, &rss); err != nil {
			return 0, 0, fmt.Errorf("read memory of process %d: %w", p, err)
		}
		resident += rss * int64(os.Getpagesize())
	}
	return cpu, resident, nil
}

// softirq is the time that all CPUs together have spent in software interrupts, in seconds (proc_stat(5)).
func softirq() (float64, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read time of software interrupts: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return 0, fmt.Errorf("read time of software interrupts: %q", line)
	}
	ticks, err := strconv.ParseInt(fields[7], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read time of software interrupts: %w", err)
	}
	return float64(ticks) / ticksPerSecond, nil
}
