// Package initramfs makes the archive from which a VM's kernel boots a bottle: the guest files of package vmimage, an
// init, the kernel modules that reach the network, and what else the caller wants the guest to have.
package initramfs

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gatewayd/plan"
	"gatewayd/vmimage"
)

// Where the guest finds what the image holds, apart from its guest files.
const (
	// InitPath is the init, from the guest's root.
	InitPath = "gatewayd"
	// ModulesDir holds the modules, named so that sorting gives the order of loading.
	ModulesDir = "gatewayd-modules"
)

// DefaultModules is what a bottle's guest needs: its network card, the port through which the host gives commands, and
// the two buses they may be on.
var DefaultModules = []string{"virtio_mmio", "virtio_pci", "virtio_net", "virtio_console"}

// Payload is a file or directory of the host that the guest gets as well.
type Payload struct {
	// Host is its path on the host. Symbolic links below it stay links; it may be one itself.
	Host string
	// At is its absolute path in the guest. A directory may be a whole system's and lie at "/": what the image holds of its
	// own goes where that system's links lead. A single file replaces whatever is at its place.
	At string
}

// Spec says what an image holds.
type Spec struct {
	// Init is the host's path of the program that the kernel starts; it must be statically linked.
	Init string
	// Modules are put where the init finds them, in this order.
	Modules []Module
	// Files are the bottle's guest files. A VM that is no bottle has none.
	Files []vmimage.File
	// At is where the guest finds Files; "" is vmimage.DefaultAt.
	At string
	// Payload is what else there is.
	Payload []Payload
}

// DynamicError says that a program needs libraries which the guest does not have.
type DynamicError struct{ Path string }

// Error says how to make one that does not.
func (e *DynamicError) Error() string {
	return fmt.Sprintf("%s is linked dynamically, and the guest has no libraries: build it with CGO_ENABLED=0", e.Path)
}

// Entries returns what the archive of the image holds. Files of the payload are opened when it is written.
func (s Spec) Entries() ([]Entry, error) {
	if err := checkStatic(s.Init); err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	init, err := hostFile(s.Init, InitPath)
	if err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	init.Mode = 0o755
	trees, files, err := s.payload()
	if err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	own, err := s.guestFiles()
	if err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	for i, m := range s.Modules {
		own = append(own, Entry{Path: fmt.Sprintf("%s/%03d-%s.ko", ModulesDir, i, m.Name), Mode: 0o644, Data: m.Data})
	}
	l := newLayout()
	err = errors.Join(l.addAll(trees), l.addMissing(defaults()), l.addAll(own), l.addAll(files), l.addInit(init))
	if err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	return l.entries, nil
}

// defaults are there unless a payload has them.
func defaults() []Entry {
	var entries []Entry
	for _, dir := range append([]string{"etc", "home", "root"}, mounted...) {
		entries = append(entries, Entry{Path: dir, Mode: fs.ModeDir | 0o755})
	}
	return append(entries,
		Entry{Path: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		Entry{Path: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\n")},
	)
}

// mounted are the directories over which the init mounts: what a payload has there would only take memory.
var mounted = []string{"dev", "proc", "run", "sys", "tmp"}

// payload returns what whole directories hold, and single files.
func (s Spec) payload() (trees, files []Entry, err error) {
	for _, p := range s.Payload {
		entries, err := p.entries()
		if err != nil {
			return nil, nil, fmt.Errorf("payload %s: %w", p.Host, err)
		}
		if len(entries) == 1 && "/"+entries[0].Path == p.At && !entries[0].Mode.IsDir() {
			files = append(files, entries...)
		} else {
			trees = append(trees, entries...)
		}
	}
	return trees, files, nil
}

// guestFiles places the bottle's files, and its bundle of authorities where the common distributions have theirs.
func (s Spec) guestFiles() ([]Entry, error) {
	at := strings.TrimPrefix(path.Clean(cmp.Or(s.At, vmimage.DefaultAt)), "/")
	var entries []Entry
	var bundle []byte
	for _, f := range s.Files {
		entries = append(entries, Entry{Path: path.Join(at, f.Path), Mode: f.Mode.Perm(), Data: f.Data})
		if f.Path == plan.BundleFile {
			bundle = f.Data
		}
	}
	if bundle == nil && len(s.Files) > 0 {
		return nil, errors.New("the guest files hold no " + plan.BundleFile)
	}
	if bundle != nil {
		for _, name := range []string{"etc/ssl/certs/ca-certificates.crt", "etc/ssl/cert.pem", "etc/pki/tls/certs/ca-bundle.crt"} {
			entries = append(entries, Entry{Path: name, Mode: 0o644, Data: bundle})
		}
	}
	return entries, nil
}

// entries lists what the payload brings. A whole system may be one: what lies where the init mounts is left out, devices
// among it.
func (p Payload) entries() ([]Entry, error) {
	if !path.IsAbs(p.At) || path.Clean(p.At) != p.At {
		return nil, fmt.Errorf("%q: write a clean absolute path in the guest", p.At)
	}
	root, err := filepath.EvalSymlinks(p.Host)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		to := strings.TrimPrefix(path.Join(p.At, filepath.ToSlash(rel)), "/")
		if to == "" {
			return nil // the guest's root
		}
		if slices.Contains(mounted, path.Dir(to)) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		e, err := hostEntry(name, to, d)
		if err != nil {
			return err
		}
		if entries = append(entries, e); len(entries) > MaxEntries {
			return &BoundError{What: "entries of the archive", Most: MaxEntries}
		}
		return nil
	})
	return entries, err
}

func hostEntry(name, to string, d fs.DirEntry) (Entry, error) {
	switch d.Type() {
	case 0:
		return hostFile(name, to)
	case fs.ModeDir:
		return Entry{Path: to, Mode: fs.ModeDir | 0o755}, nil
	case fs.ModeSymlink:
		target, err := os.Readlink(name)
		return Entry{Path: to, Mode: fs.ModeSymlink, Data: []byte(target)}, err
	}
	return Entry{}, fmt.Errorf("%s is neither file, directory nor symbolic link", name)
}

func hostFile(name, to string) (Entry, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Path: to, Mode: info.Mode().Perm(), Size: info.Size(),
		Open: func() (io.ReadCloser, error) { return os.Open(name) }}, nil
}

// checkStatic refuses a program that names an interpreter, which is what loads libraries (elf(5)).
func checkStatic(name string) error {
	f, err := elf.Open(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return &DynamicError{Path: name}
		}
	}
	return nil
}

// WriteFile writes the archive to a file that only its owner may read, since a plan may lend credentials to the guest.
func (s Spec) WriteFile(name string) (err error) {
	entries, err := s.Entries()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	return Write(f, entries)
}

// guestMiB is what a guest needs beside its files: the kernel, and programs that run.
const guestMiB = 160

// MemoryMiB returns how much memory, in MiB, a guest needs whose archive has so many bytes: it holds the archive and what is
// unpacked from it at once. A kernel with less boots with some of the files, or not at all.
func MemoryMiB(archive int64) int {
	return guestMiB + int((2*archive+1<<20-1)>>20)
}
