package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The directories under Options.BPFFS. bpffs refuses names with a dot.
const (
	objectsDir = "objects" // maps and programs
	linksDir   = "links"   // attachments
	newPrefix  = "new-"    // objects on their way in, gone after a rename
	oldPrefix  = "old-"    // objects on their way out
)

// pinDir is an instance's directory on a BPF file system, locked against other
// processes for as long as it is open.
type pinDir struct {
	path string
	lock *os.File
}

// openPinDir makes the directory if need be and locks it. It returns an error
// that wraps ErrLocked when another process has it, and a *StateError when the
// path is not on a BPF file system.
func openPinDir(path string) (*pinDir, error) {
	if err := checkBPFFS(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create pin directory: %w", err)
	}
	lock, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open pin directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	d := &pinDir{path: path, lock: lock}
	if err := os.Mkdir(d.join(linksDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		lock.Close()
		return nil, fmt.Errorf("create link directory: %w", err)
	}
	return d, nil
}

// checkBPFFS reports whether dir is on a mounted BPF file system.
func checkBPFFS(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("examine %s: %w", dir, err)
	}
	if uint32(st.Type) != uint32(unix.BPF_FS_MAGIC) {
		return &StateError{Object: dir, Cause: "no BPF file system is mounted there",
			Remedy: "mount -t bpf bpf " + defaultBPFRoot + ", and enter namespaces with nsenter --net= since ip netns exec hides it"}
	}
	return nil
}

func (d *pinDir) join(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// Close gives up the lock and leaves the pins.
func (d *pinDir) Close() error { return d.lock.Close() }

// sweep removes what an interrupted replacement left.
func (d *pinDir) sweep() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("read pin directory: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), oldPrefix) {
			if err := os.RemoveAll(d.join(e.Name())); err != nil {
				return fmt.Errorf("remove stale pins: %w", err)
			}
		}
	}
	return nil
}

// remove unpins everything, which detaches what is attached by links.
func (d *pinDir) remove() error {
	if err := os.RemoveAll(d.path); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}

// objectFiles is what is pinned under objectsDir.
type pinnable interface{ Pin(string) error }

func pinnables(o *gatewayObjects) map[string]pinnable {
	return map[string]pinnable{
		gatewayMapBottles:         o.Bottles,
		gatewayMapStats:           o.Stats,
		gatewayMapInstances:       o.Instances,
		gatewayMapFlows:           o.Flows,
		gatewayMapHellos:          o.Hellos,
		gatewayMapSlots:           o.Slots,
		gatewayMapDestinations:    o.Destinations,
		gatewayMapPins:            o.Pins,
		gatewayMapGrants:          o.Grants,
		gatewayMapNames:           o.Names,
		gatewayMapUsages:          o.Usages,
		gatewayMapEvents:          o.Events,
		gatewayMapScratch:         o.Scratch,
		gatewayMapTold:            o.Told,
		gatewayMapLayouts:         o.Layouts,
		gatewayMapReverses:        o.Reverses,
		gatewayMapLanes:           o.Lanes,
		gatewayProgUplinkIngress:  o.UplinkIngress,
		gatewayProgCollectFlows:   o.CollectFlows,
		gatewayProgCaptureIngress: o.CaptureIngress,
		gatewayProgCaptureEgress:  o.CaptureEgress,
		gatewayProgGuardListeners: o.GuardListeners,
	}
}

// replaceObjects pins all objects in a new directory and renames it into place,
// so that a crash leaves either whole set or none. Links keep the programs they
// run either way.
func (d *pinDir) replaceObjects(o *gatewayObjects) error {
	fresh, err := os.MkdirTemp(d.path, newPrefix)
	if err != nil {
		return fmt.Errorf("create pin directory: %w", err)
	}
	for name, object := range pinnables(o) {
		if err := object.Pin(filepath.Join(fresh, name)); err != nil {
			return errors.Join(fmt.Errorf("pin %s: %w", name, err), os.RemoveAll(fresh))
		}
	}
	current := d.join(objectsDir)
	old := d.join(oldPrefix + filepath.Base(fresh))
	if err := os.Rename(current, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("retire pins: %w", err)
	}
	if err := os.Rename(fresh, current); err != nil {
		return fmt.Errorf("rename pins: %w", err)
	}
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("remove retired pins: %w", err)
	}
	return nil
}

