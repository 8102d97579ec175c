package redirect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// CheckStatus is the outcome of one check.
type CheckStatus string

const (
	// Pass says that all is as it should be.
	Pass CheckStatus = "pass"
	// Warn says that something may keep traffic from being served, or that a
	// feature will be missing. Nothing is less safe for it.
	Warn CheckStatus = "warn"
	// Fail says that Open, or a link of some kind, will not work.
	Fail CheckStatus = "fail"
)

// Check is one thing that Probe looked at.
type Check struct {
	Name   string      // what was looked at, e.g. "kernel"
	Status CheckStatus // how it is
	Detail string      // what was found
	Remedy string      // what to do about it; "" with Pass
}

// Probe looks at everything that the instance will need, and at what others on
// the machine do that stands in its way. It changes nothing; the programs are
// loaded and let go at once, and one that counts is on lo for a moment. It stops early when ctx ends.
func Probe(ctx context.Context, o Options) []Check {
	o, err := o.withDefaults()
	if err != nil {
		return []Check{failed("options", err, "correct the option")}
	}
	var checks []Check
	for _, probe := range []func(Options) []Check{
		probeKernel, probeCapabilities, probeBPFFS, probePrograms, probeTun, probeClock,
		probeTables, probeRules, probeSysctls, probeUplink, probeFastPath,
	} {
		if ctx.Err() != nil {
			break
		}
		checks = append(checks, probe(o)...)
	}
	return checks
}

func passed(name, detail string) Check { return Check{Name: name, Status: Pass, Detail: detail} }

func warned(name, detail, remedy string) Check {
	return Check{Name: name, Status: Warn, Detail: detail, Remedy: remedy}
}

// asRoot is the remedy for what the kernel tells nobody else.
const asRoot = "run as root"

// remedyFor is what to do about err: what is said of others is not known of one that lacks a permission.
func remedyFor(err error, remedy string) string {
	if errors.Is(err, fs.ErrPermission) {
		return asRoot
	}
	return remedy
}

func failed(name string, err error, remedy string) Check {
	if remedy = remedyFor(err, remedy); errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("needs root: %w", err)
	}
	return Check{Name: name, Status: Fail, Detail: err.Error(), Remedy: remedy}
}

// leastKernel is the oldest kernel that the programs are meant for.
var leastKernel = [2]int{6, 1}

func probeKernel(Options) []Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []Check{failed("kernel", fmt.Errorf("read kernel version: %w", err), "")}
	}
	release := unix.ByteSliceToString(u.Release[:])
	var version [2]int
	if _, err := fmt.Sscanf(release, "%d.%d", &version[0], &version[1]); err != nil {
		return []Check{failed("kernel", fmt.Errorf("parse kernel version %q: %w", release, err), "")}
	}
	checks := []Check{passed("kernel", "Linux "+release)}
	if version[0] < leastKernel[0] || version[0] == leastKernel[0] && version[1] < leastKernel[1] {
		checks[0] = failed("kernel", fmt.Errorf("version is %s", release),
			fmt.Sprintf("boot Linux %d.%d or newer", leastKernel[0], leastKernel[1]))
	}
	if _, err := os.Stat(kernelTypes); err != nil {
		return append(checks, warned("btf", "the kernel publishes no type information",
			"use a kernel with CONFIG_DEBUG_INFO_BTF; without it passed-through flows take the relay"))
	}
	return append(checks, passed("btf", kernelTypes))
}

func probeCapabilities(Options) []Check {
	var data [2]unix.CapUserData
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&head, &data[0]); err != nil {
		return []Check{failed("capabilities", fmt.Errorf("read capabilities: %w", err), "")}
	}
	has := func(bit uint) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	var missing []string
	if !has(unix.CAP_NET_ADMIN) {
		missing = append(missing, "CAP_NET_ADMIN")
	}
	if !has(unix.CAP_SYS_ADMIN) {
		missing = append(missing, "CAP_SYS_ADMIN")
	}
	if !has(unix.CAP_BPF) && !has(unix.CAP_SYS_ADMIN) {
		missing = append(missing, "CAP_BPF")
	}
	if len(missing) > 0 {
		return []Check{failed("capabilities", errors.New("missing "+strings.Join(missing, ", ")), asRoot)}
	}
	return []Check{passed("capabilities", "CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN")}
}

