package oci

import (
	"archive/tar"
	"context"
	"io"
)

// contents reads the wanted entries of a layer up to the last.
func (l *layer) contents(ctx context.Context, number, last int, want map[location]bool, found map[location][]byte) error {
	in, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer in.Close()
	r := tar.NewReader(in)
	for entry := 0; entry <= last; entry++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := r.Next()
		if err != nil {
			return err
		}
		at := location{number, entry}
		if !want[at] {
			continue
		}
		if h.Size > maxContent {
			return &BoundError{What: "bytes of " + h.Name, Most: maxContent}
		}
		if found[at], err = io.ReadAll(io.LimitReader(r, maxContent)); err != nil {
			return err
		}
	}
	return nil
}
