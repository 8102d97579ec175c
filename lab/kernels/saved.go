package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Mark says when, and of which commit, something was found.
type Mark struct{ Date, Commit string }

func (m Mark) String() string { return m.Date + ", " + m.Commit }

// newMark is of now and of the tree at dir.
func newMark(dir string) Mark {
	m := Mark{Date: time.Now().UTC().Format("2006-01-02 15:04"), Commit: "unknown"}
	cmd := exec.Command("git", "describe", "--always", "--dirty")
	cmd.Dir = dir
	if out, err := cmd.Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
	}
	return m
}

// saved is where the results of a kernel lie between runs, so that a run of some of them completes the document.
func (o *options) saved(name string) string { return filepath.Join(o.cache, "results-"+name+".json") }

// earlier returns what was found before on a kernel, nil if nothing was.
func (o *options) earlier(name string) (*Kernel, error) {
	text, err := os.ReadFile(o.saved(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read earlier results: %w", err)
	}
	var k Kernel
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("read earlier results in %s (remove it): %w", o.saved(name), err)
	}
	return &k, nil
}

// save keeps what was found on a kernel, and of earlier runs on the same release what was not tried this time.
func (o *options) save(k *Kernel) error {
	before, err := o.earlier(k.Name)
	if err != nil {
		return err
	}
	if before != nil && before.Release == k.Release {
		k.complete(before)
	}
	text, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	if err := os.WriteFile(o.saved(k.Name), text, 0o644); err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	return nil
}

// complete adds what only the other one has.
func (k *Kernel) complete(before *Kernel) {
	var all []Package
	for _, s := range suites {
		for _, from := range [][]Package{k.Packages, before.Packages} {
			if i := slices.IndexFunc(from, func(p Package) bool { return p.Name == s.pkg }); i >= 0 {
				all = append(all, from[i])
				break
			}
		}
	}
	k.Packages = all
	if len(k.Loads) == 0 {
		k.Loads, k.Measured = before.Loads, before.Measured
	}
}
