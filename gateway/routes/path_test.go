package routes

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"
)

func TestCanonicalPath(t *testing.T) {
	for _, p := range []string{
		"/", "/a", "/a/", "/a/b.c", "/a/.hidden", "/a/..b", "/a/b..", "/a/...", "/repos/x_y/~z",
		"/v1/models:list", "/@scope/name", "/a%20b", "/%C3%A9", "/%c3%a9", "/a%2Cb", "/a=b&c", "/100%25", "/a+b",
	} {
		if got, err := CanonicalPath(p); err != nil || got != p {
			t.Errorf("CanonicalPath(%q) = %q, %v; want itself", p, got, err)
		}
	}
}

// Each path is refused where patterns are matched; loose tells whether a
// route without patterns lets it through all the same.
var refusedPaths = []struct {
	name, path string
	loose      bool
}{
	{"empty", "", false},
	{"no slash", "a/b", false},
	{"absolute form", "http://good.test/a", false},
	{"asterisk", "*", false},
	{"dot", "/a/./b", false},
	{"dot dot", "/a/../b", false},
	{"dot at the end", "/a/.", false},
	{"dot dot at the end", "/a/..", false},
	{"only dots", "/..", false},
	{"encoded dots", "/a/%2e%2e/b", false},
	{"half encoded dots", "/a/.%2E/b", false},
	{"encoded single dot", "/a/%2e/b", false},
	{"dots before an encoded slash", "/a/..%2fb", false},
	{"dots after an encoded slash", "/a%2f../b", false},
	{"all encoded", "/a%2f%2e%2e%2fb", false},
	{"dots before a backslash", `/a/..\b`, false},
	{"dots before an encoded backslash", "/a/..%5cb", false},
	{"dots with parameter", "/a/..;x=y/b", false},
	{"dots with encoded parameter", "/a/..%3bx/b", false},
	{"dots with empty parameter at the end", "/a/..;", false},
	{"backslash", `/a\b`, false},
	{"fragment", "/a#b", false},
	{"question mark", "/a?b", false},
	{"NUL", "/a\x00b", false},
	{"encoded NUL", "/a%00b", false},
	{"encoded CR", "/a%0db", false},
	{"encoded LF", "/a%0Ab", false},
	{"encoded DEL", "/a%7fb", false},
	{"CR LF", "/a\r\nX: y", false},
	{"tab", "/a\tb", false},
	{"space", "/a b", false},
	{"high byte", "/caf\xc3\xa9", false},
	{"percent alone", "/a%", false},
	{"percent one digit", "/a%2", false},
	{"percent no hex", "/a%zz", false},
	{"percent u", "/a%u002e", false},
	{"too long", "/" + strings.Repeat("a", 16<<10), false},
	{"encoded slash", "/@scope%2fname", true},
	{"encoded backslash", "/a%5Cb", true},
	{"empty segment", "/a//b", true},
	{"empty segments at the end", "/a//", true},
	{"two slashes first", "//a", true},
	{"parameter", "/a;x=y/b", true},
	{"encoded parameter", "/a%3Bx", true},
	{"encoded question mark", "/a%3Fb", true},
	{"encoded fragment", "/a%23b", true},
	{"encoded letter", "/%61", true},
	{"encoded tilde", "/%7Euser", true},
	{"encoded hyphen", "/a%2Db", true},
	{"encoded twice", "/a/%252e%252e/b", true},
	{"pipe", "/a|b", true},
	{"quote", `/a"b`, true},
	{"angle", "/a<b>", true},
}

func TestCanonicalPathRefuses(t *testing.T) {
	for _, c := range refusedPaths {
		got, err := CanonicalPath(c.path)
		var pe *PathError
		if !errors.As(err, &pe) || got != "" || pe.Path != c.path {
			t.Errorf("%s: CanonicalPath(%q) = %q, %v; want a PathError", c.name, c.path, got, err)
			continue
		}
		if strings.ContainsAny(err.Error(), "\r\n\x00") || len(err.Error()) > 400 {
			t.Errorf("%s: error text holds what it was given: %q", c.name, err.Error())
		}
		if loose := looseFault(c.path) == ""; loose != c.loose {
			t.Errorf("%s: passes without patterns: %v, want %v", c.name, loose, c.loose)
		}
	}
}

func TestPathPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern    string
		match, not []string
	}{
		{"/", []string{"/"}, []string{"/a"}},
		{"/a", []string{"/a"}, []string{"/", "/a/", "/b", "/ab", "/A", "/a/b"}},
		{"/a/", []string{"/a/"}, []string{"/a", "/a/b"}},
		{"/a/*", []string{"/a/b", "/a/"}, []string{"/a", "/a/b/c"}},
		{"/a/*.json", []string{"/a/b.json", "/a/.json"}, []string{"/a/b.jsonx", "/a/b/c.json"}},
		{"/a/x*y*z", []string{"/a/xyz", "/a/x1y2z", "/a/xyyzz"}, []string{"/a/xzy", "/a/xy"}},
		{"/**", []string{"/", "/a", "/a/b/c", "/a/"}, nil},
		{"/a/**", []string{"/a", "/a/", "/a/b", "/a/b/c"}, []string{"/ab", "/b/a"}},
		{"/**/c", []string{"/c", "/a/c", "/a/b/c", "/c/c"}, []string{"/a/c/d", "/ac"}},
		{"/a/**/b/**/c", []string{"/a/b/c", "/a/x/b/y/z/c", "/a/b/b/c/c"}, []string{"/a/c", "/a/x/y/c", "/b/c"}},
		{"/repos/*/*/issues", []string{"/repos/o/r/issues"}, []string{"/repos/o/issues", "/repos/o/r/x/issues"}},
		{"/caf%c3%a9", []string{"/caf%C3%A9", "/caf%c3%a9"}, []string{"/caf%C3%A8"}},
		{"/v1/x:*", []string{"/v1/x:list", "/v1/x:"}, []string{"/v1/x"}},
	} {
		if err := ValidatePathPattern(c.pattern); err != nil {
			t.Errorf("pattern %q: %v", c.pattern, err)
			continue
		}
		p := compilePattern(c.pattern)
		for _, s := range c.match {
			if !p.match(splitPath(s)) {
				t.Errorf("%q does not match %q", c.pattern, s)
			}
		}
		for _, s := range c.not {
			if p.match(splitPath(s)) {
				t.Errorf("%q matches %q", c.pattern, s)
			}
		}
	}
}

func TestPathPatternsRefused(t *testing.T) {
	for _, p := range []string{
		"", "a", "**", "/a**", "/**a", "/a/***", "/a/../b", "/a//b", "/a?b", "/a#b", "/a b", "/a%2fb", "/é", "/a;b", "/[ab]",
		"/" + strings.Repeat("a", 1024),
	} {
		var pe *PathError
		if err := ValidatePathPattern(p); !errors.As(err, &pe) {
			t.Errorf("pattern %q: %v, want a PathError", p, err)
		}
	}
}

// TestMatchingIsLinear runs the patterns that make a backtracking matcher
// take ages. The bound is generous; a backtracking one would not end.
func TestMatchingIsLinear(t *testing.T) {
	begin := time.Now()
	deep := compilePattern("/" + strings.Repeat("**/a/", 100) + "z")
	if deep.match(splitPath("/" + strings.Repeat("a/", 8000) + "b")) {
		t.Error("matched")
	}
	wide := compilePattern("/" + strings.Repeat("a*", 500) + "z")
	if wide.match(splitPath("/" + strings.Repeat("a", 16000) + "b")) {
		t.Error("matched")
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

// FuzzCanonicalPath checks that a path which is called canonical is one: the
// standard library's cleaning leaves its decoded form alone, and so it does
// after every mutation that servers are known to make.
func FuzzCanonicalPath(f *testing.F) {
	for _, c := range refusedPaths {
		f.Add(c.path)
	}
	f.Add("/a/b%20c")
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := CanonicalPath(raw)
		if err != nil {
			_ = err.Error()
			return
		}
		if got != raw {
			t.Fatalf("%q became %q", raw, got)
		}
		decoded, err := url.PathUnescape(raw)
		if err != nil {
			t.Fatalf("%q does not decode: %v", raw, err)
		}
		cut, _, _ := strings.Cut(decoded, ";")
		for _, form := range []string{raw, decoded, strings.ReplaceAll(decoded, `\`, "/"), cut} {
			want := form
			if len(want) > 1 {
				want = strings.TrimSuffix(want, "/")
			}
			if path.Clean(form) != want {
				t.Fatalf("%q: form %q is cleaned to %q", raw, form, path.Clean(form))
			}
		}
		if strings.Count(decoded, "/") != strings.Count(raw, "/") {
			t.Fatalf("%q: decoding changes the segments", raw)
		}
		if len(raw) <= maxPattern && !strings.Contains(raw, "**") {
			if err := ValidatePathPattern(raw); err != nil {
				t.Fatalf("%q is no pattern: %v", raw, err)
			}
			if !compilePattern(raw).match(splitPath(raw)) {
				t.Fatalf("%q does not match itself", raw)
			}
		}
	})
}

// FuzzGlob compares matching with a naive recursive matcher on short inputs.
func FuzzGlob(f *testing.F) {
	f.Add("/a/**/b", "/a/x/b")
	f.Add("/*a*b", "/xaab")
	f.Add("/**/*", "/")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 24 || len(s) > 24 || ValidatePathPattern(pattern) != nil {
			return
		}
		if _, err := CanonicalPath(s); err != nil {
			return
		}
		want := slowMatch(strings.Split(upperHex(pattern)[1:], "/"), splitPath(s))
		if got := compilePattern(pattern).match(splitPath(s)); got != want {
			t.Fatalf("%q against %q: %v, want %v", s, pattern, got, want)
		}
	})
}

func slowMatch(pattern, path []string) bool {
	if len(pattern) == 0 {
		return len(path) == 0
	}
	if pattern[0] == "**" {
		return slowMatch(pattern[1:], path) || len(path) > 0 && slowMatch(pattern, path[1:])
	}
	return len(path) > 0 && slowSegment(pattern[0], path[0]) && slowMatch(pattern[1:], path[1:])
}

func slowSegment(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	if pattern[0] == '*' {
		return slowSegment(pattern[1:], s) || s != "" && slowSegment(pattern, s[1:])
	}
	return s != "" && s[0] == pattern[0] && slowSegment(pattern[1:], s[1:])
}
