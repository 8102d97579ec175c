package formats

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// reported is a finding as a test compares it.
func reported(f Finding) string {
	return fmt.Sprintf("%s %d %q note=%v %s", f.Rule, f.Offset, f.Text[f.From:f.To], f.Note, f.Encoding)
}

// inPieces returns the findings of a stream that gets text in the pieces that cut says, sorted.
func inPieces(s *Set, text string, cut func() int) []string {
	var out []string
	st := s.NewStream(Policy{})
	take := func(f Finding) { out = append(out, reported(f)) }
	for rest := []byte(text); len(rest) > 0; {
		n := min(max(cut(), 1), len(rest))
		st.Push(slices.Clone(rest[:n]), take)
		rest = rest[n:]
	}
	st.End(take)
	slices.Sort(out)
	return out
}

// soup is text of secrets, halves of secrets, and what rules look at.
func soup(t testing.TB, s *Set, rnd *rand.Rand, rules []ruleTOML, parts int) string {
	var b strings.Builder
	bits := []string{
		"key=", "api_key: ", `"token": "`, "secret", "auth", "\n", " ", `"`, "'", "-----BEGIN RSA PRIVATE KEY-----", "KEY-----",
		"curl -u user:", "eyJ", ".ey", "sk", "SK", "s.", "=", ":", `\n`, "xoxb-12345678901-", "\xff", "é", "password = \"hunter2hunter2\"",
	}
	for range parts {
		switch rnd.IntN(8) {
		case 0:
			text, _ := example(t, s, rules[rnd.IntN(len(rules))], rnd.Uint64N(3))
			b.WriteString(text)
		case 1:
			text, _ := example(t, s, rules[rnd.IntN(len(rules))], rnd.Uint64N(3))
			b.WriteString(text[:rnd.IntN(len(text)+1)])
		case 2:
			for range rnd.IntN(60) {
				b.WriteByte("abcdefABCDEF0123456789+/=_-."[rnd.IntN(28)])
			}
		case 3:
			text, _ := example(t, s, rules[rnd.IntN(len(rules))], rnd.Uint64N(3))
			b.WriteString(encodings[rnd.IntN(len(encodings))].encode(bits[rnd.IntN(len(bits))] + text + bits[rnd.IntN(len(bits))]))
		default:
			b.WriteString(bits[rnd.IntN(len(bits))])
		}
	}
	return b.String()
}

// TestChunksDoNotMatter holds a stream in pieces against the same in one piece.
func TestChunksDoNotMatter(t *testing.T) {
	s, rules := defaultSet(t), source(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	total := 0
	for range 60 {
		text := soup(t, s, rnd, rules, 5+rnd.IntN(60))
		want := inPieces(s, text, func() int { return len(text) })
		total += len(want)
		for name, cut := range map[string]func() int{
			"bytes":  func() int { return 1 },
			"sevens": func() int { return 7 },
			"random": func() int { return 1 + rnd.IntN(200) },
			"long":   func() int { return 1 + rnd.IntN(5000) },
		} {
			if got := inPieces(s, text, cut); !slices.Equal(got, want) {
				t.Fatalf("%s: %d findings, in one piece %d\n got %q\nwant %q\ntext %q", name, len(got), len(want), got, want, text)
			}
		}
	}
	if total < 200 {
		t.Errorf("%d findings in all: the texts are too clean to show anything", total)
	}
}

// TestHeldBack cuts each example at every offset and makes sure that the whole secret is never let go before it is found.
func TestHeldBack(t *testing.T) {
	s := defaultSet(t)
	late := map[string]bool{}
	for _, r := range source(t) {
		text, _ := example(t, s, r, 0)
		var at Finding
		value := ""
		s.Scan([]byte(text), Policy{}, func(f Finding) {
			if f.Rule == r.ID && value == "" {
				at, value = f, string(f.Text[f.From:f.To])
			}
		})
		if at.Note {
			continue
		}
		for cut := 1; cut < len(text); cut++ {
			st := s.NewStream(s.Policy(nil, false))
			seen := false
			take := func(f Finding) { seen = seen || f.Rule == r.ID }
			free := st.Push([]byte(text[:cut]), take)
			already := seen
			st.Push([]byte(text[cut:]), take)
			st.End(take)
			if !seen {
				t.Fatalf("%s: missed when cut at %d in %q", r.ID, cut, text)
			}
			// What may be gone is what is before the keyword, and a part of the keyword.
			if gone := free - at.Offset; !already && !advisory(r.ID) && gone > int64(len(value))*3/4 && gone > 8 {
				late[r.ID] = true
			}
		}
	}
	// The only literal of this one's form is at its end, and nothing is held back on suspicion alone.
	if want := map[string]bool{"maxmind-license-key": true}; !maps.Equal(late, want) {
		t.Errorf("most of the secret may be let go for %v, want %v", late, want)
	}
}

// FuzzChunks cuts any text in two ways.
func FuzzChunks(f *testing.F) {
	s := defaultSet(f)
	f.Add("key = 'q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3A'; api=token=auth=", uint64(3))
	f.Add("gl"+"pat-1x2Y3z4W5v6U7t8S9r0Q", uint64(1))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		if len(text) > 1<<15 {
			return
		}
		rnd := rand.New(rand.NewPCG(seed, 9))
		want := inPieces(s, text, func() int { return len(text) })
		if got := inPieces(s, text, func() int { return 1 + rnd.IntN(40) }); !slices.Equal(got, want) {
			t.Fatalf("got %q\nwant %q", got, want)
		}
	})
}