// carriesFlows tells whether established flows live in a map, or are judged by
// it: a new one in its place would end them.
func carriesFlows(name string) bool {
	switch name {
	case gatewayMapFlows, gatewayMapHellos, gatewayMapSlots, gatewayMapReverses, gatewayMapLanes, gatewayMapGrants, gatewayMapNames, gatewayMapUsages:
		return true
	}
	return false
}

// pinnedMaps opens the pinned maps that still fit the specification. Maps of
// another layout are left out: the programs get new ones, and Set fills them.
// Of those that carry flows that is an error, a *StateError, unless replace.
func (d *pinDir) pinnedMaps(spec *ebpf.CollectionSpec, replace bool) (map[string]*ebpf.Map, error) {
	maps := make(map[string]*ebpf.Map, len(spec.Maps))
	for name, ms := range spec.Maps {
		m, err := ebpf.LoadPinnedMap(d.join(objectsDir, name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeMaps(maps)
			return nil, fmt.Errorf("open pinned map %s: %w", name, err)
		}
		if err := ms.Compatible(m); err != nil {
			m.Close()
			if carriesFlows(name) && !replace {
				closeMaps(maps)
				return nil, &StateError{Object: d.join(objectsDir, name), Cause: "it is of another version, and flows may depend on it",
					Remedy: "stop the bottles, run gatewayd uninstall, and start again"}
			}
			continue
		}
		maps[name] = m
	}
	return maps, nil
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// adoptProgram replaces *fresh by the pinned program of that name when both
// have the same tag, and reports whether it did. The tag is a digest of the
// instructions; a map's place in them is left out, and the maps are adopted
// before the programs are loaded.
func (d *pinDir) adoptProgram(name string, fresh **ebpf.Program) (bool, error) {
	pinned, err := ebpf.LoadPinnedProgram(d.join(objectsDir, name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open pinned program %s: %w", name, err)
	}
	same, err := sameTag(pinned, *fresh)
	if err != nil || !same {
		return false, errors.Join(err, pinned.Close())
	}
	err = (*fresh).Close()
	*fresh = pinned
	return true, err
}

func sameTag(a, b *ebpf.Program) (bool, error) {
	ai, err := a.Info()
	if err != nil {
		return false, fmt.Errorf("examine pinned program: %w", err)
	}
	bi, err := b.Info()
	if err != nil {
		return false, fmt.Errorf("examine loaded program: %w", err)
	}
	return ai.Tag != "" && ai.Tag == bi.Tag, nil
}

// liveLinks returns the names of pinned links that are still attached to
// something, in this namespace or another.
func (d *pinDir) liveLinks() ([]string, error) {
	entries, err := os.ReadDir(d.join(linksDir))
	if err != nil {
		return nil, fmt.Errorf("read link directory: %w", err)
	}
	var live []string
	for _, e := range entries {
		alive, err := linkAlive(d.join(linksDir, e.Name()))
		if err != nil {
			return nil, err
		}
		if alive {
			live = append(live, e.Name())
		}
	}
	return live, nil
}

func linkAlive(path string) (bool, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false, fmt.Errorf("open pinned link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("examine pinned link %s: %w", path, err)
	}
	if tcx := info.TCX(); tcx != nil {
		return tcx.Ifindex != 0, nil
	}
	if ns := info.NetNs(); ns != nil {
		return ns.NetnsInode != 0, nil
	}
	return true, nil
}
