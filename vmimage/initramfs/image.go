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
	"strings"

	"gatewayd/plan"
	"gatewayd/vmimage"
)

// Where the guest finds what the image holds, apart from its guest files.
const (
	// InitPath is the init, from the guest's root.
	InitPath = "gatewayd"
	// ModulesDir holds the modules, named so that sorting gives the order of loading.
	ModulesDir = "lib/gatewayd-modules"
)

// DefaultModules is what a bottle's guest needs: its network card, the port through which the host gives commands, and
// the two buses they may be on.
var DefaultModules = []string{"virtio_mmio", "virtio_pci", "virtio_net", "virtio_console"}

// Payload is a file or directory of the host that the guest gets as well.
type Payload struct {
	// Host is its path on the host. Symbolic links below it stay links; it may be one itself.
	Host string
	// At is its absolute path in the guest.
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
	entries := []Entry{init}
	for _, dir := range []string{"dev", "etc", "home", "lib", "proc", "root", "run", "sys", "tmp"} {
		entries = append(entries, Entry{Path: dir, Mode: fs.ModeDir | 0o755})
	}
	for i, m := range s.Modules {
		entries = append(entries, Entry{Path: fmt.Sprintf("%s/%03d-%s.ko", ModulesDir, i, m.Name), Mode: 0o644, Data: m.Data})
	}
	guest, err := s.guestFiles()
	if err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	entries = append(entries, guest...)
	for _, p := range s.Payload {
		more, err := p.entries()
		if err != nil {
			return nil, fmt.Errorf("make initramfs: payload %s: %w", p.Host, err)
		}
		entries = append(entries, more...)
	}
	return merge(entries)
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
	return append(entries,
		Entry{Path: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		Entry{Path: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\n")},
	), nil
}

// merge lets later entries replace earlier ones, so that a payload may bring its own passwd; but nothing replaces the
// init, whose word the host takes for how a command ended.
func merge(entries []Entry) ([]Entry, error) {
	at := map[string]int{}
	var out []Entry
	for _, e := range entries {
		i, there := at[e.Path]
		switch {
		case !there:
			at[e.Path] = len(out)
			out = append(out, e)
		case e.Path == InitPath:
			return nil, fmt.Errorf("make initramfs: a payload lies at /%s, where the init is", InitPath)
		case out[i].Mode.IsDir() != e.Mode.IsDir():
			return nil, fmt.Errorf("make initramfs: %s is both a directory and something else", e.Path)
		default:
			out[i] = e
		}
	}
	return out, nil
}

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
