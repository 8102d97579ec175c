package http1

// What a byte is (RFC 9110 section 5.6.2), as bits of its entry in classes.
const (
	tokenByte = 1 << iota // it may stand in a token: a method or a field name
	upperByte             // an ASCII letter
	lowerByte
)

var classes = func() (of [256]uint8) {
	for c := range of {
		switch c := byte(c); {
		case isUpper(c):
			of[c] = tokenByte | upperByte
		case isLower(c):
			of[c] = tokenByte | lowerByte
		case isDigit(c):
			of[c] = tokenByte
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		of[c] = tokenByte
	}
	return of
}()

// isTokenByte reports whether c may stand in a token: a method or a field name.
func isTokenByte(c byte) bool { return classes[c]&tokenByte != 0 }

// isToken reports whether s is one token, which is not empty.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// isUpper and isLower are for ASCII letters alone.
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// equalFold compares ASCII text without regard to case. lower is in lower case.
func equalFold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if isUpper(c) {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// trimOWS removes optional white space, SP and HTAB, at both ends (RFC 9110 section 5.6.3).
func trimOWS(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// hasToken reports whether one of the comma-separated lists in values has the element token, which is in lower case
// (RFC 9110 section 5.6.1).
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for v != "" {
			var element string
			element, v = cutComma(v)
			if equalFold(trimOWS(element), token) {
				return true
			}
		}
	}
	return false
}

// cutComma splits v at its first comma.
func cutComma(v string) (element, rest string) {
	for i := range len(v) {
		if v[i] == ',' {
			return v[:i], v[i+1:]
		}
	}
	return v, ""
}

// eight is one byte, eight times.
const eight = 0x0101010101010101

// noControls reports whether s has no control byte, HTAB among them. It looks at eight bytes at once: a byte less than 32 borrows
// from the bit above it when 32 is taken away, and DEL is a byte that its own bits make 0.
func noControls(s string) bool {
	for ; len(s) >= 8; s = s[8:] {
		v := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		del := v ^ eight*0x7f
		if ((v-eight*' ')&^v|(del-eight)&^del)&(eight*0x80) != 0 {
			return false
		}
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}
