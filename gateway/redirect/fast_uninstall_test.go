package redirect

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestUninstallUndoesForwarding uses the fast path where the host forwards nothing, so that forwarding is switched on for the
// uplink and the link alone, and where it forwards everything. Uninstall leaves the uplink as it was.
func TestUninstallUndoesForwarding(t *testing.T) {
	for _, before := range []string{"0", "1"} {
		t.Run("ip_forward "+before, func(t *testing.T) {
			s := newStage(t, func(o *Options) { o.Uplink = "up0" })
			must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(before), 0)) // for every interface
			s.set(s.link(1))
			if o := s.r.FastObstacle(); o != "" {
				t.Fatalf("the fast path is shut: %s", o)
			}
			forwards := func() string {
				value, err := readSysctl(forwardingOf("up0"))
				must(t, err)
				return value
			}
			if got := forwards(); got != "1" {
				t.Errorf("forwarding of the uplink is %s while the fast path is used", got)
			}
			must(t, s.r.Close())
			s.open() // another process: who switched it on is remembered beyond the one that did
			s.set()
			must(t, s.r.Close())
			removed, err := Uninstall(t.Context(), s.options)
			must(t, err)
			if got := forwards(); got != before {
				t.Errorf("forwarding of the uplink is %s after uninstall, and was %s; removed %q", got, before, removed)
			}
			s.open() // for the stage's own end
		})
	}
}

// TestProbeWithoutRoot says what is missing, and not that the kernel lacks it.
func TestProbeWithoutRoot(t *testing.T) {
	err := errors.Join(errors.New("list nftables chains"), os.NewSyscallError("recvmsg", syscall.EPERM))
	if c := failed("nftables", err, "use another kernel"); c.Remedy != asRoot || !strings.HasPrefix(c.Detail, "needs root") {
		t.Errorf("check is %+v", c)
	}
	if c := failed("nftables", errors.New("no such thing"), "use another kernel"); c.Remedy != "use another kernel" {
		t.Errorf("check is %+v", c)
	}
}
