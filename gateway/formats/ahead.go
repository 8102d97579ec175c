package formats

import (
	"regexp/syntax"
	"unicode"
)

// lookahead is how many bytes behind a literal are looked at before an automaton is.
const lookahead = 16

// ahead tells for most places where a literal ends that no match goes on there: bit j of a byte's entry says that the rule's
// expression takes the byte j bytes behind the literal, in some match. Unlike an automaton's steps, these do not wait for
// each other.
type ahead [256]uint16

// refuses tells that no match goes on with text.
func (a *ahead) refuses(text []byte) bool {
	if len(text) >= lookahead { // eight at once: which byte it is that refuses cannot be foretold
		t := (*[lookahead]byte)(text)
		if a[t[0]]&(a[t[1]]>>1)&(a[t[2]]>>2)&(a[t[3]]>>3)&(a[t[4]]>>4)&(a[t[5]]>>5)&(a[t[6]]>>6)&(a[t[7]]>>7)&1 == 0 {
			return true
		}
		return (a[t[8]]>>8)&(a[t[9]]>>9)&(a[t[10]]>>10)&(a[t[11]]>>11)&(a[t[12]]>>12)&(a[t[13]]>>13)&(a[t[14]]>>14)&(a[t[15]]>>15)&1 == 0
	}
	for j, c := range text {
		if a[c]>>j&1 == 0 {
			return true
		}
	}
	return false
}

// ahead returns what may follow one of the rule's literals.
func (r *rule) ahead(atom string) *ahead {
	m := r.machine
	var here []uint32
	before := m.reached([]uint32{uint32(m.prog.Start)})
	for n := 0; n <= r.back.hi; n++ {
		if n >= r.back.lo {
			here = append(here, before...)
		}
		before = m.behind(before, func(*byteSet) bool { return true })
	}
	for _, c := range []byte(atom) {
		here = m.behind(here, func(takes *byteSet) bool { return takes.has(c) || takes.has(byte(unicode.ToUpper(rune(c)))) })
	}
	a := &ahead{}
	for j := range lookahead {
		takes := m.takes(here)
		for c := range a {
			if takes.has(byte(c)) {
				a[c] |= 1 << j
			}
		}
		here = m.behind(here, func(*byteSet) bool { return true })
	}
	return a
}

// reached returns the instructions that can be next where those at pcs are, whatever is beside that place: those that take
// a byte, and the match, each once.
func (a *automaton) reached(pcs []uint32) (out []uint32) {
	seen := make([]bool, len(a.prog.Inst))
	for todo := append([]uint32(nil), pcs...); len(todo) > 0; {
		pc := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		switch in := &a.prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			todo = append(todo, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			todo = append(todo, in.Out)
		case syntax.InstFail:
		default:
			out = append(out, pc)
		}
	}
	return out
}

// behind returns the instructions that can be next behind a byte that those take that want says. A match stays one.
func (a *automaton) behind(pcs []uint32, want func(takes *byteSet) bool) []uint32 {
	var next []uint32
	for _, pc := range pcs {
		switch takes := a.bytes[pc]; {
		case takes == nil:
			next = append(next, pc)
		case want(takes):
			next = append(next, a.prog.Inst[pc].Out)
		}
	}
	return a.reached(next)
}

// takes returns the bytes that instructions take: all, if the match is among them.
func (a *automaton) takes(pcs []uint32) (all byteSet) {
	for _, pc := range pcs {
		takes := a.bytes[pc]
		if takes == nil {
			return byteSet{1<<64 - 1, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1}
		}
		for i := range all {
			all[i] |= takes[i]
		}
	}
	return all
}
