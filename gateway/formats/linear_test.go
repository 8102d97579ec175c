package formats

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// Bounds of what one byte of any text may cost beyond the pass over it.
const (
	mostSteps = 40 // of rules' automata
	mostTried = 16 // bytes that rules' expressions are tried on
)

// costly returns texts that are made to cost as much as can be: what the benchmarks have, each rule's keywords over and
// over with what rules allow between, and each rule's example whole and cut short, over and over.
func costly(t testing.TB, s *Set) map[string]string {
	t.Helper()
	const size = 1 << 15
	all := map[string]string{}
	over := func(name, text string) { all[name] = strings.Repeat(text, size/len(text)+1) }
	for name, text := range shapes(t) {
		all[name] = string(text[:8*size])
	}
	for _, r := range source(t) {
		for _, k := range r.Keywords {
			for _, between := range []string{"", "=", "_", `:"`, " ", "=a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8 "} {
				over(r.ID+": "+k+between, k+between)
			}
		}
		text, _ := example(t, s, r, 0)
		over(r.ID+": example", text)
		over(r.ID+": cut", text[:len(text)-2])
		over(r.ID+": half", text[:len(text)/2])
	}
	return all
}

// TestWorkIsLinear counts steps, not time.
func TestWorkIsLinear(t *testing.T) {
	s := defaultSet(t)
	for name, text := range costly(t, s) {
		for _, e := range append(encodings[:1:1], encodings[5]) {
			for _, text := range []string{text, e.encode(text)} {
				st := s.NewStream(s.Policy(nil, false))
				st.Push([]byte(text), func(Finding) {})
				st.End(func(Finding) {})
				work := st.work
				if in := st.encoded.within; in != nil {
					work.steps, work.tried = work.steps+in.work.steps, work.tried+in.work.tried
				}
				if n := int64(len(text)); work.steps > mostSteps*n || work.tried > mostTried*n {
					t.Errorf("%s: %d steps and %d bytes tried for %d bytes", name, work.steps, work.tried, n)
				}
			}
		}
	}
}

// TestMemoryIsBounded has more states made than are remembered, and more matches and notes than are kept.
func TestMemoryIsBounded(t *testing.T) {
	s, err := Default() // its own: what is remembered would stay
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(21, 22))
	full := false
	for _, r := range s.rules {
		if r.id != "private-key" && r.id != generic {
			continue
		}
		m := r.machine
		made := 0
		seen := map[*state]bool{m.start(atOther): true}
		for todo := []*state{m.start(atOther)}; len(todo) > 0 && len(seen) < 2*mostStates; todo = todo[1:] {
			for class := range m.members {
				next := m.make(todo[0], class)
				made++
				if !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
			if len(m.states) > mostStates {
				t.Fatalf("%s: %d states are remembered", r.id, len(m.states))
			}
		}
		full = full || len(seen) >= 2*mostStates
		t.Logf("%s: %d transitions made, %d states remembered", r.id, made, len(m.states))
	}
	if !full {
		t.Error("no rule has more states than are remembered: this shows nothing")
	}
	text := shapes(t)["hostile: near"]
	st := s.NewStream(s.Policy(nil, false))
	for len(text) > 0 {
		n := min(len(text), 100+rnd.IntN(5000))
		st.Push(text[:n], func(Finding) {})
		text = text[n:]
		if cap(st.own) > 64<<10 || len(st.open) > 64 || len(st.verdicts) > mostVerdicts {
			t.Fatalf("%d bytes, %d candidates, %d verdicts are kept", cap(st.own), len(st.open), len(st.verdicts))
		}
	}
}
