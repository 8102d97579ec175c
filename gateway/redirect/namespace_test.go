package redirect

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// TestNamespaceBesideIPNetns has ip-netns(8) used for the first time on a machine where a namespace of ours is there already.
func TestNamespaceBesideIPNetns(t *testing.T) {
	privileged.Require(t, privileged.Program("ip"))
	// The directory must be no mount of its own, so what is above it becomes one.
	parent := filepath.Dir(namedNetns)
	must(t, unix.Mount("tmpfs", parent, "tmpfs", 0, "mode=0755"))
	t.Cleanup(func() { must(t, unix.Unmount(parent, unix.MNT_DETACH)) })
	ours := filepath.Join(namedNetns, "ours")
	must(t, makeNetns(ours))
	out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", "theirs").CombinedOutput()
	if err != nil {
		t.Fatalf("ip netns add: %v: %s", err, out)
	}
	if err := removeNetns(ours); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(ours); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace is still there: %v", err)
	}
	out, err = exec.CommandContext(t.Context(), "ip", "netns", "list").CombinedOutput()
	if got := string(out); err != nil || got != "theirs\n" {
		t.Errorf("ip netns list says %q, %v", got, err)
	}
}
