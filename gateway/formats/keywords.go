package formats

import (
	"slices"
	"sync"
)

const (
	// lanes is how many places of a block are walked at once, lane how many bytes of it each walks at most, and shortestLane
	// at least: more than decide where it begins.
	lanes        = 8
	lane         = 256
	shortestLane = 16
	// accepts is the bit that all accepting states have, and no other.
	accepts = 1 << 15
)

// keywords finds the literals of all rules: the automaton of Aho and Corasick ("Efficient string matching", 1975) with
// every transition filled in. Letters count in either case.
type keywords struct {
	class [256]uint8 // of a byte; upper and lower case letters share theirs
	// next maps a state plus a class to a state. A state is the index of its row, so that a step is one addition and one
	// load. Those with the bit accepts accept.
	next *table
	ends [][]ending // by accepting state
	each uint64     // divides by the number of classes, with a shift of 32: exactly, for so few bits
	warm int        // bytes before a lane's first that decide its state
}

// table is as large as a state plus a class can be, so that no step checks a bound.
type table [1<<16 + 1<<8]uint16

// ending is what a rule makes of a literal that ends here.
type ending struct {
	rule int32
	// from and to are how many bytes before the literal's end a match of the rule begins, the farther first.
	from, to int32
	guard    guard
	ways     uint8  // of the guard, behind whatever
	ahead    *ahead // those that are equal are one
}

// endings returns the rules' literals that end in an accepting state.
func (k *keywords) endings(state uint16) []ending {
	return k.ends[uint64(state-accepts)*k.each>>32]
}

// hit is a literal that ended: where what is behind it is in the block, and the state there in the lower 16 bits.
type hit uint32

func (h hit) end() int      { return int(h >> 16) }
func (h hit) state() uint16 { return uint16(h) }

// hits are the literals that ended in one block of bytes, for each lane in order.
type hits struct {
	at [lanes][lane]hit
	n  [lanes]int
	// text has the lanes of a block that is too short to be lanes itself, each at the end of its own.
	text [lanes * lane]byte
}

// trie is the automaton while it is built.
type trie struct {
	child []map[uint8]int
	fail  []int
	ends  [][]ending
}

// newKeywords returns the automaton of the rules' literals, cut to length, or nil when it does not fit.
func newKeywords(rules []*rule, length int) *keywords {
	k := &keywords{next: new(table), warm: length - 1}
	t := &trie{}
	aheads := map[ahead]*ahead{}
	t.add()
	classes := uint8(1)
	for i, r := range rules {
		for _, atom := range r.atoms {
			atom = atom[:min(len(atom), length)]
			at := 0
			for j := range len(atom) {
				c := atom[j]
				if k.class[c] == 0 {
					k.class[c] = classes
					classes++
				}
				at = t.step(at, k.class[c])
			}
			n := int32(len(atom))
			follows := r.ahead(atom)
			if aheads[*follows] == nil {
				aheads[*follows] = follows
			}
			g := r.guard(atom)
			e := ending{int32(i), n + int32(r.back.hi), n + int32(r.back.lo), g, g[atEdge] | g[atNewline] | g[atWord] | g[atOther], aheads[*follows]}
			if !slices.Contains(t.ends[at], e) {
				t.ends[at] = append(t.ends[at], e)
			}
		}
	}
	for c := byte('a'); c <= 'z'; c++ {
		k.class[c-'a'+'A'] = k.class[c]
	}
	if !k.fill(t, int(classes)) {
		return nil
	}
	return k
}

func (t *trie) add() int {
	t.child, t.fail, t.ends = append(t.child, map[uint8]int{}), append(t.fail, 0), append(t.ends, nil)
	return len(t.child) - 1
}

// step returns the child of a node, which it makes when there is none.
func (t *trie) step(at int, class uint8) int {
	next, ok := t.child[at][class]
	if !ok {
		next = t.add()
		t.child[at][class] = next
	}
	return next
}

