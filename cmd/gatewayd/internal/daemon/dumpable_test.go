package daemon

import (
	"log/slog"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"gatewayd/cmd/gatewayd/internal/config"
)

// TestNobodyElseReadsMemory makes sure that a process which is to hold credentials leaves no core dump and cannot be traced by
// others of its user (prctl(2), PR_SET_DUMPABLE), before it holds any.
func TestNobodyElseReadsMemory(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || before != 1 {
		t.Fatalf("the test's process is dumpable: %d, %v", before, err)
	}
	t.Cleanup(func() {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	d := &daemon{Options: Options{Log: slog.New(slog.DiscardHandler),
		Config: config.Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")}}}
	unlock, err := d.prepare()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if now, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || now != 0 {
		t.Errorf("the process is dumpable: %d, %v", now, err)
	}
}
