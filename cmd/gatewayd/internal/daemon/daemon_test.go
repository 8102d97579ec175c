package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLockHasOneHolder(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lock(dir)
	var running *RunningError
	if !errors.As(err, &running) || running.PID != strconv.Itoa(os.Getpid()) {
		t.Errorf("second holder: %v", err)
	}
	if !Locked(dir) {
		t.Error("held, and not seen as held")
	}
	unlock()
	if Locked(dir) {
		t.Error("released, and seen as held")
	}
	if unlock, err = lock(dir); err != nil {
		t.Fatalf("after release: %v", err)
	}
	unlock()
	if Locked(filepath.Join(dir, "none")) {
		t.Error("a directory that is not there is seen as held")
	}
}

func TestDefaultUplink(t *testing.T) {
	const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	for _, c := range []struct{ table, want string }{
		{"", ""},
		{head, ""},
		{head + "eth1\t000012C6\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n", ""},
		{head + "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\nwlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n", "eth0"},
		{head + "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\neth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", "eth0"},
	} {
		if got := defaultUplink([]byte(c.table)); got != c.want {
			t.Errorf("got %q, want %q of\n%s", got, c.want, c.table)
		}
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	notify("READY=1") // nobody to tell
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	notify("READY=1") // nobody listens
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	notify("READY=1")
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("got %q, %v", b[:n], err)
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	m := newMetrics(r, "v1")
	m.reloaded("ok")
	m.refused("")
	problems, err := testutil.GatherAndLint(r)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
