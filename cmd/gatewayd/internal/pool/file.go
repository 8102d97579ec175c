package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileName is the allocation file in the state directory.
const fileName = "pool.json"

// table is the allocation file.
type table struct {
	// Bottles maps each bottle to its masked prefix.
	Bottles map[string]netip.Prefix `json:"bottles"`
}

// Allocate gives the numbering of a bottle from the pool, remembering it in stateDir, which must exist. It blocks while
// another process allocates. The errors are *CollisionError, ErrExhausted and those of the file system; a state file that
// cannot be read is an error and never an empty one, since that would give away addresses that guests have.
func Allocate(stateDir string, pool netip.Prefix, r Request) (Link, error) {
	unlock, err := lock(filepath.Join(stateDir, "pool.lock"))
	if err != nil {
		return Link{}, err
	}
	defer unlock()
	path := filepath.Join(stateDir, fileName)
	t, err := read(path)
	if err != nil {
		return Link{}, err
	}
	p, changed, err := assign(pool, t.Bottles, r)
	if err != nil {
		return Link{}, err
	}
	l, err := number(p, r.Fixed)
	if err != nil {
		return Link{}, err
	}
	if changed {
		t.Bottles[r.Bottle] = p
		if err := write(path, t); err != nil {
			return Link{}, err
		}
	}
	return l, nil
}

// lock takes an exclusive flock(2) on path, waiting for it.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func read(path string) (table, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return table{Bottles: map[string]netip.Prefix{}}, nil
	}
	if err != nil {
		return table{}, err
	}
	return parse(path, b)
}

func parse(path string, b []byte) (table, error) {
	var t table
	if err := json.Unmarshal(b, &t); err != nil {
		return table{}, fmt.Errorf("read %s: %w; restore it, or remove it if no guest is configured yet", path, err)
	}
	if t.Bottles == nil {
		t.Bottles = map[string]netip.Prefix{}
	}
	for name, p := range t.Bottles {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
			return table{}, fmt.Errorf("read %s: bottle %s has the prefix %s, which is not a masked IPv4 prefix", path, name, p)
		}
	}
	return t, nil
}

// write replaces the file in one rename(2).
func write(path string, t table) error {
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".pool-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(append(b, '\n')); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
