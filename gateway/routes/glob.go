package routes

import "strings"

// ValidatePathPattern returns nil when p is a path pattern, and a *PathError
// otherwise. A pattern begins with a slash and is a canonical path (see
// CanonicalPath) in which "*" stands for any run of characters within one
// segment and a segment "**" for any number of whole segments, none included;
// "**" beside other characters in one segment is refused, as are patterns of
// more than 1,024 bytes.
func ValidatePathPattern(p string) error {
	if len(p) > maxPattern {
		return &PathError{p, "a pattern is at most 1,024 bytes"}
	}
	if _, err := CanonicalPath(p); err != nil {
		return err
	}
	for _, seg := range strings.Split(p[1:], "/") {
		if strings.Contains(seg, "**") && seg != "**" {
			return &PathError{p, `"**" must be a whole segment; write "/**" or a single "*"`}
		}
	}
	return nil
}

const maxPattern = 1024

// pathPattern is one compiled pattern. Matching takes time proportional to
// the path's length times the pattern's, and never backtracks further than the
// last star: each level keeps one point to return to.
type pathPattern struct {
	segments []string // "**" stands for itself
}

func compilePattern(p string) pathPattern {
	return pathPattern{segments: strings.Split(upperHex(p)[1:], "/")}
}

// match tells whether a canonical path, split by splitPath, fits the pattern.
func (p pathPattern) match(path []string) bool {
	pi, si := 0, 0       // next pattern segment, next path segment
	star, mark := -1, 0  // last "**" seen, path segment it has eaten up to
	for si < len(path) { // the same greedy walk that segmentMatch does on bytes
		switch {
		case pi < len(p.segments) && p.segments[pi] == "**":
			star, mark = pi, si
			pi++
		case pi < len(p.segments) && segmentMatch(p.segments[pi], path[si]):
			pi++
			si++
		case star >= 0:
			mark++
			pi, si = star+1, mark
		default:
			return false
		}
	}
	for pi < len(p.segments) && p.segments[pi] == "**" {
		pi++
	}
	return pi == len(p.segments)
}

// segmentMatch matches one segment against a pattern in which "*" stands for
// any run of bytes.
func segmentMatch(pattern, s string) bool {
	pi, si := 0, 0
	star, mark := -1, 0
	for si < len(s) {
		switch {
		case pi < len(pattern) && pattern[pi] == '*':
			star, mark = pi, si
			pi++
		case pi < len(pattern) && pattern[pi] == s[si]:
			pi++
			si++
		case star >= 0:
			mark++
			pi, si = star+1, mark
		default:
			return false
		}
	}
	for pi < len(pattern) && pattern[pi] == '*' {
		pi++
	}
	return pi == len(pattern)
}

// splitPath cuts a canonical path into segments for pathPattern.match.
func splitPath(path string) []string { return strings.Split(upperHex(path)[1:], "/") }

// upperHex gives every percent-encoding upper-case digits, which name the
// same byte (RFC 3986 section 6.2.2.1). It returns s itself when there is
// nothing to change. s has passed looseFault.
func upperHex(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			b[i+1], b[i+2] = upper(b[i+1]), upper(b[i+2])
			i += 2
		}
	}
	return string(b)
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - 'a' + 'A'
	}
	return c
}
