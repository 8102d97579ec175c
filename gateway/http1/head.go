package http1

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// maxMethod bounds a method's length; the longest registered is UPDATEREDIRECTREF with 17.
const maxMethod = 32

// head is a request's head, parsed. Its strings are parts of one string that holds the whole head.
type head struct {
	method, target, host string
	url                  *url.URL // &uri
	minor                int      // of the version: 0 or 1
	header               http.Header
	trailer              http.Header // keys announced by Trailer, nil if none
	framing              framing
	close                bool // the guest asked for, or its version means, an end after this response
	expect               bool // 100-continue

	uri    url.URL
	fields fields
}

// headEnd looks for the end of a head in b, beginning at from, which must be the beginning of a line. It returns the
// offset behind the empty line, or 0 and the offset of the first unfinished line. A line that ends in a bare LF is refused
// as soon as it is there.
func headEnd(b []byte, from int) (end, resume int, err *ProtocolError) {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0, from, nil
		}
		if i == 0 || b[from+i-1] != '\r' {
			return 0, from, refuse(ReasonBareLF, "a line ends in LF without CR (RFC 9112 section 2.2)")
		}
		from += i + 1
		if i == 1 {
			return from, from, nil
		}
	}
}

// checkStart judges a head that is not whole yet, so that other protocols are refused at their first bytes instead of at a
// deadline. b is what has come so far.
func checkStart(b []byte) *ProtocolError {
	if i := bytes.IndexByte(b, '\n'); i > 0 {
		var h head
		return h.requestLine(string(b[:i-1]))
	}
	for i, c := range b {
		if c == ' ' && i > 0 {
			return nil
		}
		if !isTokenByte(c) || i >= maxMethod {
			return refuse(ReasonMethod, "the connection does not begin with an HTTP method")
		}
	}
	return nil
}

// parse parses one whole head, from the request line to the empty line, into h, which is empty. It reads nothing else.
func (h *head) parse(text string, lim *Limits) *ProtocolError {
	if len(text) > lim.HeadBytes {
		return tooLarge()
	}
	line, rest, ok := strings.Cut(text, "\r\n")
	if !ok {
		return refuse(ReasonRequestLine, "the request line has no end")
	}
	if err := h.requestLine(line); err != nil {
		return err
	}
	header, err := h.fields.parse(rest, lim.Fields)
	if err != nil {
		return err
	}
	h.header = header
	if err := h.parseTarget(); err != nil {
		return err
	}
	if err := h.parseFraming(); err != nil {
		return err
	}
	return h.parseConnection()
}

// tooLarge is the refusal of a head beyond its bounds (RFC 6585 section 5).
func tooLarge() *ProtocolError {
	return refuseWith(http.StatusRequestHeaderFieldsTooLarge, ReasonHeadTooLarge, "the head is larger or has more fields than the gateway takes")
}

// requestLine parses "method SP target SP version", without its line end (RFC 9112 section 3). It fills method, target and
// minor.
func (h *head) requestLine(line string) *ProtocolError {
	method, rest, ok := strings.Cut(line, " ")
	if !isToken(method) || len(method) > maxMethod {
		return refuse(ReasonMethod, "the method is no token")
	}
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 {
		return refuseWith(http.StatusHTTPVersionNotSupported, ReasonVersion, "the request line has no version, as in HTTP/0.9")
	}
	switch version {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
		h.minor = 0
	case "HTTP/2.0":
		return refuseWith(http.StatusHTTPVersionNotSupported, ReasonPreface, "HTTP/2 was not agreed on for this connection")
	default:
		if strings.HasPrefix(version, "HTTP/") {
			return refuseWith(http.StatusHTTPVersionNotSupported, ReasonVersion, "the version is neither HTTP/1.1 nor HTTP/1.0")
		}
		return refuse(ReasonRequestLine, "the request line has more or other than three parts")
	}
	h.method, h.target = method, target
	return checkTargetBytes(target)
}

// parseField parses one field line without its end and returns the name in canonical form.
func parseField(line string) (key, value string, err *ProtocolError) {
	if line[0] == ' ' || line[0] == '\t' {
		return "", "", refuse(ReasonFold, "a field line is folded or begins with white space (RFC 9112 section 5.2)")
	}
	canonical, other, colon := true, uint8(lowerByte), -1 // other is what a canonical name does not have here
	for i := range len(line) {
		c := line[i]
		class := classes[c]
		if class&tokenByte == 0 {
			if c != ':' {
				return "", "", refuse(ReasonFieldName, "a field name holds a byte that no token may hold, or a space before its colon (RFC 9112 section 5.1)")
			}
			colon = i
			break
		}
		canonical = canonical && class&other == 0
		if other = upperByte; c == '-' {
			other = lowerByte
		}
	}
	if colon <= 0 {
		return "", "", refuse(ReasonFieldName, "a field line has no name or no colon")
	}
	key, value = line[:colon], trimOWS(line[colon+1:])
	if !canonical {
		key = textproto.CanonicalMIMEHeaderKey(key)
	}
	return key, value, checkValue(value)
}

// checkValue refuses the control bytes that a field value may not hold (RFC 9110 section 5.5).
func checkValue(v string) *ProtocolError {
	if noControls(v) {
		return nil
	}
	for i := range len(v) {
		switch c := v[i]; {
		case c >= ' ' && c != 0x7f, c == '\t':
		case c == '\r':
			return refuse(ReasonBareCR, "a field value holds a CR without LF (RFC 9112 section 2.2)")
		case c == '\n':
			return refuse(ReasonBareLF, "a field value holds a LF without CR (RFC 9112 section 2.2)")
		default:
			return refuse(ReasonFieldValue, "a field value holds a control byte (RFC 9110 section 5.5)")
		}
	}
	return nil
}

// parseConnection reads Connection and Expect (RFC 9112 section 9.3, RFC 9110 section 10.1.1).
func (h *head) parseConnection() *ProtocolError {
	connection := h.header["Connection"]
	h.close = hasToken(connection, "close") || h.minor == 0 && !hasToken(connection, "keep-alive")
	expect, ok := h.header["Expect"]
	if !ok || h.minor == 0 { // HTTP/1.0 guests do not know it: ignored
		return nil
	}
	if len(expect) != 1 || !equalFold(expect[0], "100-continue") {
		return refuseWith(http.StatusExpectationFailed, ReasonExpect, "the only expectation known is 100-continue")
	}
	h.expect = true
	return nil
}
