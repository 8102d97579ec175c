package pipelock

import (
	"errors"
	"fmt"
	"io"

	"gatewayd/gateway/formats"
)

// Inspect reads r to its end and calls found for everything that looks like a token in it, whatever is to be done about
// each. offset is where it begins, in bytes of r. Known tokens are not looked for. It blocks as r does.
func (s *Scanner) Inspect(place string, r io.Reader, found func(f Finding, offset int64)) error {
	if s == nil {
		return nil
	}
	v := view{escapes: backslashes}
	st := s.formats.NewStream(s.policy)
	take := func(f formats.Finding) {
		if g, ok := nothing.judge("", place, f); ok {
			found(g, v.origin(f.Offset))
		}
	}
	buf := make([]byte, readSize)
	for {
		n, err := r.Read(buf)
		v.origin(st.Push(v.decode(buf[:n]), take)) // forgets what lies before
		if errors.Is(err, io.EOF) {
			st.End(take)
			return nil
		}
		if err != nil {
			return fmt.Errorf("scan %s: %w", place, err)
		}
	}
}
