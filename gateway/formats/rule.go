package formats

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
)

// rule is one compiled rule.
type rule struct {
	id      string
	entropy float64 // a secret must have more, in bits per byte; 0 is no bound
	group   int     // that holds the secret; 0 means the first that is not empty
	lists   []allowlist
	check   check // nil if nothing is known of its structure
	about   Rule

	anchored
	machine *automaton // accepts what the rule's expression accepts, and somewhat more
	longest int        // bytes that a match is followed for

	// within finds the parts of a match that is followed by something, and atEnd those of one that may end the text. Both
	// begin at the byte before the match; the other two are for a match at the text's begin.
	within, atEnd, withinFirst, atEndFirst func() *regexp.Regexp
}

// parseRegex parses a rule's expression, and takes it apart when it is several: each has its own literals then. group is
// the one that is to hold the secret.
func parseRegex(expression string, group int) ([]*syntax.Regexp, error) {
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("its regex cannot be compiled: %w", err)
	}
	if group < 0 || group > re.MaxCap() {
		return nil, fmt.Errorf("its secretGroup is %d, but its regex has %d groups", group, re.MaxCap())
	}
	if re.Op == syntax.OpAlternate && group == 0 {
		return re.Sub, nil
	}
	return []*syntax.Regexp{re}, nil
}

// compile sets the rule's expression.
func (r *rule) compile(re *syntax.Regexp, keywords []string) error {
	a, rest, err := anchor(re, keywords)
	if err != nil {
		return err
	}
	r.anchored, r.longest = a, bound(rest)
	machine := relax(rest)
	if r.near != nil {
		r.longest = min(r.longest, longestAny) + vicinity
		lead, err := syntax.Parse(r.lead(), syntax.Perl)
		if err != nil {
			return fmt.Errorf("its keywords cannot be compiled: %w", err)
		}
		machine = &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{lead, machine}}
	}
	r.machine, err = newAutomaton(machine, func(g int) bool { return r.group == 0 || g == r.group })
	if err != nil {
		return fmt.Errorf("its regex cannot be compiled: %w", err)
	}
	r.within, r.withinFirst = r.late(`\A(?s:.)`, endless(rest)), r.late(`\A`, endless(rest))
	r.atEnd, r.atEndFirst = r.late(`\A(?s:.)`, rest), r.late(`\A`, rest)
	return nil
}

// lead returns the expression of what precedes a match: a keyword and anything, if there has to be one, else nothing.
func (r *rule) lead() string {
	if r.near == nil {
		return ""
	}
	quoted := make([]string, len(r.near))
	for i, k := range r.near {
		quoted[i] = regexp.QuoteMeta(k)
	}
	return "(?i:" + strings.Join(quoted, "|") + ")(?s:.*?)"
}

// late returns a function that compiles the expression when it is first called: most rules never need theirs. What the
// standard library parsed it can parse again.
func (r *rule) late(before string, re *syntax.Regexp) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(before + r.lead() + "(?:" + re.String() + ")") })
}

// parts returns where in window the match and its secret are, or false when the expression does not match there after all.
// window begins with the byte before the place where the match may begin, unless first says that there is none.
func (r *rule) parts(window []byte, first, atEnd bool) (match, secret span, ok bool) {
	re := r.within
	switch {
	case first && atEnd:
		re = r.atEndFirst
	case first:
		re = r.withinFirst
	case atEnd:
		re = r.atEnd
	}
	at := re().FindSubmatchIndex(window)
	if at == nil {
		return span{}, span{}, false
	}
	match = span{at[0], at[1]}
	if !first {
		match.lo++
	}
	secret = match
	for g := 1; g < len(at)/2; g++ {
		if at[2*g] >= 0 && at[2*g] < at[2*g+1] && (r.group == 0 || r.group == g) {
			return match, span{at[2*g], at[2*g+1]}, true
		}
	}
	return match, secret, true
}
