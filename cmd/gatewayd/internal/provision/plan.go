package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"gatewayd/cmd/gatewayd/internal/manifests"
	"gatewayd/plan"
)

// Planned is a manifest and its plan.
type Planned struct {
	Manifest *plan.Manifest
	Plan     *plan.Plan
}

// FromText makes the plan of a manifest's text; file is for messages.
func FromText(file string, text []byte, host plan.Host) (Planned, error) {
	m, err := plan.ParseManifest(file, text)
	if err != nil {
		return Planned{}, err
	}
	p, err := plan.Provision(m, host)
	if err != nil {
		return Planned{Manifest: m}, err
	}
	return Planned{Manifest: m, Plan: p}, nil
}

// UnknownBottleError says that no manifest names the bottle.
type UnknownBottleError struct {
	Name, Dir string
	// Known are the bottles there are.
	Known []string
}

// Error lists the bottles there are.
func (e *UnknownBottleError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("no bottle %q: %s holds no manifest; write %s", e.Name, e.Dir, filepath.Join(e.Dir, e.Name+manifests.Suffix))
	}
	return fmt.Sprintf("no bottle %q in %s; there is %s", e.Name, e.Dir, strings.Join(e.Known, ", "))
}

// Find makes the plan of the bottle or manifest file that arg names: a path (it has a '/' or ends in .yaml or .yml), or
// the name of a bottle whose manifest is in dir.
func Find(arg, dir string, host plan.Host) (Planned, error) {
	if strings.ContainsRune(arg, '/') || strings.HasSuffix(arg, ".yaml") || strings.HasSuffix(arg, ".yml") {
		text, err := manifests.Read(arg)
		if err != nil {
			return Planned{}, err
		}
		return FromText(arg, text, host)
	}
	files, err := manifests.Scan(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Planned{}, err
	}
	unknown := &UnknownBottleError{Name: arg, Dir: dir}
	var found []manifests.File
	var broken error
	for _, f := range files {
		name, err := nameOf(f)
		switch {
		case name == arg:
			found = append(found, f)
		case name != "":
			unknown.Known = append(unknown.Known, name)
		case filepath.Base(f.Path) == arg+manifests.Suffix:
			broken = err // it is meant, and says nothing that can be read
		}
	}
	switch {
	case len(found) == 1:
		return FromText(found[0].Path, found[0].Text, host)
	case len(found) > 1:
		return Planned{}, fmt.Errorf("bottle %s is named by %s and %s; give one of them another name", arg, found[0].Path, found[1].Path)
	case broken != nil:
		return Planned{}, broken
	}
	slices.Sort(unknown.Known)
	unknown.Known = slices.Compact(unknown.Known)
	return Planned{}, unknown
}

// nameOf returns the bottle that a manifest names, "" if it cannot be read.
func nameOf(f manifests.File) (string, error) {
	if f.Err != nil {
		return "", f.Err
	}
	m, err := plan.ParseManifest(f.Path, f.Text)
	if err != nil {
		return "", err
	}
	return m.Bottle, nil
}
