package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// describeMachine names the machine by its CPU and its kernel, and by nothing that would identify it.
func (r *Report) describeMachine() error {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("name the CPU: %w", err)
	}
	r.CPU, r.CPUs = runtime.GOARCH, runtime.NumCPU()
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			r.CPU = strings.TrimSpace(value)
			break
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("name the kernel: %w", err)
	}
	r.Kernel = unix.ByteSliceToString(u.Release[:])
	r.LoadBefore = loadAverage()
	return nil
}

// loadAverage is that of the last minute; 0 where the kernel does not say.
func loadAverage() float64 {
	var v float64
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscan(string(text), &v); err != nil {
		return 0
	}
	return v
}
