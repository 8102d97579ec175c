package routes

import (
	"errors"
	"strings"
	"testing"
)

func TestCanonicalHost(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	name253 := strings.Repeat(label63+".", 3) + strings.Repeat("b", 61)
	for _, c := range []struct{ in, want string }{
		{"api.example.org", "api.example.org"},
		{"API.Example.ORG", "api.example.org"},
		{"_dmarc.example.org", "_dmarc.example.org"},
		{"a-b.c--d.xn--bcher-kva.example", "a-b.c--d.xn--bcher-kva.example"},
		{"1.2.3.4.example", "1.2.3.4.example"},
		{"10.example", "10.example"},
		{"a.0xg", "a.0xg"},
		{label63 + ".test", label63 + ".test"},
		{name253, name253},
	} {
		if got, err := CanonicalHost(c.in); err != nil || got != c.want {
			t.Errorf("CanonicalHost(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestCanonicalHostRefuses(t *testing.T) {
	label64 := strings.Repeat("a", 64)
	for name, in := range map[string]string{
		"empty":             "",
		"no dot":            "localhost",
		"trailing dot":      "example.org.",
		"leading dot":       ".example.org",
		"two dots":          "example..org",
		"only dots":         "..",
		"long label":        label64 + ".test",
		"254 bytes":         strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 62),
		"NUL":               "good.test\x00.evil.test",
		"CR LF":             "good.test\r\nX: y",
		"space":             "good.test ",
		"tab":               "\tgood.test",
		"port":              "good.test:443",
		"userinfo":          "user@good.test",
		"slash":             "good.test/",
		"backslash":         `good\test.org`,
		"percent":           "good%2etest.org",
		"comma":             "good.test,evil.test",
		"wildcard":          "*.good.test",
		"non-ASCII":         "bücher.example",
		"fullwidth dot":     "good。test",
		"kelvin sign":       "api.\u212aample.org",
		"DEL":               "good.test\x7f",
		"hyphen first":      "-a.test",
		"hyphen last":       "a-.test",
		"IPv4":              "127.0.0.1",
		"IPv4 short":        "127.1",
		"IPv4 number":       "2130706433",
		"IPv4 octal":        "0177.0.0.01",
		"IPv4 hex":          "0x7f.1",
		"IPv4 hex last":     "127.0x1",
		"IPv4 hex caps":     "127.0X1",
		"IPv4 bare 0x":      "127.0x",
		"IPv4 out of range": "999.999.999.999",
		"number last":       "example.123",
		"IPv6":              "::1",
		"IPv6 brackets":     "[::1]",
		"IPv6 mapped":       "::ffff:127.0.0.1",
		"IPv6 zone":         "fe80::1%eth0",
	} {
		got, err := CanonicalHost(in)
		var ne *NameError
		if !errors.As(err, &ne) || got != "" {
			t.Errorf("%s: CanonicalHost(%q) = %q, %v; want a NameError", name, in, got, err)
			continue
		}
		if ne.Name != in || ne.Reason == "" {
			t.Errorf("%s: error %+v does not carry name and reason", name, ne)
		}
		if strings.ContainsAny(err.Error(), "\r\n\x00\x7f") || len(err.Error()) > 500 {
			t.Errorf("%s: error text holds what it was given: %q", name, err.Error())
		}
	}
}

func TestCanonicalPattern(t *testing.T) {
	for in, want := range map[string]string{
		"API.example.org": "api.example.org",
		"*.Example.org":   "*.example.org",
		"*.test":          "*.test",
		"*.a.b.c":         "*.a.b.c",
	} {
		if got, err := CanonicalPattern(in); err != nil || got != want {
			t.Errorf("CanonicalPattern(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "*", "*.", "**.example.org", "a*.example.org", "*a.example.org", "a.*.example.org", "*.*.example.org",
		"*.1", "*.127.0.0.1", "*.example.org.", "*.exa mple.org", "*..example.org", "*.-a.test",
	} {
		got, err := CanonicalPattern(in)
		var ne *NameError
		if !errors.As(err, &ne) || ne.Name != in {
			t.Errorf("CanonicalPattern(%q) = %q, %v; want a NameError for it", in, got, err)
		}
	}
}

// FuzzCanonicalHost checks that whatever comes out is a fixed point and
// nothing but LDH and underscore, and that one letter's case decides nothing.
func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"api.example.org", "API.example.org", "0x7f.1", "a..b", "*.a.b", "a.b\x00", "::1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := CanonicalHost(s)
		if err != nil {
			if got != "" {
				t.Fatalf("%q: error and result %q", s, got)
			}
			_ = err.Error()
			return
		}
		if again, err := CanonicalHost(got); err != nil || again != got {
			t.Fatalf("%q: %q is no fixed point: %q, %v", s, got, again, err)
		}
		if up, err := CanonicalHost(strings.ToUpper(s)); err != nil || up != got {
			t.Fatalf("%q: upper case gives %q, %v", s, up, err)
		}
		if strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || len(got) > 253 || !strings.Contains(got, ".") {
			t.Fatalf("%q: result %q", s, got)
		}
		if _, err := CanonicalPattern("*." + s); err != nil && len(s) <= 251 {
			t.Fatalf("%q is a host but *. in front of it is refused: %v", s, err)
		}
	})
}
