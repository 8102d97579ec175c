package pipelock

import "strings"

// contextBytes is how much an excerpt shows on either side of a token.
const contextBytes = 16

// excerpt returns what surrounds b[start:end], for a person who wants to know
// where it came from. The token is replaced, runs of six or more characters
// that tokens are made of are starred, and bytes that are not printable ASCII
// become dots.
func excerpt(b []byte, start, end int) string {
	before := b[max(0, start-contextBytes):start]
	after := b[end:min(len(b), end+contextBytes)]
	return soften(before) + "[REDACTED]" + soften(after)
}

func soften(b []byte) string {
	const longest = 5 // of a run that is shown
	out := make([]byte, 0, len(b))
	run := 0
	for i := 0; i <= len(b); i++ {
		if i < len(b) && tokenByte(b[i]) {
			run++
			continue
		}
		if run > longest {
			out = append(out, strings.Repeat("*", run)...)
		} else {
			out = append(out, b[i-run:i]...)
		}
		run = 0
		if i < len(b) {
			if b[i] < ' ' || b[i] >= 0x7f {
				out = append(out, '.')
			} else {
				out = append(out, b[i])
			}
		}
	}
	return string(out)
}

// tokenByte tells whether tokens, in any of their encodings, are made of c.
func tokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == '_' || c == '.' || c == '~' || c == '+' || c == '/' || c == '%' || c == '\\'
}
