package manifests

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// State says what is in force for a manifest.
type State string

// The states.
const (
	// Running: the manifest as it stands is in force.
	Running State = "running"
	// Stale: the manifest as it stands is refused, and what it said before is still in force.
	Stale State = "stale"
	// Shut: nothing is in force; the bottle reaches nothing.
	Shut State = "shut"
)

// ErrBlank says that a manifest is empty, which shuts its bottle.
var ErrBlank = errors.New("is empty, so that its bottle is shut; delete the file, or write a manifest")

// Entry is one manifest and what is in force for it. T is what a manifest is made into.
type Entry[T any] struct {
	// File is the manifest's path.
	File string
	// Bottle is the bottle's name; empty as long as no manifest in this file could be read.
	Bottle string
	// Value is in force unless State is Shut.
	Value T
	// State is Running, Stale or Shut.
	State State
	// Err says why the manifest as it stands is not in force; nil when Running.
	Err error
}

// Book holds the entries of one directory. It is not safe for concurrent use.
type Book[T any] struct {
	entries map[string]*Entry[T]
}

// Loader makes a manifest into the bottle's name and what is to be in force for it. On an error the name may be empty.
type Loader[T any] func(f File) (bottle string, value T, err error)

// Update brings the book in line with the files found, which are all there are. load is called for each that was read and
// is not blank. It never takes a value from a file that load refused.
func (b *Book[T]) Update(files []File, load Loader[T]) {
	old := b.entries
	b.entries = make(map[string]*Entry[T], len(files))
	for _, f := range files {
		b.entries[f.Path] = next(old[f.Path], f, load)
	}
	b.refuseDuplicates(old)
}

// next gives the entry of f, given that of before, which may be nil.
func next[T any](old *Entry[T], f File, load Loader[T]) *Entry[T] {
	if f.Blank() {
		e := &Entry[T]{File: f.Path, State: Shut, Err: fmt.Errorf("%s %w", f.Path, ErrBlank)}
		if old != nil {
			e.Bottle = old.Bottle
		}
		return e
	}
	var bottle string
	var value T
	err := f.Err
	if err == nil {
		bottle, value, err = load(f)
	}
	if err == nil {
		return &Entry[T]{File: f.Path, Bottle: bottle, Value: value, State: Running}
	}
	return keep(old, f.Path, bottle, err)
}

// keep gives the entry of a refused manifest: what was in force stays in force, and nothing else comes into force.
func keep[T any](old *Entry[T], file, bottle string, err error) *Entry[T] {
	if old == nil || old.State == Shut {
		return &Entry[T]{File: file, Bottle: bottle, State: Shut, Err: err}
	}
	e := *old
	e.State, e.Err = Stale, err
	return &e
}

// refuseDuplicates leaves at most one entry in force for each bottle: the one that was before. When two files begin to
// name one bottle at the same time nobody can say which is meant, and both are shut.
func (b *Book[T]) refuseDuplicates(old map[string]*Entry[T]) {
	holder := map[string]string{} // bottle → file that had it in force before and still has
	byBottle := map[string][]*Entry[T]{}
	for _, e := range b.Entries() {
		if e.State == Shut {
			continue
		}
		byBottle[e.Bottle] = append(byBottle[e.Bottle], b.entries[e.File])
		if o := old[e.File]; o != nil && o.State != Shut && o.Bottle == e.Bottle {
			holder[e.Bottle] = e.File
		}
	}
	again := false
	for bottle, list := range byBottle {
		if len(list) < 2 {
			continue
		}
		for _, e := range list {
			if e.File == holder[bottle] {
				continue
			}
			other := list[0].File
			if other == e.File {
				other = list[1].File
			}
			err := fmt.Errorf("%s: bottle: %s is also the bottle of %s; give one of them another name", e.File, bottle, other)
			b.entries[e.File] = keep(old[e.File], e.File, bottle, err)
			again = again || b.entries[e.File].State == Stale
		}
	}
	if again {
		b.shutAmbiguous()
	}
}

// shutAmbiguous covers files that exchanged their bottles' names in one step, so that what was in force of one is what
// another now says: whatever is still doubly named is shut.
func (b *Book[T]) shutAmbiguous() {
	seen := map[string][]*Entry[T]{}
	for _, e := range b.entries {
		if e.State != Shut {
			seen[e.Bottle] = append(seen[e.Bottle], e)
		}
	}
	for bottle, list := range seen {
		if len(list) < 2 {
			continue
		}
		for _, e := range list {
			b.entries[e.File] = &Entry[T]{File: e.File, Bottle: bottle, State: Shut,
				Err: fmt.Errorf("%s: bottle: %s is named by more than one file; give each its own name", e.File, bottle)}
		}
	}
}

// Entries lists the entries by file name. They are copies.
func (b *Book[T]) Entries() []Entry[T] {
	out := make([]Entry[T], 0, len(b.entries))
	for _, e := range b.entries {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(x, y Entry[T]) int { return cmp.Compare(x.File, y.File) })
	return out
}

// Unsettled tells whether some manifest is not in force as it stands, so that looking again later is worth while even if
// no file changes: what it lacks may be elsewhere, such as a host credential.
func (b *Book[T]) Unsettled() bool {
	for _, e := range b.entries {
		if e.Err != nil {
			return true
		}
	}
	return false
}
