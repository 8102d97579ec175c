package provision

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Trips remembers which bottles were cut off, each by a file of its own. It is a gateway.TripStore.
type Trips struct {
	// StateDir is the state directory.
	StateDir string
}

func (t Trips) file(bottle string) string {
	return filepath.Join(t.StateDir, "bottles", bottle, "cut-off")
}

// Tripped tells whether the bottle is cut off; it is if that cannot be told.
func (t Trips) Tripped(bottle string) bool {
	_, err := os.Lstat(t.file(bottle))
	return !errors.Is(err, fs.ErrNotExist)
}

// SetTripped makes the bottle's file, or removes it.
func (t Trips) SetTripped(bottle string, tripped bool) error {
	if !tripped {
		err := os.Remove(t.file(bottle))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := os.MkdirAll(filepath.Dir(t.file(bottle)), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(t.file(bottle), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
