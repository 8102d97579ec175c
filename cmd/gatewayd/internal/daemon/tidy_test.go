package daemon

import "testing"

// TestTidiness looks at a heap that grows by so much from look to look.
func TestTidiness(t *testing.T) {
	const mb = 1 << 20
	type look struct {
		made, cycles uint64 // since the look before
		want         tidying
	}
	for name, looks := range map[string][]look{
		"idle from the beginning": {{0, 0, leave}, {0, 0, leave}, {0, 0, leave}, {0, 0, leave}, {0, 0, leave}},
		"load that the runtime collects itself": {
			{40 * mb, 1, leave}, {40 * mb, 1, leave}, {40 * mb, 2, leave}, {40 * mb, 1, leave}, {40 * mb, 1, leave},
		},
		"a burst, then silence": {
			{6 * mb, 0, leave}, {6 * mb, 0, collect}, {6 * mb, 1, leave}, {0, 0, leave}, {0, 0, leave}, {0, 0, leave}, {0, 0, giveBack},
			{0, 1, leave}, {0, 0, leave}, {0, 0, leave}, {0, 0, leave}, {0, 0, leave},
		},
		"little, but for long": {
			{mb, 0, leave}, {mb, 0, leave}, {mb, 0, leave}, {mb, 0, giveBack}, {mb, 1, leave}, {mb, 0, leave}, {mb, 0, leave}, {mb, 0, giveBack},
		},
		"never quiet": {
			{2 * mb, 0, leave}, {2 * mb, 0, leave}, {2 * mb, 0, leave}, {2 * mb, 0, collect}, {2 * mb, 1, leave}, {2 * mb, 0, leave},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var state tidiness
			var now heapUse
			for i, l := range looks {
				now.made += l.made
				now.cycles += l.cycles
				if got := state.look(now); got != l.want {
					t.Fatalf("look %d: %d, want %d", i+1, got, l.want)
				}
			}
		})
	}
}
