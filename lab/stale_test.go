package lab

import (
	"fmt"
	"os"
	"testing"
)

// Whatever the numbers, a name that a living process gave is its own, also with
// a bottle's name behind it.
func TestLivingProcessesNamesAreTheirOwn(t *testing.T) {
	id, err := newID()
	if err != nil {
		t.Fatal(err)
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{id, id + "-gw", id + "-name-x1n2", fmt.Sprintf("gwl%dx%sn%d-inet", os.Getpid(), start, 4_000_000_000)} {
		if orphaned(name) {
			t.Errorf("%s is taken for a dead process's", name)
		}
	}
	for i := 0; i < len(start); i++ {
		if start[i] < '0' || start[i] > '9' {
			t.Errorf("start time %s holds a letter", start)
		}
	}
	if !orphaned(fmt.Sprintf("gwl%dx%s0n1", os.Getpid(), start)) {
		t.Error("a name of an earlier process with this id is taken for this one's")
	}
}
