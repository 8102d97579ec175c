package formats

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"
)

// Bounds of what one byte of any text may cost beyond the pass over it.
const (
	mostSteps    = 40 // of rules' automata
	mostTried    = 16 // bytes that rules' expressions are tried on
	mostRecalled = 40 // bytes that are looked up among the verdicts
	mostLooked   = 8  // bytes that verdicts look at
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
	rnd := rand.New(rand.NewPCG(31, 32))
	random := func(alphabet string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return string(b)
	}
	// No two lines of these are alike, so that no verdict is remembered, and none is a secret, so that none counts as found.
	for name, value := range map[string]func() string{
		"stop word": func() string { return random("abcdefghijklmnopqrstuvwxyz0123456789", 20) + "client" },
		"UUID": func() string {
			return random("0123456789abcdef", 8) + "-1234-4abc-8def-" + random("0123456789abcdef", 12)
		},
		"hash":        func() string { return random("0123456789abcdef", 64) },
		"not random":  func() string { return strings.Repeat(random("abc", 2), 16) },
		"label":       func() string { return "sha256-" + random("abcdefghijklmnop0123456789", 30) },
		"placeholder": func() string { return "${" + random("abcdefghijklmnopqrstuvwxyz", 24) + "}" },
	} {
		for _, keyword := range []string{"key = '", "token: ", "x_secret=\"", "auth "} {
			var b strings.Builder
			for b.Len() < size {
				b.WriteString(keyword + value() + "'\n")
			}
			all[name+", never the same: "+keyword] = b.String()
		}
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
	var worst [4]struct {
		x    int64
		name string
	}
	defer func() { t.Logf("most steps, tried, recalled, looked for 100 bytes: %v", worst) }()
	for name, text := range costly(t, s) {
		for _, e := range append(encodings[:1:1], encodings[5]) {
			for _, text := range []string{text, e.encode(text)} {
				st := s.NewStream(s.Policy(nil, false))
				st.Push([]byte(text), func(Finding) {})
				st.End(func(Finding) {})
				work := st.work
				if in := st.encoded.within; in != nil {
					work = work.plus(in.work)
				}
				n := int64(len(text))
				if work.steps > mostSteps*n || work.tried > mostTried*n || work.recalled > mostRecalled*n || work.looked > mostLooked*n {
					t.Errorf("%s: %+v for %d bytes", name, work, n)
				}
				for i, x := range []int64{work.steps, work.tried, work.recalled, work.looked} {
					if x*100/n > worst[i].x {
						worst[i].x, worst[i].name = x*100/n, name
					}
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
	notesAreBounded(t, defaultSet(t))
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

// mostNotes bounds the memory of one text's notes with the built-in rules, in bytes: that of all their pages.
const mostNotes = 1 << 20

// notesAreBounded has candidates of all rules open as long as they can be, over and over.
func notesAreBounded(t *testing.T, s *Set) {
	all := 0
	for _, r := range s.rules {
		all += pagesOf(r)
	}
	if size := all * int(unsafe.Sizeof(notes{})); size > mostNotes {
		t.Errorf("all pages have %d bytes", size)
	}
	st := s.NewStream(s.Policy(nil, false))
	most := 0
	for i := range 6 {
		for _, r := range source(t) {
			text, _ := example(t, s, r, uint64(i))
			st.Push([]byte(text+strings.Repeat(text[max(0, len(text)-30):], 40)+"\n"), func(Finding) {})
			used := 0
			for rule, pages := range st.notes {
				if len(pages) > pagesOf(s.rules[rule]) {
					t.Fatalf("%d pages for %s", len(pages), s.rules[rule].id)
				}
				for _, page := range pages {
					if page != nil {
						used++
					}
				}
			}
			most = max(most, used)
		}
	}
	if most == 0 || most > all {
		t.Errorf("%d pages are in use, of %d", most, all)
	}
	t.Logf("%d of %d pages of notes are in use at most", most, all)
}
