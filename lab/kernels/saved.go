package main

import (
	"cmp"
	"context"
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

// newMark is of now and of the commit that was built.
func newMark(commit string) Mark {
	return Mark{Date: time.Now().UTC().Format("2006-01-02 15:04"), Commit: commit}
}

// commitOf names the commit of the tree at dir.
func commitOf(ctx context.Context, dir string) string {
	cmd := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
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
	if o.tests != "" {
		return nil // some tests of a suite are not its results
	}
	before, err := o.earlier(k.Name)
	if err != nil {
		return err
	}
	all := *k
	if before != nil && before.Release == k.Release {
		all.complete(before)
	}
	text, err := json.MarshalIndent(all, "", "  ")
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
			if i := slices.IndexFunc(from, func(p Package) bool { return p.Name == s.title() }); i >= 0 {
				all = append(all, from[i])
				break
			}
		}
	}
	k.Packages = all
	k.How = cmp.Or(k.How, before.How)
	if len(k.Loads) == 0 {
		k.Loads, k.Measured = before.Loads, before.Measured
	}
}
