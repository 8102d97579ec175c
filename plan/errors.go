package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ManifestError is one refusal of a manifest: where it is, what is wrong, and
// what to write instead.
type ManifestError struct {
	File    string // as given to ParseManifest
	Line    int    // 1-based; 0 where the refusal is about the file as a whole
	Field   string // dotted path, "egress.routes[2].host"; "" for the file
	Problem string // what is wrong
	Remedy  string // what to write or do instead
}

// Error returns "file:line: field: problem: remedy".
func (e *ManifestError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Problem)
	if e.Remedy != "" {
		b.WriteString(": " + e.Remedy)
	}
	return b.String()
}

// maxErrors bounds how many refusals of one file are reported together.
const maxErrors = 20

// refusals gathers the refusals of one file.
type refusals struct {
	file string
	list []*ManifestError
}

func (r *refusals) add(line int, field, problem, remedy string) {
	if len(r.list) < maxErrors {
		r.list = append(r.list, &ManifestError{File: r.file, Line: line, Field: field, Problem: problem, Remedy: remedy})
	}
}

// err returns nil, the only refusal, or all of them joined in line order.
func (r *refusals) err() error {
	if len(r.list) == 0 {
		return nil
	}
	slices.SortStableFunc(r.list, func(a, b *ManifestError) int { return cmp.Compare(a.Line, b.Line) })
	if len(r.list) == 1 {
		return r.list[0]
	}
	errs := make([]error, len(r.list))
	for i, e := range r.list {
		errs[i] = e
	}
	return errors.Join(errs...)
}
