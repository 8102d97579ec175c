package formats

import (
	"encoding/binary"
	"fmt"
	"regexp/syntax"
	"slices"
	"sync"
	"sync/atomic"
	"unicode"
)

// mostStates bounds how many states of one expression are remembered. When there are more, remembering begins anew.
const mostStates = 2000

const (
	// mostClasses bounds how many kinds of bytes one expression can tell apart, with the text's end.
	mostClasses = 64
	// textEnd is the class of the text's end.
	textEnd = mostClasses - 1
)

// automaton tells where matches of an expression end that begin at a given place. Its states are made when they are first
// needed, remembered, and shared by all goroutines. It looks at bytes: one that is not ASCII counts as a rune that is no
// letter.
type automaton struct {
	prog    *syntax.Prog
	bytes   []*byteSet // by instruction: what it takes; nil if it takes nothing
	classes [256]uint8 // bytes that no instruction tells apart have the same
	members []byte     // one byte of each class
	secret  []bool     // by instruction: in a group that holds the secret
	begin   [kinds]atomic.Pointer[state]

	mu     sync.Mutex
	states map[string]*state
}

// kind is what an assertion may want to know of a byte beside it.
type kind uint8

const (
	atEdge    kind = iota // there is none
	atNewline             // '\n'
	atWord                // [0-9A-Za-z_]
	atOther
	kinds
)

// state is where the automaton can be after some byte.
type state struct {
	insts []uint32 // instructions that are next, before assertions are looked at
	last  kind     // of the byte before
	// matched tells that a match ended before the last byte, and secret that the last byte may belong to the secret.
	matched, secret bool
	dead            bool // nothing more can match
	plain           bool // none of the three
	// next maps the class of a byte to the state behind it; entry textEnd is for the text's end. It is in the state, however
	// few of it are used, since what a state's pointer leads to is what the next step waits for.
	next [mostClasses]atomic.Pointer[state]
}

// newAutomaton compiles re, in which the groups that wanted names hold the secret; without any the whole match does.
func newAutomaton(re *syntax.Regexp, wanted func(group int) bool) (*automaton, error) {
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, err
	}
	a := &automaton{prog: prog, states: map[string]*state{}}
	if a.classify(); len(a.members) > textEnd {
		return nil, fmt.Errorf("it tells %d kinds of characters apart, more than %d: make its classes of characters fewer", len(a.members), textEnd)
	}
	a.markSecret(wanted)
	return a, nil
}

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) has(b byte) bool { return s[b>>6]&(1<<(b&63)) != 0 }

// bytesOf works out what each instruction takes. A repetition is many instructions that take the same.
func (a *automaton) bytesOf() (distinct []*byteSet) {
	a.bytes = make([]*byteSet, len(a.prog.Inst))
	seen := map[string]*byteSet{}
	for i := range a.prog.Inst {
		in := &a.prog.Inst[i]
		if !consumes(in) {
			continue
		}
		key := string(in.Rune) + string(rune(in.Op)) + string(rune(in.Arg))
		set := seen[key]
		if set == nil {
			set = &byteSet{}
			for b := range 256 {
				if in.MatchRune(runeOf(byte(b))) {
					set[b>>6] |= 1 << (b & 63)
				}
			}
			seen[key] = set
			distinct = append(distinct, set)
		}
		a.bytes[i] = set
	}
	return distinct
}

// classify finds the bytes that all instructions treat alike.
func (a *automaton) classify() {
	distinct := a.bytesOf()
	seen := map[string]uint8{}
	key := make([]byte, 0, len(distinct)+1)
	for b := range 256 {
		key = append(key[:0], byte(kindOf(byte(b))))
		for _, set := range distinct {
			key = append(key, flag(set.has(byte(b))))
		}
		c, ok := seen[string(key)]
		if !ok {
			c = uint8(len(a.members))
			seen[string(key)] = c
			a.members = append(a.members, byte(b))
		}
		a.classes[b] = c
	}
}

// markSecret finds the instructions that are within a group that is wanted.
func (a *automaton) markSecret(wanted func(int) bool) {
	a.secret = make([]bool, len(a.prog.Inst))
	found := false
	for open := range a.prog.Inst {
		in := &a.prog.Inst[open]
		if in.Op != syntax.InstCapture || in.Arg%2 != 0 || in.Arg == 0 || !wanted(int(in.Arg/2)) {
			continue
		}
		found = true
		seen := map[uint32]bool{}
		todo := []uint32{in.Out}
		for len(todo) > 0 {
			pc := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			i := &a.prog.Inst[pc]
			if seen[pc] || i.Op == syntax.InstCapture && i.Arg == in.Arg+1 {
				continue
			}
			seen[pc], a.secret[pc] = true, true
			if i.Op == syntax.InstMatch || i.Op == syntax.InstFail {
				continue
			}
			todo = append(todo, i.Out)
			if i.Op == syntax.InstAlt || i.Op == syntax.InstAltMatch {
				todo = append(todo, i.Arg)
			}
		}
	}
	if !found {
		for i := range a.secret {
			a.secret[i] = true
		}
	}
}

func consumes(in *syntax.Inst) bool {
	switch in.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	}
	return false
}

func runeOf(b byte) rune {
	if b < 0x80 {
		return rune(b)
	}
	return unicode.ReplacementChar
}

func kindOf(b byte) kind {
	switch {
	case b == '\n':
		return atNewline
	case syntax.IsWordChar(runeOf(b)):
		return atWord
	}
	return atOther
}

// start returns the state in which a match begins behind a byte of the kind.
func (a *automaton) start(before kind) *state {
	if s := a.begin[before].Load(); s != nil {
		return s
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.intern(&state{insts: []uint32{uint32(a.prog.Start)}, last: before})
	a.begin[before].Store(s)
	return s
}

// end returns the state at the text's end: of it only matched means anything.
func (a *automaton) end(s *state) *state {
	if next := s.next[textEnd].Load(); next != nil {
		return next
	}
	return a.make(s, textEnd)
}

// step returns the state behind a byte.
func (a *automaton) step(s *state, c byte) *state {
	if next := s.next[a.classes[c]%mostClasses].Load(); next != nil {
		return next
	}
	return a.make(s, int(a.classes[c]))
}

// skim goes from s over the beginning of text that only leads to plain states. It returns the state behind the n bytes of
// that, and whether what follows them makes a match impossible.
func (a *automaton) skim(s *state, text []byte) (behind *state, n int, refused bool) {
	for n, b := range text { // as step does, in place
		next := s.next[a.classes[b]%mostClasses].Load()
		if next == nil {
			next = a.make(s, int(a.classes[b]))
		}
		if !next.plain {
			return s, n, next.dead && !next.matched
		}
		s = next
	}
	return s, len(text), false
}

// make works out the state that follows s by a byte of the class, or by the text's end.
func (a *automaton) make(s *state, class int) *state {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := &state{last: atEdge}
	var b byte
	if class != textEnd {
		b = a.members[class]
		n.last = kindOf(b)
	}
	seen := make([]bool, len(a.prog.Inst))
	var visit func(pc uint32)
	visit = func(pc uint32) {
		if seen[pc] {
			return
		}
		seen[pc] = true
		in := &a.prog.Inst[pc]
		switch in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			visit(in.Out)
			visit(in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			visit(in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^assertions(s.last, n.last) == 0 {
				visit(in.Out)
			}
		case syntax.InstMatch:
			n.matched = true
		case syntax.InstFail:
		default:
			if class != textEnd && a.bytes[pc].has(b) {
				n.insts = append(n.insts, in.Out)
				n.secret = n.secret || a.secret[pc]
			}
		}
	}
	for _, pc := range s.insts {
		visit(pc)
	}
	slices.Sort(n.insts)
	n.insts = slices.Compact(n.insts)
	n = a.intern(n)
	s.next[class].Store(n)
	return n
}

// assertions returns which of them hold between two bytes.
func assertions(before, after kind) syntax.EmptyOp {
	var op syntax.EmptyOp
	if before == atEdge {
		op |= syntax.EmptyBeginText | syntax.EmptyBeginLine
	}
	if before == atNewline {
		op |= syntax.EmptyBeginLine
	}
	if after == atEdge {
		op |= syntax.EmptyEndText | syntax.EmptyEndLine
	}
	if after == atNewline {
		op |= syntax.EmptyEndLine
	}
	if (before == atWord) != (after == atWord) {
		return op | syntax.EmptyWordBoundary
	}
	return op | syntax.EmptyNoWordBoundary
}

// intern returns the state that is like s, remembered or from now on. mu is held.
func (a *automaton) intern(s *state) *state {
	key := make([]byte, 0, 2+4*len(s.insts))
	key = append(key, byte(s.last), flag(s.matched)|flag(s.secret)<<1)
	for _, pc := range s.insts {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	if have, ok := a.states[string(key)]; ok {
		return have
	}
	if len(a.states) >= mostStates { // those in use stay alive by themselves
		a.states = map[string]*state{}
		for i := range a.begin {
			a.begin[i].Store(nil)
		}
	}
	s.dead = len(s.insts) == 0
	s.plain = !s.matched && !s.secret && !s.dead
	a.states[string(key)] = s
	return s
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
