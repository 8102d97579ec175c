package routes

// PathError says why a request path was refused before it was matched.
type PathError struct {
	// Path is the raw path; it may hold any byte. Error quotes and shortens it.
	Path string
	// Reason is a short clause for a person.
	Reason string
}

// Error returns `path "x": reason`, with the path quoted and cut to 80 bytes.
func (e *PathError) Error() string { return "path " + quoted(e.Path) + ": " + e.Reason }

// maxPath bounds the paths that are looked at, in bytes.
const maxPath = 16 << 10

// CanonicalPath returns raw itself when it can be read in one way only, and a
// *PathError when a server might read it otherwise than a pattern does. raw is
// the path as it stands in the request target, without the query.
//
// Refused are: a path that does not begin with a slash, or is longer than
// 16 KB; dot segments, plain or encoded (RFC 3986 section 5.2.4); "//" inside
// it; backslash, "#", ";" and bytes that no path may hold (RFC 3986 section
// 3.3); a percent sign without two hexadecimal digits; encoded slash,
// backslash, ";", "?", "#", control bytes and a percent sign that begins
// another encoding; unreserved characters that are encoded (section 6.2.2.2).
// The case of hexadecimal digits is not looked at.
func CanonicalPath(raw string) (string, error) {
	if why := looseFault(raw); why != "" {
		return "", &PathError{raw, why}
	}
	if why := strictFault(raw); why != "" {
		return "", &PathError{raw, why}
	}
	return raw, nil
}

// looseFault returns why a path is refused even where no pattern is matched
// against it: what it names is another resource, or none, after the cleaning
// that RFC 3986 section 5.2.4 asks of everybody. An encoded slash stays, since
// registries and forges put whole names into one segment.
func looseFault(raw string) string {
	switch {
	case raw == "" || raw[0] != '/':
		return "it does not begin with a slash"
	case len(raw) > maxPath:
		return "it is longer than 16 KB"
	}
	dots, only := 0, true // of the segment so far: dots seen, nothing but dots
	for i := 1; i < len(raw); i++ {
		c := raw[i]
		if c <= ' ' || c >= 0x7f {
			return "it holds a space, a control byte or a byte beyond ASCII"
		}
		if c == '%' {
			d := -1
			if i+2 < len(raw) && unhex(raw[i+1]) >= 0 && unhex(raw[i+2]) >= 0 {
				d = unhex(raw[i+1])<<4 | unhex(raw[i+2])
			}
			if d < 0 {
				return "a percent sign is not followed by two hexadecimal digits"
			}
			c, i = byte(d), i+2
			if c < ' ' || c == 0x7f {
				return "it holds an encoded control byte"
			}
		} else if c == '#' || c == '?' || c == '\\' {
			return "it holds a character that ends or rewrites a path"
		}
		switch c {
		case '.':
			dots++
		case '/', '\\', ';':
			// After ";" a server that knows path parameters still sees the
			// dots as a segment of their own: "/..;/".
			if only && (dots == 1 || dots == 2) {
				return "it holds a dot segment"
			}
			dots, only = 0, c != ';'
		default:
			only = false
		}
	}
	if only && (dots == 1 || dots == 2) {
		return "it ends in a dot segment"
	}
	return ""
}

// strictFault returns what else makes a path ambiguous once patterns are
// matched against it. The path has passed looseFault.
func strictFault(raw string) string {
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '/' && i > 0 && raw[i-1] == '/':
			return "it holds an empty segment"
		case c == ';':
			return "it holds a path parameter"
		case c == '%':
			d := byte(unhex(raw[i+1])<<4 | unhex(raw[i+2]))
			if d == '/' || d == '\\' || d == ';' || d == '?' || d == '#' {
				return "it holds an encoded delimiter"
			}
			if unreserved(d) {
				return "it encodes a character that needs none"
			}
			if d == '%' && i+4 < len(raw) && unhex(raw[i+3]) >= 0 && unhex(raw[i+4]) >= 0 {
				return "it is encoded twice"
			}
			i += 2
		case c != '/' && !pchar(c):
			return "it holds a character that must be encoded"
		}
	}
	return ""
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == '.' || c == '_' || c == '~'
}

// pchar is RFC 3986 section 3.3 without "%" and without ";", which some
// servers cut a segment at.
func pchar(c byte) bool {
	switch c {
	case '!', '$', '&', '\'', '(', ')', '*', '+', ',', '=', ':', '@':
		return true
	}
	return unreserved(c)
}
