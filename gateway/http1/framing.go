package http1

import (
	"net/http"
	"net/textproto"
)

// maxLengthDigits keeps a Content-Length below 2^63: 18 nines fit.
const maxLengthDigits = 18

// framing says how a message's body ends.
type framing struct {
	chunked bool
	length  int64 // if not chunked; 0 means that there is no body
}

// parseFraming decides how the body ends (RFC 9112 section 6.3). Two answers to that question are the root of request
// smuggling, so whatever is not plainly one of them is refused: both fields, repeated fields, lists, codings but chunked.
func (h *head) parseFraming() *ProtocolError {
	encodings, hasEncoding := h.header["Transfer-Encoding"]
	lengths, hasLength := h.header["Content-Length"]
	switch {
	case hasEncoding && hasLength:
		return refuse(ReasonBothLengths, "Content-Length and Transfer-Encoding in one request (RFC 9112 section 6.3)")
	case hasEncoding:
		if h.minor == 0 {
			return refuse(ReasonEncoding, "HTTP/1.0 has no Transfer-Encoding (RFC 9112 section 6.1)")
		}
		if len(encodings) != 1 {
			return refuse(ReasonEncoding, "Transfer-Encoding is repeated")
		}
		if !equalFold(encodings[0], "chunked") {
			return refuseWith(http.StatusNotImplemented, ReasonEncoding, "the only transfer coding served is chunked (RFC 9112 section 6.1)")
		}
		delete(h.header, "Transfer-Encoding")
		h.framing.chunked = true
		return h.announcedTrailer()
	case hasLength:
		if len(lengths) != 1 {
			return refuse(ReasonLength, "Content-Length is repeated (RFC 9112 section 6.3)")
		}
		n, ok := parseLength(lengths[0])
		if !ok {
			return refuse(ReasonLength, "Content-Length is not 1–18 digits")
		}
		h.framing.length = n
	}
	return nil
}

// parseLength parses 1–18 decimal digits and nothing else.
func parseLength(s string) (n int64, ok bool) {
	if s == "" || len(s) > maxLengthDigits {
		return 0, false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// announcedTrailer moves the names in the Trailer field into h.trailer (RFC 9110 section 6.6.2).
func (h *head) announcedTrailer() *ProtocolError {
	values, ok := h.header["Trailer"]
	if !ok {
		return nil
	}
	delete(h.header, "Trailer")
	h.trailer = http.Header{}
	for _, v := range values {
		for v != "" {
			var name string
			name, v = cutComma(v)
			if name = trimOWS(name); name == "" {
				continue
			}
			key := textproto.CanonicalMIMEHeaderKey(name)
			if !isToken(name) || !trailerAllowed(key) {
				return refuse(ReasonTrailer, "the Trailer field names a field that no trailer may hold (RFC 9110 section 6.5.1)")
			}
			h.trailer[key] = nil
		}
	}
	return nil
}

// trailerAllowed reports whether a field may come in a trailer section: not if it frames the message, routes it, modifies
// how it is handled, or authenticates (RFC 9110 section 6.5.1). key is in canonical form.
func trailerAllowed(key string) bool {
	switch key {
	case "Transfer-Encoding", "Content-Length", "Trailer", "Host", "Connection", "Upgrade", "Keep-Alive", "Te", "Proxy-Connection",
		"Authorization", "Proxy-Authorization", "Www-Authenticate", "Proxy-Authenticate", "Cookie", "Set-Cookie",
		"Content-Encoding", "Content-Type", "Content-Range", "Range", "Expect", "Max-Forwards", "Cache-Control", "Age",
		"Date", "Location", "Retry-After", "Vary", "Expires", "Pragma", "Warning",
		"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range":
		return false
	}
	return true
}
