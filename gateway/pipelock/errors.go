package pipelock

import (
	"fmt"
	"strings"
)

// EncodingKind says what is wrong with an encoded body.
type EncodingKind uint8

// The kinds of EncodingError.
const (
	// Unknown: the coding is none that can be undone, or there are several.
	Unknown EncodingKind = iota
	// Malformed: the body is not what its coding says, or goes on behind it.
	Malformed
	// Oversized: the body decodes to out of all proportion.
	Oversized
)

// EncodingError reports a body, a part of one or a message whose encoding keeps it from being scanned. Such a body must not
// be sent.
type EncodingError struct {
	// Encoding is the header's value, as it was given, or in words what is encoded.
	Encoding string
	Kind     EncodingKind
	// Err is the decoder's error, or nil.
	Err error
}

// Error says what is wrong and what would do.
func (e *EncodingError) Error() string {
	switch e.Kind {
	case Malformed:
		return fmt.Sprintf("decode body: it is no valid %.40s: %v", strings.ToLower(e.Encoding), e.Err)
	case Oversized:
		return fmt.Sprintf("decode body: it is %.40s that grows beyond all proportion", strings.ToLower(e.Encoding))
	default:
		return fmt.Sprintf("decode body: content encoding %.40q cannot be scanned; send it without, or as gzip, deflate, br or zstd alone", e.Encoding)
	}
}

// Unwrap returns the decoder's error.
func (e *EncodingError) Unwrap() error { return e.Err }
