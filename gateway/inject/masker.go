package inject

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"

	"gatewayd/gateway/needle"
)

// filler replaces each byte of a secret, so that lengths announced before the
// body (Content-Length, chunk and frame sizes) stay true.
const filler = '*'

// Masker replaces secrets by asterisks of the same length, in every encoding
// that needle.Forms lists. It is immutable and may be used by any number of
// goroutines. A nil Masker masks nothing.
//
// It undoes no compression: a response must be decoded before it is masked,
// or asked for without encoding. A secret that a server splits over two
// messages, such as two ranges, is not seen.
type Masker struct{ set *needle.Set }

// NewMasker returns a masker for the secrets. Secrets shorter than
// needle.MinLength are not masked, since they would turn up in ordinary text;
// a Source never returns one.
func NewMasker(secrets ...Secret) *Masker {
	values := make([]string, len(secrets))
	for i, s := range secrets {
		values[i] = s.Reveal()
	}
	return &Masker{set: needle.NewSet(values)}
}

// String masks one string that is whole.
func (m *Masker) String(s string) string {
	if m.Clean([]byte(s)) {
		return s
	}
	masked := []byte(s)
	m.set.Scan([]byte(s), func(start, end, _ int) bool {
		fill(masked[start:end])
		return true
	})
	return string(masked)
}

// Header masks the values of a header or trailer block. Values are replaced,
// not written over: slices that the caller shares with others stay as they
// were.
func (m *Masker) Header(h http.Header) {
	for name, values := range h {
		m.Field(h, name, values)
	}
}

// Field is Header for one field, whose values h has.
func (m *Masker) Field(h http.Header, name string, values []string) {
	for i, v := range values {
		if m.Clean([]byte(v)) {
			continue
		}
		values = slices.Clone(values)
		values[i] = m.String(v)
		h[name] = values
	}
}

// Clean tells whether there is nothing to mask in b, which is whole.
func (m *Masker) Clean(b []byte) bool { return m == nil || !m.set.Has(b) }

// Stream returns a new masking stream for one body or one WebSocket message.
func (m *Masker) Stream() *Stream {
	if m == nil {
		return &Stream{found: needle.NewStream(nil)}
	}
	return &Stream{found: needle.NewStream(m.set)}
}

// Stream masks bytes that come in pieces. It holds back what may be the
// beginning of a secret, from its fourth byte on: up to three bytes at the end
// of a piece are let go, so that a peer who waits for a whole message never
// waits for its end; if they do turn out to begin a secret, the rest of it is
// masked. A Stream belongs to one goroutine.
type Stream struct {
	found *needle.Stream
	out   []byte
	spans []span
	// covered is how many bytes at the front of the next window belong to a
	// secret that was found already, and released how many were let go.
	covered, released int
}

// span is where a secret is in a window.
type span struct{ start, end int }

// Push takes the next bytes and returns those that can be let go, masked,
// which may be none. They are valid until the next call, and as long as p is:
// where there is nothing to mask they are p's own.
func (s *Stream) Push(p []byte) []byte {
	s.spans = s.spans[:0]
	if s.covered > 0 {
		s.spans = append(s.spans, span{0, s.covered})
	}
	w := s.found.PushOver(p, func(start, end, _ int) bool {
		s.spans = append(s.spans, span{start, end})
		return true
	})
	s.covered, s.released = 0, w.To-w.Next
	if len(s.spans) == 0 {
		return w.Bytes[w.From:w.To]
	}
	s.out = append(s.out[:0], w.Bytes[w.From:w.To]...)
	for _, x := range s.spans {
		if from, to := max(x.start, w.From), min(x.end, w.To); from < to {
			fill(s.out[from-w.From : to-w.From])
		}
		s.covered = max(s.covered, x.end-w.Next)
	}
	return s.out
}

// End takes the last bytes and ends the stream: it is Push and Flush in one.
func (s *Stream) End(p []byte) []byte {
	out := s.Push(p)
	rest := s.found.Rest()
	if len(rest) > 0 {
		fill(rest[:min(len(rest), max(0, s.covered-s.released))])
		s.out = append(append(s.out[:0], out...), rest...)
		out = s.out
	}
	s.covered, s.released = 0, 0
	return out
}

// Reset makes the stream one of m, as if it were new, and keeps its memory.
func (s *Stream) Reset(m *Masker) {
	if m == nil {
		s.found.Reset(nil)
	} else {
		s.found.Reset(m.set)
	}
	s.covered, s.released = 0, 0
}

// Flush ends the stream and returns what was held back. The next Push begins
// a new one.
func (s *Stream) Flush() []byte {
	s.out = append(s.out[:0], s.found.Rest()...)
	// What is held begins a secret that will not be completed; but it may also
	// be the end of one that was.
	fill(s.out[:min(len(s.out), max(0, s.covered-s.released))])
	s.covered, s.released = 0, 0
	return s.out
}

func fill(b []byte) {
	for i := range b {
		b[i] = filler
	}
}

// Reader returns a reader of r's bytes, masked. A Read returns as soon as
// there is anything to let go, so that event streams stay live; it blocks as r
// does. After an error of r other than io.EOF, what was held back is lost.
func (m *Masker) Reader(r io.Reader) io.Reader {
	lent := readerMemories.Get().(*readerMemory)
	lent.stream.Reset(m)
	return &reader{r: r, lent: lent}
}

type reader struct {
	r     io.Reader
	lent  *readerMemory // nil once a Read has returned err
	ready []byte        // in it
	err   error
}

// readSize is how much is asked of the source at a time, in bytes.
const readSize = 16 << 10

// readerMemory is the memory of a reader, which is another's after its end: a
// message of a few bytes would cost as much as a long one otherwise.
type readerMemory struct {
	stream *Stream
	buf    [readSize]byte
}

var readerMemories = sync.Pool{New: func() any { return &readerMemory{stream: new(Masker).Stream()} }}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.ready) == 0 {
		if r.err != nil {
			r.giveBack()
			return 0, r.err
		}
		var n int
		n, r.err = r.r.Read(r.lent.buf[:])
		if errors.Is(r.err, io.EOF) {
			r.ready = r.lent.stream.End(r.lent.buf[:n])
		} else {
			r.ready = r.lent.stream.Push(r.lent.buf[:n])
		}
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// giveBack gives the memory back, nothing of which is needed any more.
func (r *reader) giveBack() {
	if r.lent != nil {
		r.lent.stream.Reset(nil)
		readerMemories.Put(r.lent)
		r.lent, r.ready = nil, nil
	}
}
