package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
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

// versions are what the programs say of themselves; one that says nothing is left out.
func (w *world) versions(ctx context.Context, o *options) map[string]string {
	out := map[string]string{}
	for name, argv := range map[string][]string{
		"gatewayd": {o.gatewayd, "version"}, "HAProxy": {"haproxy", "-v"}, "nginx": {"nginx", "-v"}, "wrk": {"wrk", "-v"},
		"iperf3": {"iperf3", "-v"}, "squid": {"squid", "-v"}, "mitmproxy": {"mitmdump", "--version"}, "h2load": {"h2load", "--version"},
	} {
		if name != "gatewayd" {
			path, err := o.packages.find(ctx, argv[0])
			if err != nil {
				continue
			}
			argv[0] = path
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), o.packages.env()...)
		text, _ := cmd.CombinedOutput() // wrk -v fails, and prints its version
		m := versionNumber.FindString(string(text))
		if name == "gatewayd" { // a tag, a commit, or a word
			m = strings.TrimSpace(strings.TrimPrefix(string(text), "gatewayd "))
		}
		if m != "" {
			out[name] = m
		}
	}
	return out
}

// versionNumber is the first word that begins with a digit.
var versionNumber = regexp.MustCompile(`\b\d[\w.+-]*`)
