package http1

import (
	"net/http"
	"strings"
)

// responseHead is a response's head, parsed. Its strings are parts of one string that holds the whole head.
type responseHead struct {
	status  int
	minor   int // of the version: 0 or 1
	header  http.Header
	trailer http.Header // of a chunked body, filled at its end; nil otherwise
	framing framing     // length is less than 0 if the end of the connection ends the body
	close   bool        // the connection ends with this response

	fields fields
}

// reset forgets the head and keeps its memory.
func (h *responseHead) reset() {
	kept := h.fields
	kept.reset()
	*h = responseHead{fields: kept}
}

// parse parses one whole head, from the status line to the empty line (RFC 9112 section 4), into h, which is empty. It reads
// nothing else.
func (h *responseHead) parse(text string, lim *ClientLimits) *ProtocolError {
	if len(text) > lim.HeadBytes {
		return tooLarge()
	}
	line, rest, ok := strings.Cut(text, "\r\n")
	if !ok {
		return refuse(ReasonStatusLine, "the status line has no end")
	}
	if err := h.statusLine(line); err != nil {
		return err
	}
	header, err := h.fields.parse(rest, lim.Fields)
	if err != nil {
		return err
	}
	h.header = header
	connection := header["Connection"]
	h.close = hasToken(connection, "close") || h.minor == 0 && !hasToken(connection, "keep-alive")
	return h.parseFraming()
}

// statusLine parses "version SP status SP [reason]" without its line end. The last space may be missing where nothing follows
// it, as many servers have it.
func (h *responseHead) statusLine(line string) *ProtocolError {
	version, rest, ok := strings.Cut(line, " ")
	switch {
	case ok && version == "HTTP/1.1":
		h.minor = 1
	case ok && version == "HTTP/1.0":
	default:
		return refuse(ReasonStatusLine, "the status line does not begin with HTTP/1.1 or HTTP/1.0")
	}
	digits, reason, _ := strings.Cut(rest, " ")
	if len(digits) != 3 || digits[0] < '1' || digits[0] > '9' || !isDigit(digits[1]) || !isDigit(digits[2]) {
		return refuse(ReasonStatusLine, "the status is not three digits")
	}
	h.status = int(digits[0]-'0')*100 + int(digits[1]-'0')*10 + int(digits[2]-'0')
	return checkValue(reason)
}

// parseFraming decides how the body ends, as far as the head alone tells (RFC 9112 section 6.3). As with requests, whatever has
// two answers is refused; but Content-Length may be repeated with the same value.
func (h *responseHead) parseFraming() *ProtocolError {
	encodings, hasEncoding := h.header["Transfer-Encoding"]
	lengths, hasLength := h.header["Content-Length"]
	h.framing.length = -1
	switch {
	case hasEncoding && hasLength:
		return refuse(ReasonBothLengths, "Content-Length and Transfer-Encoding in one response (RFC 9112 section 6.3)")
	case hasEncoding:
		if h.minor == 0 || len(encodings) != 1 || !equalFold(encodings[0], "chunked") || h.status < 200 {
			return refuse(ReasonEncoding, "the only transfer coding of a response is one chunked, on HTTP/1.1 (RFC 9112 section 6.1)")
		}
		delete(h.header, "Transfer-Encoding")
		h.framing.chunked = true
		h.trailer = http.Header{}
		for _, key := range announced(h.header) {
			h.trailer[key] = nil
		}
	case hasLength:
		n, ok := parseLength(lengths[0])
		for _, other := range lengths[1:] {
			ok = ok && other == lengths[0]
		}
		if !ok {
			return refuse(ReasonLength, "Content-Length is not 1–18 digits")
		}
		if len(lengths) > 1 {
			h.header["Content-Length"] = lengths[:1]
		}
		h.framing.length = n
	}
	return nil
}

// noBody reports whether a response with this status has no body, whatever its head says (RFC 9112 section 6.3).
func noBody(status int) bool {
	return status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
}
