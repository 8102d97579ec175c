package tls

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
)

// HandshakeFailure says in one word why a TLS handshake with a guest failed. The zero value is Other.
type HandshakeFailure uint8

// The handshake failures that a caller tells apart.
const (
	// Other: none of the below.
	Other HandshakeFailure = iota
	// GuestDistrustsCA: the guest refused the leaf: the bottle's CA is not in the trust store that this client reads.
	GuestDistrustsCA
	// GuestClock: the guest refused the leaf as not valid at its time. Few clients say so: most send what they send when they
	// distrust the CA.
	GuestClock
	// GuestClosed: the guest went away without an alert, in the middle of the handshake or before a first byte after it.
	// Node.js and clients of GnuTLS (git, wget on Debian) do the latter when they distrust the certificate, so a connection
	// that ends without one byte after a good handshake deserves the same advice as GuestDistrustsCA.
	GuestClosed
	// HandshakeTimeout: the deadline passed, or the context ended.
	HandshakeTimeout
	// NoCommon: no protocol version, cipher suite, group or ALPN protocol that both sides have.
	NoCommon
)

// String returns the failure as one lower-case word, fit for a metric label.
func (f HandshakeFailure) String() string {
	switch f {
	case GuestDistrustsCA:
		return "guest_distrusts_ca"
	case GuestClock:
		return "guest_clock"
	case GuestClosed:
		return "guest_closed"
	case HandshakeTimeout:
		return "timeout"
	case NoCommon:
		return "no_common"
	}
	return "other"
}

// Alert numbers (RFC 8446 §6, RFC 5246 §7.2).
const (
	alertUnexpectedMessage = 10
	alertBadRecordMAC      = 20
	alertHandshakeFailure  = 40
	alertBadCertificate    = 42
	alertUnsupportedCert   = 43
	alertRevokedCert       = 44
	alertExpiredCert       = 45
	alertUnknownCert       = 46
	alertUnknownCA         = 48
	alertAccessDenied      = 49
	alertDecryptError      = 51
	alertProtocolVersion   = 70
	alertInsufficient      = 71
	alertUserCanceled      = 90
	alertNoALPN            = 120
)

// ClassifyHandshake tells what the error of a server-side handshake of crypto/tls (HandshakeContext, or the first Read after it)
// meant. It is for records and advice, never for decisions: the connection is lost whatever it says. nil is Other.
func ClassifyHandshake(err error) HandshakeFailure {
	if code, remote, ok := alertOf(err); ok {
		return classifyAlert(code, remote)
	}
	var ne net.Error
	switch {
	case err == nil:
		return Other
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &ne) && ne.Timeout():
		return HandshakeTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return GuestClosed
	case isNoCommon(err):
		return NoCommon
	}
	return Other
}

// classifyAlert judges an alert that the guest sent (remote) or that crypto/tls sent about the guest's bytes.
func classifyAlert(code uint8, remote bool) HandshakeFailure {
	if !remote {
		// OpenSSL refuses a TLS 1.3 server's certificate with an alert in plaintext, since it has no keys for writing yet; a
		// Go server, which has keys for reading, then sees a record that does not decrypt.
		if code == alertBadRecordMAC {
			return GuestDistrustsCA
		}
		return Other
	}
	switch code {
	case alertExpiredCert:
		return GuestClock
	case alertBadCertificate, alertUnsupportedCert, alertRevokedCert, alertUnknownCert, alertUnknownCA, alertAccessDenied:
		return GuestDistrustsCA
	case alertDecryptError: // the guest has another authority of the same subject
		return GuestDistrustsCA
	case alertHandshakeFailure, alertProtocolVersion, alertInsufficient, alertNoALPN:
		return NoCommon
	case alertUserCanceled:
		return GuestClosed
	}
	return Other
}

// alertOf takes the alert out of an error of crypto/tls, which wraps it in a net.OpError but does not export its type outside
// of QUIC. It is an unsigned byte, and the tests run real handshakes to see that it still is.
func alertOf(err error) (code uint8, remote, ok bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" && op.Op != "local error" || op.Err == nil {
		return 0, false, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false, false
	}
	return uint8(v.Uint()), op.Op == "remote error", true
}

// noCommonTexts begin the errors by which crypto/tls says that the two sides have nothing in common. It gives these no type.
// A text that changes turns NoCommon into Other in a record, and a test red.
var noCommonTexts = [...]string{
	"tls: client offered only unsupported versions",
	"tls: no cipher suite supported by both client and server",
	"tls: no key exchanges supported by both client and server",
	"tls: client requested unsupported application protocols",
	"tls: peer doesn't support any of the certificate's signature algorithms",
	"tls: client does not support uncompressed connections",
}

func isNoCommon(err error) bool {
	for _, text := range noCommonTexts {
		if strings.HasPrefix(err.Error(), text) {
			return true
		}
	}
	return false
}
