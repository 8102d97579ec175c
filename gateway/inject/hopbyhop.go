package inject

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

// ConnectionError reports a Connection header that names a field which is not
// the connection's to drop.
type ConnectionError struct {
	// Option is what Connection named. It may hold any byte that a header
	// value may; Error quotes it.
	Option string
}

// Error names the option.
func (e *ConnectionError) Error() string {
	return fmt.Sprintf("header Connection: it names %.80q, which must reach the server", e.Option)
}

// StripHopByHop removes the header fields that end at this gateway (RFC 9110
// section 7.6.1), Upgrade and TE among them, and every field that Connection
// names. A caller that goes on to speak WebSocket or trailers upstream sets
// its own. It also removes the fields that also says of those that are left,
// which may be nil and may set the field's values, so that a caller goes over
// them once. It returns a *ConnectionError, having changed nothing, when
// Connection names something that is no field name, or a field that carries
// credentials or routes, frames or describes the message: dropping it would
// change what the request means behind the checks already made.
func StripHopByHop(h http.Header, also func(name string, values []string) bool) error {
	var named []string
	for _, v := range h["Connection"] {
		if v == "keep-alive" { // as most have it: the field of that name is removed below
			continue
		}
		for option := range strings.SplitSeq(v, ",") {
			option = textproto.TrimString(option)
			if option == "" {
				continue
			}
			if !fieldName(option) || credentialHeader(option) || endToEnd(option) {
				return &ConnectionError{Option: option}
			}
			named = append(named, option)
		}
	}
	for _, name := range named {
		h.Del(name)
	}
	for name, values := range h {
		if hopByHop(name) || also != nil && also(name, values) {
			delete(h, name)
		}
	}
	return nil
}

// hopByHop tells whether a field, by its canonical name, ends at this gateway.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// endToEnd tells whether a field must not be dropped on the way.
func endToEnd(name string) bool {
	switch strings.ToLower(name) {
	case "host", "content-length", "content-type", "content-encoding", "content-range", "range", "expect", "date",
		"cookie", "set-cookie", "cache-control", "origin", "referer", "via", "forwarded", "x-forwarded-for",
		"x-forwarded-host", "x-forwarded-proto", "x-real-ip", "sec-websocket-key", "sec-websocket-version",
		"sec-websocket-protocol", "sec-websocket-extensions":
		return true
	}
	return false
}

// fieldName is the token of RFC 9110 section 5.1.
func fieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
