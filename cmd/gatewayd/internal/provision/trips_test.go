package provision

import (
	"os"
	"path/filepath"
	"testing"
)

// What cannot be told is cut off, and nothing else is but what was cut off before.
func TestTrips(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if (Trips{dir}).Tripped("dev") {
			t.Fatal("a bottle begins cut off")
		}
		for range 2 {
			if err := (Trips{dir}).SetTripped("dev", true); err != nil {
				t.Fatal(err)
			}
		}
		if again := (Trips{dir}); !again.Tripped("dev") || again.Tripped("other") {
			t.Error("the state is not that of before")
		}
		for range 2 {
			if err := (Trips{dir}).SetTripped("dev", false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bottles", "odd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !(Trips{dir}).Tripped("odd") {
		t.Error("a state that cannot be read lets the bottle go on")
	}
	if (Trips{dir}).SetTripped("odd", true) == nil {
		t.Error("a state that cannot be written was")
	}
}
