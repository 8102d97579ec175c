package http1

// The bytes of a token as a bit mask (RFC 9110 section 5.6.2).
const (
	tokenLow = 0 |
		(1<<10-1)<<'0' |
		1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.'
	tokenHigh = 0 |
		(1<<26-1)<<('a'-64) | (1<<26-1)<<('A'-64) |
		1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64)
)

// isTokenByte reports whether c may stand in a token: a method or a field name.
func isTokenByte(c byte) bool {
	if c < 64 {
		return uint64(tokenLow)>>c&1 != 0
	}
	return c < 128 && uint64(tokenHigh)>>(c-64)&1 != 0
}

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
