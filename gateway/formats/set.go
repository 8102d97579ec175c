package formats

import "slices"

// Set is a compiled set of rules. It is immutable as far as its users can see, and may be used by any number of
// goroutines. A nil Set finds nothing.
type Set struct {
	rules    []*rule
	lists    []allowlist // for all rules
	keywords *keywords
	reach    int // how many bytes before a keyword a judgement may look at
}

// IDs returns the ids of the rules, sorted.
func (s *Set) IDs() []string {
	if s == nil {
		return nil
	}
	ids := make([]string, 0, len(s.rules))
	for _, r := range s.rules {
		ids = append(ids, r.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Has tells whether the set has a rule of this id.
func (s *Set) Has(id string) bool {
	return s != nil && slices.ContainsFunc(s.rules, func(r *rule) bool { return r.id == id })
}

// Rule says what a rule looks for, for a person.
type Rule struct {
	// ID is its id.
	ID string
	// Description is its author's.
	Description string
	// Entropy is how many bits per byte a secret must have more than, or 0.
	Entropy float64
	// Check says what is verified of a secret's structure, or is "".
	Check string
	// Advisory says that findings are notes by default.
	Advisory bool
}

// Rule returns the rule with the id; it is zero if there is none.
func (s *Set) Rule(id string) Rule {
	if s == nil {
		return Rule{}
	}
	if i := slices.IndexFunc(s.rules, func(r *rule) bool { return r.id == id }); i >= 0 {
		return s.rules[i].about
	}
	return Rule{}
}

// Advisory tells whether findings of the rule are notes by default, because its form is not that of one issuer: it is for
// whatever is assigned to something called a key or a token.
func (s *Set) Advisory(id string) bool { return advisory(id) }

// HandedOut tells whether what the rule finds may be what a server gave to whoever asked, to be brought back to it: a JSON Web
// Token. Where a client brings such things back, finding one says little.
func (s *Set) HandedOut(id string) bool { return handedOut(id) }

// Policy says what is made of each rule of one set. The zero Policy uses all, and takes every finding seriously.
type Policy struct{ off, note []bool }

// Policy returns the policy that leaves out the rules in disable and makes mere notes of the findings of those that are
// advisory, or, with notes, of all. Ids that the set does not have mean nothing.
func (s *Set) Policy(disable []string, notes bool) Policy {
	if s == nil {
		return Policy{}
	}
	p := Policy{off: make([]bool, len(s.rules)), note: make([]bool, len(s.rules))}
	for i, r := range s.rules {
		p.off[i] = slices.Contains(disable, r.id)
		p.note[i] = notes || advisory(r.id)
	}
	return p
}

func (p Policy) uses(rule int32) bool  { return p.off == nil || !p.off[rule] }
func (p Policy) notes(rule int32) bool { return p.note != nil && p.note[rule] }

// Literals returns the texts, in lower case, that a scan begins with: the rules are tried where one of them is, in either
// case. They are sorted.
func (s *Set) Literals() []string {
	if s == nil {
		return nil
	}
	var all []string
	for _, r := range s.rules {
		for _, atom := range r.atoms {
			all = append(all, atom[:min(len(atom), s.keywords.warm+1)])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// CountLiterals returns at how many places in b a literal ends: the first part of a scan alone, to be measured.
func (s *Set) CountLiterals(b []byte) (places int) {
	if s == nil {
		return 0
	}
	h := scratch.Get().(*hits)
	defer scratch.Put(h)
	state := uint16(0)
	for from := 0; from < len(b); {
		n, behind := s.keywords.find(b, from, state, h)
		for _, hits := range h.n {
			places += hits
		}
		from, state = from+n, behind
	}
	return places
}