// fill writes the table. It reports whether the states fit.
func (k *keywords) fill(t *trie, classes int) bool {
	order := t.join(classes)
	row := make([]uint16, len(order))
	k.each = 1<<32/uint64(classes) + 1
	silent, accepting := 0, accepts
	for _, node := range order {
		at := &silent
		if len(t.ends[node]) > 0 {
			at = &accepting
			k.ends = append(k.ends, t.ends[node])
		}
		row[node] = uint16(*at)
		*at += classes
	}
	if silent > accepts || accepting > 1<<16 {
		return false
	}
	for _, node := range order {
		for c := range classes {
			k.next[int(row[node])+c] = row[t.follow(node, uint8(c))]
		}
	}
	return true
}

// join finds each node's longest suffix that is a node, and adds what ends in that. It returns the nodes, breadth first,
// so that a node's shorter suffixes come before it.
func (t *trie) join(classes int) []int {
	order := []int{0}
	for i := 0; i < len(order); i++ {
		at := order[i]
		for c := 1; c < classes; c++ {
			child, ok := t.child[at][uint8(c)]
			if !ok {
				continue
			}
			if at != 0 {
				t.fail[child] = t.follow(t.fail[at], uint8(c))
			}
			t.ends[child] = append(t.ends[child], t.ends[t.fail[child]]...)
			order = append(order, child)
		}
	}
	return order
}

// follow returns where a byte of the class leads.
func (t *trie) follow(at int, class uint8) int {
	for {
		if next, ok := t.child[at][class]; ok {
			return next
		}
		if at == 0 {
			return 0
		}
		at = t.fail[at]
	}
}

// find puts the literals that end in the block that begins at from into h. state is the automaton's at from. It returns the
// length of the block and the state behind it.
func (k *keywords) find(b []byte, from int, state uint16, h *hits) (n int, behind uint16) {
	h.n = [lanes]int{}
	if n = min(len(b)-from, lanes*lane); n >= lanes*shortestLane {
		return n, k.findInLanes(b[:from+n], from, state, h)
	}
	for i, c := range b[from : from+n] {
		if state = k.next[state+uint16(k.class[c])]; state >= accepts {
			h.at[0][h.n[0]%lane] = hit(i+1)<<16 | hit(state)
			h.n[0]++
		}
	}
	return n, state
}

// findInLanes is find for b[from:]. When that cannot be divided, lanes overlap. Each but the first begins with the bytes
// before it that decide its state.
func (k *keywords) findInLanes(b []byte, from int, state uint16, h *hits) uint16 {
	states := [lanes]uint{uint(state)}
	at := [lanes]int{from}
	length := (len(b) - from + lanes - 1) / lanes
	for l := 1; l < lanes; l++ {
		at[l] = min(from+l*length, len(b)-length)
		for _, c := range b[at[l]-k.warm : at[l]] {
			states[l] = uint(k.next[states[l]+uint(k.class[c])])
		}
	}
	first := lane - length
	text := &h.text
	if len(b)-from == lanes*lane {
		text = (*[lanes * lane]byte)(b[from:])
	} else {
		for l := range lanes {
			copy(text[l*lane+first:], b[at[l]:][:length])
		}
	}
	var begin [lanes]hit
	for l := range at { // where byte 0 of the lane is in the block
		at[l] -= from + first
		begin[l] = hit(at[l]) << 16
	}
	walk(text, k.next, &k.class, uint(first), &states, h, &begin)
	for l := 1; l < lanes; l++ {
		h.drop(l, at[l-1]+lane)
	}
	return uint16(states[lanes-1])
}

// drop drops the lane's hits up to end, which the lane before has.
func (h *hits) drop(l, end int) {
	n := 0
	for n < h.n[l] && h.at[l][n].end() <= end {
		n++
	}
	if n > 0 {
		h.n[l] = copy(h.at[l][:], h.at[l][n:h.n[l]])
	}
}

// scratch holds hits that are not in use.
var scratch = sync.Pool{New: func() any { return &hits{} }}
