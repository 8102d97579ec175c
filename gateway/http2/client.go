package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Defaults of [ClientLimits]: what a server may ask of one connection before it is given up.
const (
	// DefaultResponseHeadBytes bounds a response's head, each field counted with 32 bytes more (RFC 9113 section 6.5.2).
	DefaultResponseHeadBytes = 1 << 20
	// DefaultResponseFields bounds the number of fields in one head.
	DefaultResponseFields = 1000
	// DefaultInterim bounds how many interim responses may come before the final one.
	DefaultInterim = 32
	// DefaultResponseWindow is how much of one response's body may come before it is taken.
	DefaultResponseWindow = 1 << 20
	// DefaultServerWindow is the same over all responses of one connection.
	DefaultServerWindow = 8 << 20
	// DefaultResponseHead is how long a final response's head may take from the end of its request, and a piece of the request's body or
	// a write of the connection to be taken.
	DefaultResponseHead = 15 * time.Minute
	// DefaultContinue is the wait for 100 Continue before a body is sent all the same (RFC 9110 section 10.1.1).
	DefaultContinue = time.Second
	// DefaultServerIdle is how long a connection without a request stays open.
	DefaultServerIdle = 90 * time.Second
)

// ClientLimits bounds what one connection with a server may cost. A zero or negative field means its default, so that no bound can be
// turned off. Sizes are in bytes. Of Ping and PingWait the defaults are those of [Limits].
type ClientLimits struct {
	HeadBytes, Fields, Interim int
	StreamWindow, ConnWindow   int
	Head, Continue, Idle       time.Duration
	Ping, PingWait             time.Duration
}

// withDefaults returns l with every unset field at its default.
func (l ClientLimits) withDefaults() ClientLimits {
	for field, value := range map[*int]int{
		&l.HeadBytes: DefaultResponseHeadBytes, &l.Fields: DefaultResponseFields, &l.Interim: DefaultInterim,
		&l.StreamWindow: DefaultResponseWindow, &l.ConnWindow: DefaultServerWindow,
	} {
		if *field <= 0 {
			*field = value
		}
	}
	for field, value := range map[*time.Duration]time.Duration{
		&l.Head: DefaultResponseHead, &l.Continue: DefaultContinue, &l.Idle: DefaultServerIdle, &l.Ping: DefaultPing, &l.PingWait: DefaultPingWait,
	} {
		if *field <= 0 {
			*field = value
		}
	}
	return l
}

// Client makes the client's half of HTTP/2 connections, which share its buffers. It dials nothing and keeps nothing: which connection
// carries a request is for its caller to say.
type Client struct {
	lim    ClientLimits
	heads  Limits // what of lim bounds a head
	reads  buffers
	writes buffers
	bodies buffers
	sends  buffers
	fields sync.Pool // of *[]hpack.HeaderField
}

// NewClient returns a Client with the limits.
func NewClient(lim ClientLimits) *Client {
	lim = lim.withDefaults()
	return &Client{
		lim: lim, heads: Limits{HeadBytes: lim.HeadBytes, Fields: lim.Fields},
		reads: buffers{small: smallBuffer, large: readBuffer}, writes: buffers{small: smallBuffer, large: writeBuffer},
		bodies: buffers{small: smallBuffer, large: bodyBuffer}, sends: buffers{small: smallBuffer, large: 4 * dataPayload},
	}
}

// Request is what [ClientConn.RoundTrip] sends. The head is written as it is given: whoever makes it vouches for it.
type Request struct {
	Method, Scheme, Authority, Path string
	// Header is sent without what HTTP/2 says in other ways, and without Host, Content-Length and Trailer, which are written by what the
	// fields here say.
	Header http.Header
	// Body is the content, nil if there is none; Length its length, -1 if that is not known. Unless it is Near, it is read by another
	// goroutine than the caller's, which may go on after the response has ended. An error other than [io.EOF] resets the stream, so that
	// what was sent does not look whole.
	Body   io.Reader
	Length int64
	// Near says that reading Body waits for nobody and that it is small: then the caller's goroutine reads and sends it.
	Near    bool
	Trailer http.Header // filled when Body ends; its keys are announced
	// Interim, if not nil, is told of each 1xx response but 100, before RoundTrip returns and by its goroutine. It may keep the header.
	Interim interface {
		Interim(status int, header http.Header)
	}
}

// UnseenError says that the server has not looked at a request, of whose body nothing was read: it was not sent, or the server says so
// (RFC 9113 section 8.7). It may be sent on another connection.
type UnseenError struct{ Err error }

// Error returns why.
func (e *UnseenError) Error() string { return "request not looked at: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UnseenError) Unwrap() error { return e.Err }

// Errors that a request meets.
var (
	// ErrCanceled is the end of a request by its own side: its context ended, or its response was closed.
	ErrCanceled = errors.New("the request was given up")
	// ErrHeadTimeout is the end of a request whose response's head does not come.
	ErrHeadTimeout = timeoutError("the server sends no response")
	// ErrWindowShut is the end of a request whose server takes nothing of its body.
	ErrWindowShut = timeoutError("the server takes no more of the request's body")
	// errLeaving is why a connection takes no request.
	errLeaving = errors.New("the connection takes no further request")
	// errRefused is why a request on a connection was not looked at.
	errRefused = errors.New("the server has refused it")
)

// timeoutError is a wait that has ended. It is a [net.Error] whose Timeout is true.
type timeoutError string

var _ net.Error = timeoutError("")

// Error says what was waited for.
func (e timeoutError) Error() string { return string(e) }

// Timeout is [net.Error].Timeout.
func (timeoutError) Timeout() bool { return true }

// Is reports whether target is the end of a context by its deadline, which is the same to who waits.
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Temporary is [net.Error].Temporary.
func (timeoutError) Temporary() bool { return false }
