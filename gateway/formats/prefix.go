package formats

import (
	"regexp/syntax"
	"slices"
	"unicode"
)

// most classes that are spelled out have this many members.
const smallClass = 6

// begin is a set of strings, in lower case, one of which a match begins with. It is exact when the match of what was
// looked at ends with the string too.
type begin struct {
	all   []string
	exact bool
}

// prefixes returns strings of at most longestAtom bytes, in lower case, such that every match of re begins with one of
// them in either case. It is nil when nothing is known.
func prefixes(re *syntax.Regexp) []string {
	p := beginOf(re)
	out := make([]string, 0, len(p.all))
	for _, s := range p.all {
		out = append(out, s[:min(len(s), longestAtom)])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// shortest returns the length of the shortest string, and 0 when there is none.
func shortest(all []string) int {
	if len(all) == 0 {
		return 0
	}
	n := len(all[0])
	for _, s := range all {
		n = min(n, len(s))
	}
	return n
}

func beginOf(re *syntax.Regexp) begin {
	none := begin{all: []string{""}}
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return begin{[]string{""}, true}
	case syntax.OpLiteral:
		return beginOfLiteral(re.Rune)
	case syntax.OpCharClass:
		return beginOfClass(re.Rune)
	case syntax.OpCapture:
		return beginOf(re.Sub[0])
	case syntax.OpQuest:
		sub := beginOf(re.Sub[0])
		return begin{append([]string{""}, sub.all...), sub.exact}
	case syntax.OpPlus:
		return begin{beginOf(re.Sub[0]).all, false}
	case syntax.OpRepeat:
		if re.Min == 0 {
			return none
		}
		out := begin{[]string{""}, true}
		for range min(re.Min, longestAtom) {
			out = out.then(beginOf(re.Sub[0]))
		}
		out.exact = out.exact && re.Min == re.Max && re.Min <= longestAtom
		return out
	case syntax.OpConcat:
		out := begin{[]string{""}, true}
		for _, sub := range re.Sub {
			if !out.exact || shortest(out.all) >= longestAtom {
				break
			}
			out = out.then(beginOf(sub))
		}
		return out
	case syntax.OpAlternate:
		out := begin{exact: true}
		for _, sub := range re.Sub {
			b := beginOf(sub)
			out.all, out.exact = append(out.all, b.all...), out.exact && b.exact
		}
		return out
	}
	return none
}

// then returns the beginnings of a match of b followed by one of next. Where that would be too many, b's are kept.
func (b begin) then(next begin) begin {
	if !b.exact || len(b.all)*len(next.all) > mostAtoms {
		return begin{b.all, false}
	}
	out := begin{exact: next.exact}
	for _, x := range b.all {
		for _, y := range next.all {
			out.all = append(out.all, x+y)
		}
	}
	slices.Sort(out.all)
	out.all = slices.Compact(out.all)
	return out
}

func beginOfLiteral(runes []rune) begin {
	var s []byte
	for _, r := range runes {
		if r >= unicode.MaxASCII {
			return begin{[]string{string(s)}, false}
		}
		s = append(s, fold(byte(r)))
	}
	return begin{[]string{string(s)}, true}
}

// beginOfClass spells a small class out. Outside ASCII it may only hold what folds into ASCII, which rules do not mean.
func beginOfClass(ranges []rune) begin {
	var all []string
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			if r >= unicode.MaxASCII {
				if unicode.SimpleFold(r) < unicode.MaxASCII {
					continue
				}
				return begin{all: []string{""}}
			}
			all = append(all, string(fold(byte(r))))
			if len(all) > 2*smallClass {
				return begin{all: []string{""}}
			}
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > smallClass {
		return begin{all: []string{""}}
	}
	return begin{all, true}
}

// fold returns c in lower case.
func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
