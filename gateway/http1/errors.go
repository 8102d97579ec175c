package http1

import (
	"errors"
	"fmt"
	"net/http"
)

// Reason is why a request was refused, as one word fit for a metric label and a record.
type Reason string

// The reasons. Each stands for one rule of RFC 9112 or RFC 9110, or one limit, that a guest, or a server, broke.
const (
	// ReasonRequestLine is a request line that is not "method SP target SP version" (RFC 9112 section 3).
	ReasonRequestLine Reason = "request_line"
	// ReasonMethod is a method that is not a token, or longer than any that is in use (RFC 9110 section 9.1).
	ReasonMethod Reason = "method_syntax"
	// ReasonConnect is the CONNECT method, or a target in authority-form (RFC 9112 section 3.2.3).
	ReasonConnect Reason = "connect"
	// ReasonTarget is a request target in none of the accepted forms, or with bytes that none may hold (RFC 9112 section 3.2).
	ReasonTarget Reason = "target"
	// ReasonVersion is a version other than HTTP/1.0 and HTTP/1.1, HTTP/0.9 included.
	ReasonVersion Reason = "version"
	// ReasonPreface is the preface of HTTP/2 on a connection that did not agree on it (RFC 9113 section 3.4).
	ReasonPreface Reason = "h2_preface"
	// ReasonBareLF is a line feed without a carriage return before it (RFC 9112 section 2.2).
	ReasonBareLF Reason = "bare_lf"
	// ReasonBareCR is a carriage return without a line feed after it (RFC 9112 section 2.2).
	ReasonBareCR Reason = "bare_cr"
	// ReasonFold is a folded field line (RFC 9112 section 5.2).
	ReasonFold Reason = "obs_fold"
	// ReasonFieldName is a field name that is empty, no token, or followed by a space (RFC 9112 section 5.1).
	ReasonFieldName Reason = "field_name"
	// ReasonFieldValue is a control byte in a field value (RFC 9110 section 5.5).
	ReasonFieldValue Reason = "field_value"
	// ReasonHost is a Host field that is absent, repeated, malformed, or other than the authority of the target (RFC 9112 section 3.2).
	ReasonHost Reason = "host"
	// ReasonLength is a Content-Length that is repeated or not a number (RFC 9112 section 6.3).
	ReasonLength Reason = "content_length"
	// ReasonEncoding is a Transfer-Encoding other than one "chunked", or one on HTTP/1.0 (RFC 9112 section 6.1).
	ReasonEncoding Reason = "transfer_encoding"
	// ReasonBothLengths is Content-Length and Transfer-Encoding in one head (RFC 9112 section 6.3).
	ReasonBothLengths Reason = "length_and_encoding"
	// ReasonExpect is an expectation other than 100-continue (RFC 9110 section 10.1.1).
	ReasonExpect Reason = "expect"
	// ReasonChunk is a chunk that breaks RFC 9112 section 7.1.
	ReasonChunk Reason = "chunk"
	// ReasonTrailer is a trailer section that is malformed, too large, or holds a field that frames or routes (RFC 9110 section 6.5.1).
	ReasonTrailer Reason = "trailer"
	// ReasonHeadTooLarge is a head beyond [Limits].HeadBytes or [Limits].Fields.
	ReasonHeadTooLarge Reason = "head_too_large"
	// ReasonSlowHead is a head that did not end within [Limits].Head.
	ReasonSlowHead Reason = "head_timeout"
	// ReasonSlowBody is a body that stalled or came below [Limits].BodyRate.
	ReasonSlowBody Reason = "body_timeout"
	// ReasonStatusLine is a status line that is not "version SP status SP reason" (RFC 9112 section 4).
	ReasonStatusLine Reason = "status_line"
	// ReasonInterim is a response with more interim responses before it than [ClientLimits].Interim.
	ReasonInterim Reason = "interim"
)

// ProtocolError says that the guest broke the protocol. The connection ends with it: after a syntax error nobody knows
// where the next request begins.
type ProtocolError struct {
	Status int    // status that the guest is answered with, 400–505
	Reason Reason // the rule that was broken
	Detail string // in words, without bytes of the request
}

// Error returns "refuse request: reason: detail".
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("refuse request: %s: %s", e.Reason, e.Detail)
}

// refuse makes the error for a broken rule that has no status of its own, 400.
func refuse(r Reason, detail string) *ProtocolError {
	return &ProtocolError{Status: http.StatusBadRequest, Reason: r, Detail: detail}
}

// refuseWith is refuse with a status.
func refuseWith(status int, r Reason, detail string) *ProtocolError {
	return &ProtocolError{Status: status, Reason: r, Detail: detail}
}

// ErrBodyClosed is what a read of a request's body returns after its handler returned.
var ErrBodyClosed = errors.New("read request body: its request has ended")

// errGuestLeft ends a connection that the guest closed between or within requests.
var errGuestLeft = errors.New("guest closed the connection")
