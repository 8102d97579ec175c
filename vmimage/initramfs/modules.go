package initramfs

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxModule bounds one module, uncompressed.
const maxModule = 64 << 20

// Module is one kernel module, uncompressed and ready to be loaded.
type Module struct {
	Name string // with _ where a file name may have -
	Data []byte
}

// MissingModuleError says that a kernel lacks a module that it should have.
type MissingModuleError struct {
	Name    string
	Release string
}

// Error names both.
func (e *MissingModuleError) Error() string {
	return fmt.Sprintf("kernel %s has no module %s, loadable or built in", e.Release, e.Name)
}

// LoadModules returns the named modules of the kernel and all that they depend on, in the order in which they can be
// loaded. Those that are built in are left out. Dependencies are read from the modules themselves, since a package that
// was unpacked and never installed has no modules.dep. Compressed modules need the program xz or zstd on the host.
func LoadModules(ctx context.Context, k Kernel, names ...string) ([]Module, error) {
	s := moduleSet{ctx: ctx, kernel: k, files: map[string]string{}, builtin: map[string]bool{}, state: map[string]loadState{}}
	if err := s.index(); err != nil {
		return nil, fmt.Errorf("list modules of %s: %w", k.Release, err)
	}
	for _, name := range names {
		if err := s.add(moduleName(name)); err != nil {
			return nil, fmt.Errorf("load module %s of %s: %w", name, k.Release, err)
		}
	}
	return s.loaded, nil
}

type loadState int

const (
	unseen loadState = iota
	underWay
	done
)

type moduleSet struct {
	ctx     context.Context
	kernel  Kernel
	files   map[string]string // name → path
	builtin map[string]bool
	state   map[string]loadState
	loaded  []Module
}

func (s *moduleSet) index() error {
	err := filepath.WalkDir(filepath.Join(s.kernel.Modules, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			s.files[moduleName(d.Name())] = path
		}
		return err
	})
	if err != nil {
		return err
	}
	builtin, err := os.ReadFile(filepath.Join(s.kernel.Modules, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(builtin)) {
		s.builtin[moduleName(filepath.Base(strings.TrimSpace(line)))] = true
	}
	return nil
}

func (s *moduleSet) add(name string) error {
	switch {
	case s.state[name] == underWay:
		return fmt.Errorf("%s depends on itself", name)
	case s.state[name] == done, s.builtin[name]:
		return nil
	case s.files[name] == "":
		return &MissingModuleError{Name: name, Release: s.kernel.Release}
	}
	s.state[name] = underWay
	data, err := readModule(s.ctx, s.files[name])
	if err != nil {
		return err
	}
	depends, err := dependencies(data)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.files[name], err)
	}
	for _, d := range depends {
		if err := s.add(d); err != nil {
			return err
		}
	}
	s.state[name] = done
	s.loaded = append(s.loaded, Module{Name: name, Data: data})
	return nil
}

// moduleName is a file's name as the kernel names the module.
func moduleName(file string) string {
	name, _, _ := strings.Cut(file, ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readModule returns a module's bytes, decompressed by the program that made them.
func readModule(ctx context.Context, path string) ([]byte, error) {
	program, compressed := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(path)]
	if !compressed {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readBounded(f)
	}
	if _, err := exec.LookPath(program); err != nil {
		return nil, fmt.Errorf("decompress %s: the program %s is missing", path, program)
	}
	cmd := exec.CommandContext(ctx, program, "-dc", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("decompress %s: %w", path, err)
	}
	data, err := readBounded(out)
	if err != nil {
		_ = cmd.Process.Kill() // Wait says how it ended
	}
	if waited := cmd.Wait(); err == nil && waited != nil {
		err = fmt.Errorf("decompress %s: %w", path, waited)
	}
	return data, err
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = &BoundError{What: "bytes of a module", Most: maxModule}
	}
	return data, err
}

// dependencies reads the line depends=a,b of a module's .modinfo section (scripts/mod/modpost.c in the kernel).
func dependencies(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it has no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var names []string
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok {
			for _, name := range strings.FieldsFunc(string(list), func(r rune) bool { return r == ',' }) {
				names = append(names, moduleName(name))
			}
		}
	}
	return names, nil
}
