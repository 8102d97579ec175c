package pipelock

import (
	"errors"
	"io"
	"slices"

	"gatewayd/gateway/needle"
)

// LeakError reports a token in a stream. Nothing of the token from its fourth
// byte on was let go.
type LeakError struct{ Finding Finding }

// Error names place and rule.
func (e *LeakError) Error() string { return "scan " + e.Finding.Place + ": found " + e.Finding.Rule }

// Stream scans one stream of bytes that comes in pieces: a body, or one
// WebSocket message. It belongs to one goroutine.
type Stream struct {
	s           *Scanner
	host, place string
	found       *needle.Stream
	forms       *formStream // nil when no forms are looked for
	written     escapes
	err         error
}

// Stream returns a new scan of bytes on their way to host, a canonical name.
// place is what findings call them.
func (s *Scanner) Stream(host, place string) *Stream {
	return s.stream(host, place, backslashes)
}

func (s *Scanner) stream(host, place string, written escapes) *Stream {
	st := &Stream{s: s, host: host, place: place, found: needle.NewStream(nil), written: written}
	if s != nil {
		st.found = needle.NewStream(s.set)
		st.forms = newFormStream(st)
	}
	return st
}

// Warnings returns what was found and let go, eight findings at most.
func (st *Stream) Warnings() []Finding {
	if st.forms == nil {
		return nil
	}
	return st.forms.warned
}

// Push takes the next bytes and returns those that can be let go, which may be
// none; they are valid until the next call and must not be written to. Up to
// three bytes at the end are let go even where a token might begin, so that a
// peer who waits for a whole message never waits for its end. When a token is
// complete that may not go to the host, Push returns a *LeakError, then and
// ever after, and nothing more.
func (st *Stream) Push(p []byte) ([]byte, error) {
	if st.err != nil {
		return nil, st.err
	}
	var leak *LeakError
	var at [3]int
	w := st.found.Push(p, func(start, end, id int) bool {
		if st.s.leaks(id, st.host) {
			leak, at = &LeakError{}, [3]int{start, end, id}
		}
		return leak == nil
	})
	if leak != nil {
		leak.Finding = Finding{Rule: st.s.tokens[at[2]].name, Place: st.place, Excerpt: excerpt(w.Bytes, at[0], at[1])}
		st.err = leak
		return nil, leak
	}
	if st.forms == nil {
		return w.Bytes[w.From:w.To], nil
	}
	return st.form(st.forms.push(w.Bytes[w.From:w.To]))
}

// form keeps the error of the search for forms.
func (st *Stream) form(free []byte, leak *LeakError) ([]byte, error) {
	if leak != nil {
		st.err = leak
		return nil, leak
	}
	return free, nil
}

// Rest ends the stream and returns what was held back, which is clean, or the
// error that Push returned, or a *LeakError for what the end makes a token. The
// next Push begins a new one, unless there was an error. Warnings stay.
func (st *Stream) Rest() ([]byte, error) {
	if st.err != nil {
		return nil, st.err
	}
	rest := st.found.Rest()
	if st.forms == nil {
		return rest, nil
	}
	return st.form(st.forms.end(rest))
}

// BodyReader reads a body and scans it on the way. It belongs to one
// goroutine, except that Close may be called from another.
type BodyReader struct {
	r     io.Reader
	fill  func() (ready []byte, err error) // the next bytes that can be let go
	ready []byte
	err   error

	stream *Stream // that scans what the body says
}

// Warnings returns what was found so far and let go, eight findings at most.
func (b *BodyReader) Warnings() []Finding { return b.stream.Warnings() }

// readSize is how much is asked of a body at a time, in bytes.
const readSize = 16 << 10

// Body returns a reader of r's bytes on their way to host, a canonical name.
func (s *Scanner) Body(host string, r io.Reader) *BodyReader {
	return s.body(s.Stream(host, "body"), r)
}

func (s *Scanner) body(stream *Stream, r io.Reader) *BodyReader {
	buf := make([]byte, readSize)
	fill := func() ([]byte, error) {
		n, err := r.Read(buf)
		ready, leak := stream.Push(buf[:n])
		if leak != nil {
			return nil, leak
		}
		if errors.Is(err, io.EOF) {
			ready = slices.Clone(ready)
			rest, leak := stream.Rest()
			if leak != nil {
				return nil, leak
			}
			ready = append(ready, rest...)
		}
		return ready, err
	}
	return &BodyReader{r: r, fill: fill, stream: stream}
}

// Read returns bytes that are clean, as soon as there are any. Its errors are
// those of the body, a *LeakError, or for encoded bodies an *EncodingError;
// after one of the latter two whoever sends the body must not let it look
// complete. It blocks as the body does.
func (b *BodyReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(b.ready) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.ready, b.err = b.fill()
	}
	n := copy(p, b.ready)
	b.ready = b.ready[n:]
	return n, nil
}

// Close closes the body, if it can be closed.
func (b *BodyReader) Close() error {
	if c, ok := b.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
