package routes

import "strings"

// Limits of RFC 1035 section 2.3.4, in bytes, for names without the trailing dot.
const (
	maxName  = 253
	maxLabel = 63
)

// NameError says why a string is not a canonical DNS name or pattern.
type NameError struct {
	// Name is the string as it was given. It may hold any byte and be of any
	// length; Error quotes and shortens it.
	Name string
	// Reason is a short clause for a person, such as "label is empty".
	Reason string
}

// Error returns `name "x": reason`, with the name quoted and cut to 80 bytes.
func (e *NameError) Error() string { return "name " + quoted(e.Name) + ": " + e.Reason }

// CanonicalHost is the one judge of host names, whoever they come from: a
// manifest, a ClientHello, a DNS question, a Host header. It takes ASCII
// letters, digits, hyphens and underscores in two or more labels of 1 to 63
// bytes, 253 in all, and returns them in lower case. Everything else is a
// *NameError: other bytes (an internationalised name must be given as its
// A-label, RFC 5890), a trailing dot, a port, a label that begins or ends with
// a hyphen (RFC 1123 section 2.1), a wildcard, and IP addresses in any
// spelling that inet_aton or a URL parser takes, that is every name whose last
// label is a number.
func CanonicalHost(s string) (string, error) {
	if why := nameFault(s); why != "" {
		return "", &NameError{s, why}
	}
	return strings.ToLower(s), nil
}

// nameFault returns why a string is no name that CanonicalHost takes, or "".
func nameFault(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case len(s) > maxName:
		return "it is longer than 253 bytes"
	case s[len(s)-1] == '.':
		return "it ends in a dot; leave the dot out"
	}
	labels := 0
	for rest, more := s, true; more; labels++ {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if why := labelFault(label); why != "" {
			return why
		}
		if !more && isNumber(label) {
			return "it is an IP address or ends in a number; write a host name"
		}
	}
	if labels < 2 {
		return "it has no dot; write the full name"
	}
	return ""
}

// CanonicalPattern returns a route's host in canonical form: an exact name as
// CanonicalHost takes it, or "*." and a name of one or more labels, where the
// asterisk stands for one or more whole labels. It returns a *NameError for
// everything else, the bare "*" included.
func CanonicalPattern(s string) (string, error) {
	suffix, wild := strings.CutPrefix(s, "*.")
	if !wild {
		if strings.Contains(s, "*") {
			return "", &NameError{s, `a wildcard is a whole first label; write "*.example.org"`}
		}
		return CanonicalHost(s)
	}
	if strings.Contains(suffix, "*") {
		return "", &NameError{s, `only the first label may be a wildcard; write "*.example.org"`}
	}
	// A label in front makes a one-label suffix pass the two-label rule, and
	// keeps the whole within the limit for any name that it could match.
	if why := nameFault("w." + suffix); why != "" {
		return "", &NameError{s, why}
	}
	return "*." + strings.ToLower(suffix), nil
}

// labelFault returns why one label is not LDH-or-underscore, or "".
func labelFault(label string) string {
	switch {
	case label == "":
		return "a label is empty"
	case len(label) > maxLabel:
		return "a label is longer than 63 bytes"
	case label[0] == '-' || label[len(label)-1] == '-':
		return "a label begins or ends with a hyphen"
	}
	for i := 0; i < len(label); i++ {
		switch c := label[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == ':':
			return "it holds a colon; give the port apart from the host"
		case c >= 0x80:
			return "it holds bytes beyond ASCII; write the A-label (xn--…)"
		default:
			return "it holds a byte that is no letter, digit, hyphen or underscore"
		}
	}
	return ""
}

// isNumber tells whether a last label makes the whole name an IPv4 address to
// some parser: all digits, or 0x and hexadecimal digits (the "ends in a
// number" rule of the URL Standard, section 3.5).
func isNumber(label string) bool {
	digits := label
	hex := len(label) >= 2 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X')
	if hex {
		digits = label[2:]
	}
	for i := 0; i < len(digits); i++ {
		c := digits[i]
		decimal := '0' <= c && c <= '9'
		if !decimal && (!hex || unhex(c) < 0) {
			return false
		}
	}
	return true
}