// FuzzExpression holds what a rule of any expression finds in a text in ASCII against the expression itself.
func FuzzExpression(f *testing.F) {
	f.Add(`\bacme_([a-z0-9]{4,8})\b`, "acme_12345 xacme_aaaaaaa acme_0000")
	f.Add(`(?i)key.{0,5}?=(a|ab)(c|bcd)(d*)$`, "KEY  =abcd")
	f.Add(`x?ab[0-9]{2,}?z|^cd{3}e+`, "xab123z\ncddde xab00z")
	f.Add(`0*00`, "000")
	f.Fuzz(func(t *testing.T, expression, text string) {
		if len(expression) > 60 || len(text) > 300 || strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 }) {
			return
		}
		re, err := regexp.Compile(expression)
		if err != nil {
			return
		}
		b := &builder{file: &file{}}
		b.add(ruleTOML{ID: "own", Regex: expression})
		s, err := b.finish()
		if err != nil {
			return // there is nothing in it to look for
		}
		found := 0
		s.Scan([]byte(text), Policy{}, func(f Finding) {
			if f.Encoding != "" {
				return
			}
			found++
			if !matches(re, text, int(f.Offset), string(f.Text[f.From:f.To])) {
				t.Fatalf("%q finds %q at %d of %q", expression, f.Text[f.From:f.To], f.Offset, text)
			}
		})
		if found == 0 && re.MatchString(text) {
			t.Fatalf("%q finds nothing in %q", expression, text)
		}
	})
}

// matches tells whether a match of re, wherever it begins, has the secret at the offset: the first group that is not empty,
// or the whole. Of an expression without groups any match will do, be it not the one that the library prefers: what a rule
// begins with and may leave out is not looked for, so that 0*00 finds the first two of three zeros.
func matches(re *regexp.Regexp, text string, offset int, secret string) bool {
	if re.NumSubexp() == 0 {
		after := len(text) - offset - len(secret)
		exact, err := regexp.Compile(fmt.Sprintf(`\A(?s:.{%d})(?:%s)(?s:.{%d})\z`, offset, re, after))
		return err != nil || exact.MatchString(text)
	}
	for from := 0; from <= len(text); from++ {
		// What is before is there for the assertions, and matched by nothing else.
		whole, err := regexp.Compile(fmt.Sprintf(`\A(?s:.{%d})(?:%s)`, from, re))
		if err != nil {
			return true // of the library's limits
		}
		at := whole.FindStringSubmatchIndex(text)
		if at == nil {
			continue
		}
		lo, hi := from, at[1]
		for g := 2; g < len(at); g += 2 {
			if at[g] >= 0 && at[g] < at[g+1] {
				lo, hi = at[g], at[g+1]
				break
			}
		}
		if lo == offset && text[lo:hi] == secret {
			return true
		}
	}
	return false
}

// FuzzRules compiles any rule file, and scans with what comes of it.
func FuzzRules(f *testing.F) {
	f.Add("[[rules]]\nid = \"a\"\nregex = '''acme_[a-z]{8}'''\nkeywords = [\"acme_\"]\n")
	f.Add("[[rules]]\nid = \"b\"\nregex = '''(?i)x{2,}?|y'''\n[allowlist]\nstopwords=[\"a\"]\nregexes=[\"(\"]\n")
	f.Fuzz(func(t *testing.T, text string) {
		own, err := parseFile("fuzz", []byte(text))
		if err != nil {
			return
		}
		b := &builder{}
		b.from("fuzz", own)
		for _, r := range own.Rules {
			if len(r.Regex) > 200 {
				return
			}
			b.add(r)
		}
		s, err := b.finish()
		if err != nil {
			return
		}
		s.Scan([]byte("acme_abcdefgh and others "+text), Policy{}, func(f Finding) { _ = f.Text[f.From:f.To] })
	})
}
