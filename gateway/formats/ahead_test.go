package formats

import (
	"math/rand/v2"
	"testing"
)

// TestAheadRefusesNoMatch follows the automaton wherever the bytes behind a literal were refused: it finds no match there.
func TestAheadRefusesNoMatch(t *testing.T) {
	s, rules := defaultSet(t), source(t)
	rnd := rand.New(rand.NewPCG(41, 42))
	refused, taken := 0, 0
	for range 60 {
		text := []byte(soup(t, s, rnd, rules, 60))
		eachEnding(s, text, func(e *ending, end int) {
			if !e.ahead.refuses(text[end:]) {
				taken++
				return
			}
			refused++
			for back := e.from; back >= e.to && int(back) <= end; back-- {
				at := end - int(back)
				before := atEdge
				if at > 0 {
					before = kindOf(text[at-1])
				}
				m := s.rules[e.rule].machine
				state := m.start(before)
				for n, c := range text[at:] {
					if state = m.make(state, int(m.classes[c])); state.matched {
						t.Fatalf("%s: %q is refused behind %q, and matches", s.rules[e.rule].id, text[end:at+n], text[at:end])
					}
					if state.dead {
						break
					}
				}
				if !state.dead && m.end(state).matched {
					t.Fatalf("%s: %q is refused behind %q, and matches at the end", s.rules[e.rule].id, text[end:], text[at:end])
				}
			}
		})
	}
	t.Logf("%d refused, %d not", refused, taken)
	if refused < 1000 || taken < 1000 {
		t.Errorf("%d refused, %d not: the texts do not show anything", refused, taken)
	}
}

// eachEnding calls f for every literal that ends in text, with the offset behind it.
func eachEnding(s *Set, text []byte, f func(e *ending, end int)) {
	state := uint16(0)
	for i, c := range text {
		if state = s.keywords.next[state+uint16(s.keywords.class[c])]; state >= accepts {
			endings := s.keywords.endings(state)
			for j := range endings {
				f(&endings[j], i+1)
			}
		}
	}
}
