package http2

import (
	"errors"
	"fmt"
)

// code is an error code (RFC 9113 section 7).
type code uint32

const (
	codeNo              code = 0x0
	codeProtocol        code = 0x1
	codeInternal        code = 0x2
	codeFlowControl     code = 0x3
	codeStreamClosed    code = 0x5
	codeFrameSize       code = 0x6
	codeRefusedStream   code = 0x7
	codeCancel          code = 0x8
	codeCompression     code = 0x9
	codeEnhanceYourCalm code = 0xb
)

// connError ends a connection (RFC 9113 section 5.4.1).
type connError struct {
	code code
	why  string
}

// Error returns "end connection: reason".
func (e connError) Error() string { return "end connection: " + e.why }

// streamError resets a stream (RFC 9113 section 5.4.2).
type streamError struct {
	stream uint32
	code   code
	why    string
}

// Error returns "reset stream N: reason".
func (e streamError) Error() string { return fmt.Sprintf("reset stream %d: %s", e.stream, e.why) }

// Errors that a handler meets.
var (
	// ErrBodyClosed is what a read of a request's body returns after its handler returned, or closed it.
	ErrBodyClosed = errors.New("read request body: its request has ended")
	// ErrStreamReset is what reading or writing returns on a stream that either side has reset.
	ErrStreamReset = errors.New("the stream was reset")
	// ErrConnEnded is what reading or writing returns on a stream whose connection has ended.
	ErrConnEnded = errors.New("the connection has ended")
	// errStalled is what a write returns for whose end the guest left no window.
	errStalled = errors.New("the guest leaves no window for the response")
	// errLength is what reading a body returns that is not as long as its head said (RFC 9113 section 8.1.1).
	errLength = errors.New("the body is not as long as its content-length")
)

// errLeft ends the reading of a connection that nothing more is expected of.
var errLeft = errors.New("the connection is at its end")
