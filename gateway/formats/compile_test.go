package formats

import (
	"testing"
	"time"
)

// TestCompilingIsCheap bounds what compiling all rules costs a start, by the processor time of this process and with room for any
// machine: BenchmarkCompile measures it, and docs/SCANNER.md has a figure.
func TestCompilingIsCheap(t *testing.T) {
	const most = time.Second
	before := cpu(t)
	if _, err := Default(); err != nil {
		t.Fatal(err)
	}
	if cost := cpu(t) - before; cost > most {
		t.Errorf("%v of processor time, at most %v", cost, most)
	}
}
