package pipelock

import "strings"

// contextBytes is how much an excerpt shows on either side of a token.
const contextBytes = 16

// redacted stands in place of a token.
const redacted = "[REDACTED]"

// excerpt returns what surrounds b[start:end], for a person who wants to know
// where it came from. The token is replaced, what of other known tokens is
// beside it and runs of six or more characters that tokens are made of are
// starred, and bytes that are not printable ASCII become dots.
func (k *Known) excerpt(b []byte, start, end int) string {
	from, to := max(0, start-contextBytes), min(len(b), end+contextBytes)
	shown := k.hide(b, from, to)
	return soften(shown[:start-from]) + redacted + soften(shown[end-from:])
}

// hide returns a copy of b[from:to] in which every known token, the rest of one that began before and what may be the
// beginning of one that goes on behind b is starred.
func (k *Known) hide(b []byte, from, to int) []byte {
	low, high := max(0, from-k.set.Longest()), min(len(b), to+k.set.Longest())
	shown := append([]byte(nil), b[from:to]...)
	star := func(start, end int) {
		for i := max(start, from); i < min(end, to); i++ {
			shown[i-from] = '*'
		}
	}
	pending := k.set.Scan(b[low:high], func(start, end, _ int) bool {
		star(low+start, low+end)
		return true
	})
	star(low+pending, high)
	return shown
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
