package formats

import "sync"

// group is a candidate with those that came to the same state at the same place. A match of one ends where those of the
// others do, so that one is followed for all. The expression that is followed has lost some upper bounds: what is too long
// for the first may be right for a later one, and then it is for the last of them, which is the shortest.
type group struct{ last int64 } // where the last begins, or 0

// note is a state that a candidate of a rule was in.
type note struct {
	pos   int64
	state *state
	group *group
}

// notes are those of as many steps that follow each other.
type notes [16]note

// blank holds pages of notes that are empty.
var blank = sync.Pool{New: func() any { return &notes{} }}

// mostNoted is of how many rules a stream that has ended keeps the room for pages.
const mostNoted = 8

// groupsAtOnce is how many groups are made when one is needed.
const groupsAtOnce = 32

// known tells whether an earlier candidate of the rule was in the same state at the same place: then it decides for both,
// and however many begin over each other, few are followed.
func (st *Stream) known(c *candidate, s *state) bool {
	pages := st.notes[c.rule]
	if pages == nil {
		pages = make([]*notes, pagesOf(st.set.rules[c.rule]))
		if st.notes == nil {
			st.notes = map[int32][]*notes{}
		}
		st.notes[c.rule] = pages
	}
	number := c.pos / traceStep
	page := &pages[number/int64(len(notes{}))%int64(len(pages))]
	if *page == nil {
		*page = blank.Get().(*notes)
	}
	n := &(*page)[number%int64(len(notes{}))]
	if n.pos == c.pos && n.state == s {
		n.group.last = max(n.group.last, c.start)
		return true
	}
	if c.group == nil {
		c.group = st.newGroup()
	}
	*n = note{c.pos, s, c.group}
	return false
}

// pagesOf returns how many pages of notes a rule has at most: as many as reach farther than any of its candidates, so that
// none is overwritten that another may want. All those of the built-in rules have 0.8 MB.
func pagesOf(r *rule) int { return 2*r.longest/(traceStep*len(notes{})) + 2 }

// newGroup returns a group of one.
func (st *Stream) newGroup() *group {
	if len(st.fresh) == 0 {
		st.fresh = make([]group, groupsAtOnce)
	}
	g := &st.fresh[0]
	st.fresh = st.fresh[1:]
	return g
}

// release gives up the notes of a stream that has ended. A nil stream has none.
func (st *Stream) release() {
	if st == nil {
		return
	}
	for _, pages := range st.notes {
		for i, page := range pages {
			if page != nil {
				*page = notes{} // what is in it must mean nothing to another stream, and keep no state alive
				blank.Put(page)
				pages[i] = nil
			}
		}
	}
	if len(st.notes) > mostNoted {
		st.notes = nil
	}
}
