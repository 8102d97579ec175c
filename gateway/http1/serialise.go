package http1

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// appendStatusLine appends "HTTP/1.1 SP status SP reason CRLF" (RFC 9112 section 4). The version is the highest that the
// server speaks, also towards HTTP/1.0 guests (RFC 9110 section 2.5).
func appendStatusLine(b []byte, status int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	return append(b, "\r\n"...)
}

// appendHead appends the final head of r.
func appendHead(b []byte, r *response) []byte {
	b = appendStatusLine(b, r.status)
	b = appendFields(b, r.header, r.ownField)
	switch r.mode {
	case modeLength:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.length, 10)
		b = append(b, "\r\n"...)
	case modeChunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if _, ok := r.header["Date"]; !ok && r.mode != modeUpgrade {
		b = append(b, "Date: "...)
		b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
		b = append(b, "\r\n"...)
	}
	switch {
	case r.mode == modeUpgrade:
	case !r.keep:
		b = append(b, "Connection: close\r\n"...)
	case r.minor == 0:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// ownField reports whether a field of the handler's header is left out of the head: the server writes the framing itself, a
// Content-Length stands only where it speaks of another response's body (RFC 9110 section 8.6), and trailers come later.
func (r *response) ownField(key string) bool {
	switch {
	case key == "Content-Length":
		return r.mode != modeDiscard && r.status != http.StatusNotModified
	case key == "Connection":
		return onlyClose(r.header)
	case framesConnection(key):
		return true
	case len(r.trailer) > 0:
		return slices.Contains(r.trailer, key)
	}
	return false
}

// framesConnection reports whether a field is the server's own to write.
func framesConnection(key string) bool {
	return key == "Transfer-Encoding" || key == "Connection" || key == "Keep-Alive"
}

// onlyClose reports whether the Connection field has nothing to say but close and keep-alive, which the server says itself.
// Other options, as with 101 and 426, are the handler's to send.
func onlyClose(h http.Header) bool {
	for _, v := range h["Connection"] {
		for v != "" {
			var option string
			option, v = cutComma(v)
			if option = trimOWS(option); option != "" && !equalFold(option, "close") && !equalFold(option, "keep-alive") {
				return false
			}
		}
	}
	return true
}

// appendFields appends every field of h that skip does not name and that is no trailer. Names that are no tokens are left
// out; control bytes in values become spaces, so that no value can end its line.
func appendFields(b []byte, h http.Header, skip func(key string) bool) []byte {
	for key, values := range h {
		if skip(key) || strings.HasPrefix(key, http.TrailerPrefix) || !isToken(key) {
			continue
		}
		for _, v := range values {
			b = appendField(b, key, v)
		}
	}
	return b
}

// appendField appends one field line.
func appendField(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, ": "...)
	from := len(b)
	b = append(b, value...)
	if noControls(value) {
		return append(b, "\r\n"...)
	}
	for i := from; i < len(b); i++ {
		if c := b[i]; c < ' ' && c != '\t' || c == 0x7f {
			b[i] = ' '
		}
	}
	return append(b, "\r\n"...)
}

// announced returns the names in the Trailer field that a trailer may hold, in canonical form.
func announced(h http.Header) []string {
	var names []string
	for _, v := range h["Trailer"] {
		for v != "" {
			var name string
			name, v = cutComma(v)
			if key := textproto.CanonicalMIMEHeaderKey(trimOWS(name)); isToken(key) && trailerAllowed(key) {
				names = append(names, key)
			}
		}
	}
	return names
}

// hasTrailerPrefix reports whether h has a trailer that was not announced.
func hasTrailerPrefix(h http.Header) bool {
	for key := range h {
		if strings.HasPrefix(key, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// appendTrailer appends the trailer section without its empty line: the announced fields and those under
// [http.TrailerPrefix].
func appendTrailer(b []byte, h http.Header, names []string) []byte {
	for _, key := range names {
		for _, v := range h[key] {
			b = appendField(b, key, v)
		}
	}
	for key, values := range h {
		name, ok := strings.CutPrefix(key, http.TrailerPrefix)
		if !ok || !isToken(name) || !trailerAllowed(textproto.CanonicalMIMEHeaderKey(name)) {
			continue
		}
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	return b
}
