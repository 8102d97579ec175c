package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatewayd/lab"
)

// TestFastPathTakesNoCPU moves the same bytes by the kernel and by the relay. What gatewayd's process uses meanwhile is its
// own business in the first case (it collects what is over, and watches its tables), and work for each byte in the second.
func TestFastPathTakesNoCPU(t *testing.T) {
	const fast, relayed = "direct.example.org", "shared.example.org"
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{fast}, Handler: streamHandler(), Forgets: true})
	b.serve(&lab.Site{Names: []string{relayed, "scanned.example.org"}, Handler: streamHandler(), Forgets: true})
	b.start(fastManifest)
	trustInternet(b)
	if err := wantStatus(b.get("https://scanned.example.org/bulk/down?n=1"), http.StatusOK); err != nil {
		t.Fatal(err) // its address is the relay's from now on
	}
	size := b.bulkFor(fast)
	move := func(host string) time.Duration {
		t.Helper()
		before := b.cpuTime()
		for _, direction := range []string{"down", "up"} {
			if r := b.client("bulk", "1", direction, "https://"+host+"/bulk", strconv.FormatInt(size/2, 10)); r.Failed != nil {
				t.Fatal(r)
			}
		}
		return b.cpuTime() - before
	}
	kernel, relay := move(fast), move(relayed)
	t.Logf("for %d bytes gatewayd used %v beside the fast path, %v for the relay", size, kernel, relay)
	b.mustHaveLane(fast, "fastpath")
	b.mustHaveLane(relayed, "relay")
	if kernel*4 > relay {
		t.Error("the first should be a small part of the second")
	}
}

// cpuTime is what gatewayd's process has used, in user and system mode.
func (b *bench) cpuTime() (d time.Duration) {
	b.t.Helper()
	const ticksPerSecond = 100 // USER_HZ of linux/param.h
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.Gateway.Pid()))
	if err != nil {
		b.t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // from the third on (proc_pid_stat(5))
	for _, f := range fields[11:13] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.t.Fatal(err)
		}
		d += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	return d
}
