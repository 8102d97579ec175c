// Package variant builds a gatewayd that differs from the source in its BPF programs, for tests of upgrades.
package variant

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// call is where gateway/redirect takes its programs from.
const call = "spec, err := loadGateway()"

const other = `package redirect

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func loadOther() (*ebpf.CollectionSpec, error) {
	spec, err := loadGateway()
	if err != nil {
		return nil, err
	}
	for _, p := range spec.Programs {
		if p.Instructions[0].Reference() != "" {
			continue // what refers to a map keeps that with what it begins
		}
		more := asm.Mov.Imm(asm.R0, 0)
		more.Metadata, p.Instructions[0].Metadata = p.Instructions[0].Metadata, asm.Metadata{}
		p.Instructions = append(asm.Instructions{more}, p.Instructions...)
	}
	return spec, nil
}
`

// Build builds at path a gatewayd without libraries whose programs have an instruction more, so that their tags are others.
// It needs Go and a working directory in the module. What it makes besides is in dir, which is the caller's to remove.
func Build(ctx context.Context, dir, path string) error {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "gatewayd/gateway/redirect").Output()
	if err != nil {
		return fmt.Errorf("find gateway/redirect: %w", err)
	}
	source := strings.TrimSpace(string(out))
	objects, err := os.ReadFile(filepath.Join(source, "objects.go"))
	if err != nil {
		return fmt.Errorf("read objects.go: %w", err)
	}
	if !bytes.Contains(objects, []byte(call)) {
		return fmt.Errorf("%q is not in objects.go", call)
	}
	files := map[string][]byte{
		"objects.go": bytes.ReplaceAll(objects, []byte(call), []byte("spec, err := loadOther()")),
		"other.go":   []byte(other),
	}
	replace := map[string]string{}
	for name, text := range files {
		replace[filepath.Join(source, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return fmt.Errorf("write overlay: %w", err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return fmt.Errorf("write overlay: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-overlay", file, "-o", path, "gatewayd/cmd/gatewayd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build another gatewayd: %w\n%s", err, out)
	}
	return nil
}
