package formats

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// isClean makes sure that nothing is found in a text that is said to be clean, nor in its lines, each alone and with those
// behind it.
func isClean(t *testing.T, s *Set, text string) (clean bool) {
	t.Helper()
	if !s.Clean([]byte(text)) {
		return false
	}
	whole := func() int { return len(text) }
	for rest, more := text, true; more; _, rest, more = strings.Cut(rest, "\n") {
		line, _, _ := strings.Cut(rest, "\n")
		for _, text := range []string{line, rest} {
			if found := inPieces(s, text, whole); len(found) > 0 {
				t.Fatalf("%q in %q, which is said to be clean", found, text)
			}
		}
	}
	return true
}

// TestCleanHoldsNothing has texts that hold something and texts that nearly do, and each rule's example as a line, at a
// text's begin, and at its end.
func TestCleanHoldsNothing(t *testing.T) {
	s, rules := defaultSet(t), source(t)
	rnd := rand.New(rand.NewPCG(51, 52))
	clean := 0
	for range 4000 {
		if isClean(t, s, soup(t, s, rnd, rules, 1+rnd.IntN(6))) {
			clean++
		}
	}
	if clean < 500 {
		t.Errorf("%d texts of 4000 were clean: that shows little", clean)
	}
	for _, r := range rules {
		for seed := range uint64(3) {
			text, ok := example(t, s, r, seed)
			if !ok {
				t.Fatalf("no example for %s", r.ID)
			}
			written := []string{text}
			for _, e := range encodings {
				written = append(written, e.encode(text))
			}
			for _, text := range written {
				for _, around := range [][2]string{{"", ""}, {"Name\n", ""}, {"", "\nName\n"}, {"Name\nvalue\n", "\nName: value"}} {
					if s.Clean([]byte(around[0] + text + around[1])) {
						t.Errorf("%s: %q between %q is said to be clean", r.ID, text, around)
					}
				}
			}
		}
	}
}

// FuzzClean is TestCleanHoldsNothing for any text.
func FuzzClean(f *testing.F) {
	s := defaultSet(f)
	f.Add("Authorization\nkey = 'q7Xv2LmN9bT4sKd8WzR1yHc5JfGp3A'\nAccept")
	f.Add("gl" + "pat-1x2Y3z4W5v6U7t8S9r0Q")
	f.Add("Z2xwYXQt" + "MXgyWTN6NFc1djZVN3Q4UzlyMFE=\n676c7061742d317832")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) < 1<<12 {
			isClean(t, s, text)
		}
	})
}
