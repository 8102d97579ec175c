// Package control is what the host and the init of a VM say to each other over the VM's control port: one JSON object a
// line. The host believes nothing of it but what it shows: the guest may be anybody's.
package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// PortName is the name of the virtio-serial port.
const PortName = "gatewayd.control"

const (
	// MaxLine is the most bytes of a line, its end included.
	MaxLine = 128 << 10
	// MaxData is the most bytes of output in one message; with the overhead of base64 they fit in a line.
	MaxData = 32 << 10
)

// Kind says what a message is for.
type Kind string

// The kinds of messages.
const (
	Hello  Kind = "hello"  // guest: I am up
	Failed Kind = "failed" // guest: I could not set myself up; Text says why
	Run    Kind = "run"    // host: start Argv
	Stdout Kind = "stdout" // guest: Data was written
	Stderr Kind = "stderr" // guest: Data was written
	Exit   Kind = "exit"   // guest: the program has ended with Code, or did not start: Text says why
	Off    Kind = "off"    // host: switch off
)

// Message is one line.
type Message struct {
	Kind Kind `json:"kind"`
	// ID is that of the run, given by the host.
	ID uint32 `json:"id,omitempty"`
	// Argv, Env (in addition to the bottle's) and Dir are those of Run. Console connects the program to the console.
	Argv    []string `json:"argv,omitempty"`
	Env     []string `json:"env,omitempty"`
	Dir     string   `json:"dir,omitempty"`
	Console bool     `json:"console,omitempty"`

	Data []byte `json:"data,omitempty"`
	Code int    `json:"code,omitempty"`
	Text string `json:"text,omitempty"`
}

// ErrTooLong says that a line was longer than MaxLine. The reader cannot go on.
var ErrTooLong = errors.New("line of the control port too long")

// SyntaxError reports a line that is no message. The reader cannot go on.
type SyntaxError struct{ Err error }

// Error tells what is wrong, without repeating the line.
func (e *SyntaxError) Error() string {
	return "line of the control port is no message: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *SyntaxError) Unwrap() error { return e.Err }

// Reader reads messages. It is not safe for concurrent use.
type Reader struct{ in *bufio.Reader }

// NewReader returns a reader with a buffer of MaxLine bytes.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, MaxLine)} }

// Read blocks until there is a message. It returns io.EOF at the end, ErrTooLong, a *SyntaxError, or the error of the
// underlying reader.
func (r *Reader) Read() (Message, error) {
	line, err := r.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return Message{}, ErrTooLong
	case errors.Is(err, io.EOF) && len(line) > 0:
		return Message{}, io.ErrUnexpectedEOF
	case err != nil:
		return Message{}, err
	}
	var m Message
	if err := json.Unmarshal(line, &m); err != nil {
		return Message{}, &SyntaxError{Err: err}
	}
	switch m.Kind {
	case Hello, Failed, Run, Stdout, Stderr, Exit, Off:
		return m, nil
	}
	return Message{}, &SyntaxError{Err: errors.New("unknown kind")}
}

// Write writes one message in one call of w. It returns ErrTooLong, and writes nothing, if it would not fit in a line.
func Write(w io.Writer, m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write control message: %w", err)
	}
	if len(line)+1 > MaxLine {
		return ErrTooLong
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write control message: %w", err)
	}
	return nil
}
