package initramfs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kernel is a kernel with its modules, installed or unpacked from a package.
type Kernel struct {
	// Release is the version as uname -r prints it.
	Release string
	// Image is the path of the compressed kernel (vmlinuz).
	Image string
	// Modules is the directory of its modules; "" if it has none.
	Modules string
}

// NoKernelError says that no kernel was found.
type NoKernelError struct {
	Dirs []string // where it was looked for
}

// Error says how to get one.
func (e *NoKernelError) Error() string {
	return fmt.Sprintf("no kernel for the VM in %s: install Debian's linux-image-cloud-amd64 (another distribution's package will do), "+
		"or unpack it anywhere without installing it (apt-get download, dpkg -x) and name that directory with --kernel", strings.Join(e.Dirs, ", "))
}

// FindKernel returns the newest kernel below any of the roots, where a root is laid out as a package is: boot/vmlinuz-*
// and lib/modules/* or usr/lib/modules/*. "/" is the host. A kernel made for virtual machines ("cloud" in its release)
// is preferred. The error is a *NoKernelError if there is none.
func FindKernel(roots ...string) (Kernel, error) {
	var found []Kernel
	for _, root := range roots {
		images, err := filepath.Glob(filepath.Join(escapeGlob(root), "boot", "vmlinuz-*"))
		if err != nil {
			return Kernel{}, fmt.Errorf("find kernel below %s: %w", root, err)
		}
		for _, image := range images {
			if f, err := os.Open(image); err != nil { // some distributions let only root read it
				continue
			} else if err := f.Close(); err != nil {
				return Kernel{}, err
			}
			k := Kernel{Release: strings.TrimPrefix(filepath.Base(image), "vmlinuz-"), Image: image}
			for _, lib := range []string{"lib/modules", "usr/lib/modules"} {
				dir := filepath.Join(root, lib, k.Release)
				if _, err := os.Stat(filepath.Join(dir, "kernel")); err == nil {
					k.Modules = dir
					break
				}
			}
			if k.Modules != "" {
				found = append(found, k)
			}
		}
	}
	if len(found) == 0 {
		return Kernel{}, &NoKernelError{Dirs: roots}
	}
	return slices.MaxFunc(found, compareKernels), nil
}

func compareKernels(a, b Kernel) int {
	cloud := func(k Kernel) int { return strings.Count(k.Release, "cloud") }
	return cmp.Or(cmp.Compare(cloud(a), cloud(b)), compareVersions(a.Release, b.Release))
}

var digits = regexp.MustCompile(`[0-9]+`)

// compareVersions compares the numbers of two releases, left to right.
func compareVersions(a, b string) int {
	x, y := digits.FindAllString(a, -1), digits.FindAllString(b, -1)
	return cmp.Or(slices.CompareFunc(x, y, func(a, b string) int {
		m, errA := strconv.Atoi(a)
		n, errB := strconv.Atoi(b)
		if errors.Join(errA, errB) != nil { // too long for a number
			return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
		}
		return cmp.Compare(m, n)
	}), strings.Compare(a, b))
}

// escapeGlob keeps filepath.Glob from reading patterns in a directory's name.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