func probeBPFFS(o Options) []Check {
	if err := checkBPFFS(filepath.Dir(o.BPFFS)); err != nil {
		return []Check{failed("bpffs", err, "mount -t bpf bpf "+defaultBPFRoot)}
	}
	return []Check{passed("bpffs", o.BPFFS)}
}

// probePrograms asks for each program type and helper by name, so that what is
// missing can be told, and then loads the programs for good measure.
func probePrograms(options Options) []Check {
	if err := rlimit.RemoveMemlock(); err != nil {
		return []Check{failed("programs", fmt.Errorf("raise memory lock limit: %w", err), asRoot)}
	}
	const remedy = "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_INET"
	for _, t := range []ebpf.ProgramType{ebpf.SchedCLS, ebpf.SkLookup} {
		if err := features.HaveProgramType(t); err != nil {
			return []Check{failed("programs", fmt.Errorf("program type %v: %w", t, err), remedy)}
		}
	}
	for _, f := range []asm.BuiltinFunc{asm.FnSkAssign, asm.FnSkcLookupTcp, asm.FnSkLookupUdp,
		asm.FnSkFullsock, asm.FnSkbChangeTail, asm.FnRedirect} {
		if err := features.HaveProgramHelper(ebpf.SchedCLS, f); err != nil {
			return []Check{failed("programs", fmt.Errorf("helper %v: %w", f, err), remedy)}
		}
	}
	o, noLane, err := loadUnpinned()
	if err != nil {
		return []Check{failed("programs", err, remedy)}
	}
	checks := []Check{passed("programs", "the verifier accepts them, all helpers are there"), probeHook(o), probeLane(options, noLane)}
	if err := o.Close(); err != nil {
		checks = append(checks, failed("programs", fmt.Errorf("close programs: %w", err), "see the system's log"))
	}
	return checks
}

// probeLane says which of its two forms the fast path has. Neither is less safe.
func probeLane(o Options, noLane string) Check {
	switch {
	case o.Forward:
		return passed("fast lane", "verified flows are forwarded by the stack, as configured")
	case noLane == "":
		return passed("fast lane", "verified flows are redirected to the uplink, past netfilter and routing")
	}
	return warned("fast lane", noLane+": fast-path flows are forwarded by the stack",
		"use a kernel with CONFIG_NF_CONNTRACK and CONFIG_DEBUG_INFO_BTF (and _MODULES)")
}

func probeHook(o *gatewayObjects) Check {
	tcx, err := haveTCX(o.CaptureEgress)
	switch {
	case err != nil:
		return failed("hook", err, asRoot)
	case tcx:
		return passed("hook", "tcx")
	}
	return passed("hook", "clsact (tcx needs Linux 6.6)")
}

func probeTun(Options) []Check {
	if _, err := os.Stat(tunDevice); err != nil {
		return []Check{warned("tun", "there is no "+tunDevice, "modprobe tun, if links are to be taps")}
	}
	return []Check{passed("tun", tunDevice)}
}

// leastTime is before any release of this program: a clock that is earlier has
// never been set, and certificates would be judged by it.
var leastTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func probeClock(Options) []Check {
	now := time.Now()
	if now.Before(leastTime) {
		return []Check{failed("clock", fmt.Errorf("it is %s here", now.UTC().Format(time.RFC3339)), "set the clock, e.g. with chronyd")}
	}
	var tx unix.Timex
	if _, err := unix.Adjtimex(&tx); err == nil && tx.Status&unix.STA_UNSYNC != 0 {
		return []Check{warned("clock", "the kernel says that nothing keeps the clock in time", "run chronyd or systemd-timesyncd; certificates are judged by the clock")}
	}
	return []Check{passed("clock", now.UTC().Format(time.RFC3339))}
}
