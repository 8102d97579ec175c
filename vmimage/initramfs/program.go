package initramfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program returns the payload that lets a program of this machine run in the guest: the program, and the libraries and the
// loader that ldd(1) names, each at the path where the host has it. name is looked up in PATH unless it is a path. What the
// program opens by itself (plug-ins, data) is not among it. A statically linked program comes alone. env is added to the
// environment in which the libraries are looked for, LD_LIBRARY_PATH for instance.
func Program(ctx context.Context, name string, env ...string) ([]Payload, error) {
	found, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", name, err)
	}
	if found, err = filepath.Abs(found); err != nil {
		return nil, fmt.Errorf("pack %s: %w", name, err)
	}
	all := []Payload{{Host: found, At: found}}
	cmd := exec.CommandContext(ctx, "ldd", found)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "not a dynamic executable") {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pack %s: list its libraries: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("pack %s: %s", name, strings.TrimSpace(line))
		}
		for _, word := range strings.Fields(line) {
			if filepath.IsAbs(word) {
				all = append(all, Payload{Host: word, At: filepath.Clean(word)})
			}
		}
	}
	return all, nil
}
