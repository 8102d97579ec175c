package inject

import (
	"io"
	"net/http"
)

// Masker replaces secrets by asterisks of the same length. It is immutable
// and may be used by any number of goroutines.
type Masker struct{}

// NewMasker returns a masker for the secrets, in every encoding that it knows.
func NewMasker(secrets ...Secret) *Masker { return &Masker{} }

// Header masks the values of a header block in place.
func (m *Masker) Header(h http.Header) {}

// Reader returns a reader of r's bytes, masked. It holds back only what could
// still be part of a secret.
func (m *Masker) Reader(r io.Reader) io.Reader { return failing{} }

// Stream returns a new masking stream.
func (m *Masker) Stream() *Stream { return &Stream{} }

// Stream masks one stream of bytes that comes in pieces.
type Stream struct{}

// Push takes the next bytes and returns those that can be let go, valid until
// the next call.
func (s *Stream) Push(p []byte) []byte { return nil }

// Flush returns what was held back, at the end of the stream.
func (s *Stream) Flush() []byte { return nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }
