package formats

import (
	"errors"
	"fmt"
	"math"
	"regexp/syntax"
	"strings"
)

const (
	// longestAtom and shortestAtom bound the literals that the keyword automaton knows, in bytes: longer ones make its
	// table outgrow the cache, and shorter ones end everywhere.
	longestAtom  = 6
	shortestAtom = 2
	// mostAtoms bounds the literals of one rule.
	mostAtoms = 128
	// farthestBack bounds how far before its literal a match may begin, and widestBack how many places that may be.
	farthestBack = 64
	widestBack   = 4
	// vicinity is how far behind a keyword a match may begin when the keyword is not part of it, in bytes.
	vicinity = 100
	// longestMatch bounds a match whose expression does not, in bytes. A private key in PEM has about 3200.
	longestMatch = 8 << 10
	// longestAny is the same for expressions that go on over anything.
	longestAny = 1 << 10
	// relaxed is the difference between a repetition's bounds from which on only the lower is looked at first.
	relaxed = 24
)

// span is an inclusive range of numbers of bytes.
type span struct{ lo, hi int }

// anchored says where matches of an expression begin, seen from a literal.
type anchored struct {
	atoms []string // in lower case
	back  span     // how many bytes before the atom a match begins
	near  []string // keywords that only have to be close before; a match is looked for from one of them on
}

// anchor finds the literals that a match of re must hold at a known place, and returns the expression without a leading
// part that may be absent. When there are none, the keywords stand in.
func anchor(re *syntax.Regexp, keywords []string) (anchored, *syntax.Regexp, error) {
	items := flatten(re)
	for len(items) > 1 && optional(items[0]) {
		items = items[1:]
	}
	rest := items[0]
	if len(items) > 1 {
		rest = &syntax.Regexp{Op: syntax.OpConcat, Sub: items, Flags: re.Flags}
	}
	var best anchored
	score := shortestAtom - 1
	var back span
	for i, flat := 0, spread(items); i < len(flat) && back.hi <= farthestBack && back.hi-back.lo <= widestBack; i++ {
		atoms := prefixes(&syntax.Regexp{Op: syntax.OpConcat, Sub: flat[i:]})
		if n := shortest(atoms); n > score {
			best, score = anchored{atoms: atoms, back: back}, n
		}
		if score >= 4 {
			break
		}
		n := width(flat[i])
		if n.hi == math.MaxInt {
			break
		}
		back = span{back.lo + n.lo, back.hi + n.hi}
	}
	if score >= shortestAtom {
		return best, rest, nil
	}
	for _, k := range keywords {
		if len(k) < 3 {
			return anchored{}, nil, fmt.Errorf("keyword %q is too short to look for: use one of at least 3 bytes", k)
		}
		best.atoms = append(best.atoms, strings.ToLower(k[:min(len(k), longestAtom)]))
		best.near = append(best.near, k)
	}
	if len(best.atoms) == 0 {
		return anchored{}, nil, errors.New("nothing in its regex is fixed text, and it has no keywords: add keywords")
	}
	best.back = span{}
	return best, rest, nil
}

// flatten returns the parts of a concatenation.
func flatten(re *syntax.Regexp) []*syntax.Regexp {
	if re.Op != syntax.OpConcat {
		return []*syntax.Regexp{re}
	}
	var out []*syntax.Regexp
	for _, sub := range re.Sub {
		out = append(out, flatten(sub)...)
	}
	return out
}

// spread is flatten that also looks into groups: for literals, groups mean nothing.
func spread(items []*syntax.Regexp) []*syntax.Regexp {
	var out []*syntax.Regexp
	for _, it := range items {
		switch it.Op {
		case syntax.OpCapture, syntax.OpConcat:
			out = append(out, spread(it.Sub)...)
		default:
			out = append(out, it)
		}
	}
	return out
}

// optional tells whether a leading part may be left out without changing what is a match, or which part of it is the
// secret.
func optional(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpStar, syntax.OpQuest:
	case syntax.OpRepeat:
		if re.Min > 0 {
			return false
		}
	default:
		return false
	}
	return re.MaxCap() == 0
}

// width returns how many bytes re matches; hi is math.MaxInt when it has no bound. Runes count as one byte: rules are
// written for ASCII.
func width(re *syntax.Regexp) span {
	unbounded := span{0, math.MaxInt}
	switch re.Op {
	case syntax.OpLiteral:
		return span{len(re.Rune), len(re.Rune)}
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return span{1, 1}
	case syntax.OpCapture:
		return width(re.Sub[0])
	case syntax.OpQuest:
		return span{0, width(re.Sub[0]).hi}
	case syntax.OpStar:
		return unbounded
	case syntax.OpPlus:
		return span{width(re.Sub[0]).lo, math.MaxInt}
	case syntax.OpRepeat:
		w := width(re.Sub[0])
		out := span{w.lo * re.Min, math.MaxInt}
		if re.Max >= 0 && w.hi != math.MaxInt {
			out.hi = w.hi * re.Max
		}
		return out
	case syntax.OpConcat:
		var out span
		for _, sub := range re.Sub {
			w := width(sub)
			out.lo += w.lo
			if w.hi == math.MaxInt || out.hi == math.MaxInt {
				out.hi = math.MaxInt
			} else {
				out.hi += w.hi
			}
		}
		return out
	case syntax.OpAlternate:
		out := width(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			w := width(sub)
			out = span{min(out.lo, w.lo), max(out.hi, w.hi)}
		}
		return out
	}
	return span{} // assertions
}

// bound returns how many bytes a match may have before it is given up.
func bound(re *syntax.Regexp) int {
	if w := width(re); w.hi <= longestMatch {
		return w.hi + 2
	}
	if goesOnOverAnything(re) {
		return longestAny
	}
	return longestMatch
}

// goesOnOverAnything tells whether re has a repetition of any byte that may be absent and has no end.
func goesOnOverAnything(re *syntax.Regexp) bool {
	if re.Op == syntax.OpStar {
		switch re.Sub[0].Op {
		case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
			return true
		}
	}
	for _, sub := range re.Sub {
		if goesOnOverAnything(sub) {
			return true
		}
	}
	return false
}

// relax returns re with the upper bounds of long repetitions lifted. It matches whatever re matches, with far fewer
// states; and two matches that began at different places soon look the same.
func relax(re *syntax.Regexp) *syntax.Regexp {
	out := *re
	out.Sub = make([]*syntax.Regexp, len(re.Sub))
	for i, sub := range re.Sub {
		out.Sub[i] = relax(sub)
	}
	if out.Op == syntax.OpRepeat && out.Max >= 0 && out.Max-out.Min >= relaxed {
		out.Max = -1
	}
	return &out
}

// endless returns re without assertions of the text's end, which a match in the middle of a stream must not rely on.
func endless(re *syntax.Regexp) *syntax.Regexp {
	if re.Op == syntax.OpEndText {
		return &syntax.Regexp{Op: syntax.OpNoMatch, Flags: re.Flags}
	}
	out := *re
	out.Sub = make([]*syntax.Regexp, len(re.Sub))
	for i, sub := range re.Sub {
		out.Sub[i] = endless(sub)
	}
	return &out
}
