package formats

import (
	"hash/crc32"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// checksum62 is the checksum of GitHub's tokens, worked out in another way than the code does.
func checksum62(body string) string {
	out := make([]byte, 0, 6)
	for n := uint64(crc32.ChecksumIEEE([]byte(body))); len(out) < 6; n /= 62 {
		d := byte(n % 62)
		switch {
		case d < 10:
			d += '0'
		case d < 36:
			d += 'A' - 10
		default:
			d += 'a' - 36
		}
		out = append(out, d)
	}
	slices.Reverse(out)
	return string(out)
}

// found returns the ids of the rules with findings in text.
func found(s *Set, text string) []string {
	var ids []string
	s.Scan([]byte(text), Policy{}, func(f Finding) {
		if !slices.Contains(ids, f.Rule) {
			ids = append(ids, f.Rule)
		}
	})
	return ids
}

// TestEveryRuleDetects generates true examples for each rule and looks for them.
func TestEveryRuleDetects(t *testing.T) {
	s := defaultSet(t)
	var without []string
	examples, misses := 0, 0
	for _, r := range source(t) {
		for seed := range uint64(5) {
			text, ok := example(t, s, r, seed)
			if !ok {
				without = append(without, r.ID)
				break
			}
			examples++
			if !slices.Contains(found(s, text), r.ID) {
				misses++
				t.Errorf("%s is missed in %q", r.ID, text)
			}
		}
	}
	t.Logf("%d examples of %d rules, %d missed; no example could be made for %q", examples, len(source(t))-len(without), misses, without)
	if len(without) > 0 {
		t.Errorf("no example for %q", without)
	}
}

// TestNothingIsMissed holds the scan of texts full of halves, repetitions and overlaps against every rule's own expression,
// tried the slow way.
func TestNothingIsMissed(t *testing.T) {
	s, rules := defaultSet(t), source(t)
	rnd := rand.New(rand.NewPCG(11, 12))
	total := 0
	for range 12 {
		text := soup(t, s, rnd, rules, 30)
		got := found(s, text)
		for _, r := range rules {
			if nearby(r) != "" { // it needs a keyword close by, which its expression does not know
				continue
			}
			if !reference(s, r.ID, regexp.MustCompile(r.Regex), r.SecretGroup, text) {
				continue
			}
			total++
			if !slices.Contains(got, r.ID) {
				t.Errorf("%s is missed in %q", r.ID, text)
			}
		}
	}
	if total < 50 {
		t.Errorf("%d rules had findings in all: the texts are too clean to show anything", total)
	}
}

// TestLaterStart has matches that begin over each other, of which the first is too long.
func TestLaterStart(t *testing.T) {
	s, err := compileOwn(`[[rules]]
id = "acme"
regex = '''acme[a-z_]*=([a-z0-9=_]{10,150})(?:;|$)'''
keywords = ["acme"]
`)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	for n := 20; n < 400; n += 7 {
		var b strings.Builder
		for range n {
			b.WriteByte("abcdefghij0123456789"[rnd.IntN(20)])
		}
		run := b.String()
		text := "acme=" + run[:n*2/3] + "acme_=acme=" + run[n*2/3:] + ";"
		want := regexp.MustCompile(`acme[a-z_]*=([a-z0-9=_]{10,150})(?:;|$)`).MatchString(text)
		if got := len(found(s, text)) > 0; got != want {
			t.Errorf("%d bytes: found = %v, want %v", n, got, want)
		}
	}
}
