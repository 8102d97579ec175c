package daemon

import "testing"

// TestTidiness looks at a heap that grows by so much from look to look.
func TestTidiness(t *testing.T) {
	const mb = 1 << 20
	type look struct {
		made, cycles uint64 // since the look before
		want         tidying
		live         uint64
	}
	for name, looks := range map[string][]look{
		"idle from the beginning": {{0, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0}},
		"load that the runtime collects itself": {
			{40 * mb, 1, leave, 0}, {40 * mb, 1, leave, 0}, {40 * mb, 2, leave, 0}, {40 * mb, 1, leave, 0}, {40 * mb, 1, leave, 0},
		},
		"a burst, then silence": {
			{6 * mb, 0, leave, 0}, {6 * mb, 0, collect, 0}, {6 * mb, 1, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, giveBack, 0},
			{0, 1, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0},
		},
		"little, but for long": {
			{mb, 0, leave, 0}, {mb, 0, leave, 0}, {mb, 0, leave, 0}, {mb, 0, giveBack, 0}, {mb, 1, leave, 0}, {mb, 0, leave, 0}, {mb, 0, leave, 0}, {mb, 0, giveBack, 0},
		},
		"a burst, then the watcher's looks alone": {
			{40 * mb, 1, leave, 0}, {2 * mb, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, giveBack, 0},
			{0, 1, leave, 0}, {0, 0, leave, 0}, {2 * mb, 0, leave, 0}, {0, 0, leave, 0}, {0, 0, leave, 0},
		},
		"never quiet": {
			{2 * mb, 0, leave, 0}, {2 * mb, 0, leave, 0}, {2 * mb, 0, leave, 0}, {2 * mb, 0, collect, 0}, {2 * mb, 1, leave, 0}, {2 * mb, 0, leave, 0},
		},
		"large, and little is made": {
			{8 * mb, 0, leave, 100 * mb}, {8 * mb, 0, leave, 100 * mb}, {40 * mb, 0, collect, 100 * mb},
			{mb, 1, leave, 100 * mb}, {mb, 0, leave, 100 * mb}, {mb, 0, leave, 100 * mb}, {mb, 0, giveBack, 100 * mb},
			{mb, 1, leave, 100 * mb}, {mb, 0, leave, 100 * mb}, {mb, 0, leave, 100 * mb}, {mb, 0, leave, 100 * mb},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var state tidiness
			var now heapUse
			for i, l := range looks {
				now.made += l.made
				now.cycles += l.cycles
				now.live = l.live
				if got := state.look(now); got != l.want {
					t.Fatalf("look %d: %d, want %d", i+1, got, l.want)
				}
			}
		})
	}
}
