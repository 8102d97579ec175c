package tls

import "fmt"

// Hello is what a ClientHello says of the connection that it opens (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2).
type Hello struct {
	// ServerName is the one host_name of the server_name extension (RFC 6066 §3), byte for byte as sent: it may hold upper
	// case, NUL, CR, LF, a trailing dot or an address. Only a canonicaliser may judge it. Never empty in a Hello returned
	// without an error.
	ServerName string
	// ALPN lists the protocols offered (RFC 7301 §3.1) in the client's order; nil when the extension is absent.
	ALPN []string
	// Versions lists what supported_versions offers (RFC 8446 §4.2.1) in the client's order, GREASE values (RFC 8701)
	// included; the legacy version alone when the extension is absent.
	Versions []uint16
	// ECH tells that an encrypted_client_hello extension was present: a real one, or the GREASE that some clients always
	// send. ServerName is then the outer name.
	ECH bool
	// Size is the length in bytes of the handshake message with its four-byte header, without record headers.
	Size int
}

// HelloKind says why a connection's first bytes gave no usable ClientHello. The zero value is none of them.
type HelloKind uint8

// The kinds of HelloError.
const (
	// NotTLS: the first bytes are no TLS handshake record.
	NotTLS HelloKind = iota + 1
	// NoName: a sound ClientHello without a server_name extension.
	NoName
	// TooLarge: the hello or the number of its records is over the limits of Peek.
	TooLarge
	// Malformed: a handshake record that breaks the protocol, a server_name that is not exactly one host_name, or an
	// extension that occurs twice.
	Malformed
	// Timeout: the reader's deadline passed before the hello was whole.
	Timeout
	// Closed: the stream ended, or failed, before the hello was whole.
	Closed
)

// String returns the kind as one lower-case word, fit for a metric label.
func (k HelloKind) String() string {
	switch k {
	case NotTLS:
		return "not_tls"
	case NoName:
		return "no_name"
	case TooLarge:
		return "too_large"
	case Malformed:
		return "malformed"
	case Timeout:
		return "timeout"
	case Closed:
		return "closed"
	}
	return "unknown"
}

// HelloError is the only error type of Peek and ParseHello.
type HelloError struct {
	// Kind is what a caller decides on.
	Kind HelloKind
	// Err is the cause in words: where the bytes went wrong, or what the reader said.
	Err error
}

// Error gives "read client hello: KIND: cause".
func (e *HelloError) Error() string { return fmt.Sprintf("read client hello: %s: %v", e.Kind, e.Err) }

// Unwrap returns the cause, so that errors.Is finds os.ErrDeadlineExceeded, io.EOF and the like.
func (e *HelloError) Unwrap() error { return e.Err }
