package http1

import (
	"net/http"
	"net/url"
	"strings"
)

// maxHost bounds a Host field: a name of 253 bytes, or an address, and a port.
const maxHost = 253 + 6

// checkTargetBytes refuses bytes that no request target may hold: white space, control bytes, non-ASCII, and the fragment
// mark, which some servers cut off and some take for a part of the path (RFC 9112 section 3.2, RFC 3986 section 3).
func checkTargetBytes(target string) *ProtocolError {
	if target == "" {
		return refuse(ReasonTarget, "the request target is empty")
	}
	for i := range len(target) {
		switch c := target[i]; {
		case c == ' ':
			return refuse(ReasonRequestLine, "the request line has more than three parts")
		case c == '\r':
			return refuse(ReasonBareCR, "the request line holds a CR without LF")
		case c == '\n':
			return refuse(ReasonBareLF, "the request line holds a LF without CR")
		case c < '!' || c > '~' || c == '#':
			return refuse(ReasonTarget, "the request target holds a byte that has to be percent-encoded")
		}
	}
	return nil
}

// parseTarget judges target and Host together and fills url and host (RFC 9112 sections 3.2 and 3.3). CONNECT and
// authority-form are refused: the gateway is no proxy that a guest could name a destination to.
func (h *head) parseTarget() *ProtocolError {
	if h.method == http.MethodConnect {
		return refuseWith(http.StatusMethodNotAllowed, ReasonConnect, "CONNECT is not served")
	}
	hosts := h.header["Host"]
	if len(hosts) != 1 {
		return refuse(ReasonHost, "a request has exactly one Host field (RFC 9112 section 3.2)")
	}
	h.host = hosts[0]
	delete(h.header, "Host")
	if !validHost(h.host) {
		return refuse(ReasonHost, "the Host field is not a name or address with an optional port")
	}
	switch {
	case h.target == "*":
		if h.method != http.MethodOptions {
			return refuse(ReasonTarget, "only OPTIONS has the target *")
		}
		h.uri.Path = "*"
		h.url = &h.uri
		return nil
	case h.target[0] == '/':
	default:
		if err := h.absoluteForm(); err != nil {
			return err
		}
	}
	h.url = &h.uri
	if h.plainTarget() {
		return nil
	}
	u, err := url.ParseRequestURI(h.target)
	if err != nil {
		return refuse(ReasonTarget, "the request target is no URI")
	}
	h.uri = *u
	return nil
}

// plainTarget fills uri as url.ParseRequestURI does, if the path has nothing but bytes that stand for themselves in whatever
// form. It reports whether it has.
func (h *head) plainTarget() bool {
	path, query, found := strings.Cut(h.target, "?")
	if path == "" || path[0] != '/' {
		return false
	}
	for i := range len(path) {
		if c := path[i]; !isLower(c) && !isUpper(c) && !isDigit(c) && c != '/' && c != '-' && c != '.' && c != '_' && c != '~' {
			return false
		}
	}
	h.uri.Path, h.uri.RawQuery, h.uri.ForceQuery = path, query, found && query == ""
	return true
}

// absoluteForm checks a target that is a whole URI. Its authority must be the Host field's, byte for byte but for case:
// RFC 9112 section 3.2.2 lets the target win, and whoever lets Host win would see another request.
func (h *head) absoluteForm() *ProtocolError {
	scheme, rest, ok := strings.Cut(h.target, "://")
	if !ok || !equalFold(scheme, "http") && !equalFold(scheme, "https") {
		return refuse(ReasonTarget, "the request target is neither a path nor an http or https URI")
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		return refuse(ReasonTarget, "the URI has no path")
	}
	if !equalFold(rest[:slash], strings.ToLower(h.host)) {
		return refuse(ReasonHost, "the authority of the request target is not the Host field's")
	}
	return nil
}

// validHost reports whether s has the form uri-host [ ":" port ], of which this takes letters, digits, "-", "_", "." and
// bracketed IPv6 addresses. What the name means is for the caller to judge.
func validHost(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	name, port := s, ""
	if s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 0 || !validBracketed(s[1:end]) {
			return false
		}
		name, port = s[:end+1], s[end+1:]
	} else {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			name, port = s[:i], s[i:]
		}
		for i := range len(name) {
			if c := name[i]; !isLower(c) && !isUpper(c) && !isDigit(c) && c != '-' && c != '_' && c != '.' {
				return false
			}
		}
	}
	return name != "" && validPort(port)
}

// validBracketed reports whether s has the bytes of an IPv6 address.
func validBracketed(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isDigit(c) && c != ':' && c != '.' && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return len(s) >= 2
}

// validPort reports whether s is "" or ":" and 1–5 digits up to 65535.
func validPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) < 2 || len(s) > 6 {
		return false
	}
	n := 0
	for i := 1; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n <= 65535
}
