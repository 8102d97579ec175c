package formats

import (
	"slices"
)

// lanes is how many places of a block are walked at once, and laneBlock the least block for which that pays.
const (
	lanes     = 4
	laneBlock = 1 << 10
)

// keywords finds the literals of all rules: the automaton of Aho and Corasick ("Efficient string matching", 1975) with
// every transition filled in. Letters count in either case.
type keywords struct {
	class [256]uint8 // of a byte; upper and lower case letters share theirs
	// next maps a state plus a class to a state. A state is the index of its row, so that a step is one addition and one
	// load; the array is as large as the index can be, so that no step checks a bound.
	next *[1 << 16]uint16
	// accepting states are those from here on.
	accepting uint16
	ends      [][]ending // by accepting state
	classes   uint16
	warm      int // bytes before a lane's first that decide its state
}

// ending is what a rule makes of a literal that ends here.
type ending struct {
	rule int32
	// from and to are how many bytes before the literal's end a match of the rule begins, the farther first.
	from, to int32
}

// endings returns the rules' literals that end in an accepting state.
func (k *keywords) endings(state uint16) []ending { return k.ends[(state-k.accepting)/k.classes] }

// hit is a literal that ended.
type hit struct {
	end   int // offset behind it
	state uint16
}

// trie is the automaton while it is built.
type trie struct {
	child []map[uint8]int
	fail  []int
	ends  [][]ending
}

// newKeywords returns the automaton of the rules' literals, cut to length, or nil when it does not fit.
func newKeywords(rules []*rule, length int) *keywords {
	k := &keywords{next: new([1 << 16]uint16), warm: length - 1}
	t := &trie{}
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
			e := ending{int32(i), n + int32(r.back.hi), n + int32(r.back.lo)}
			if !slices.Contains(t.ends[at], e) {
				t.ends[at] = append(t.ends[at], e)
			}
		}
	}
	for c := byte('a'); c <= 'z'; c++ {
		k.class[c-'a'+'A'] = k.class[c]
	}
	if len(t.child)*int(classes) > len(k.next) {
		return nil
	}
	k.fill(t, int(classes))
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

// fill writes the table, with the accepting states last.
func (k *keywords) fill(t *trie, classes int) {
	order := []int{0}
	for i := 0; i < len(order); i++ { // breadth first, so that a node's shorter suffixes are done
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
	slices.SortStableFunc(order, func(a, b int) int { return min(len(t.ends[a]), 1) - min(len(t.ends[b]), 1) })
	row := make([]uint16, len(order))
	k.classes = uint16(classes)
	k.accepting = ^uint16(0)
	for i, node := range order {
		row[node] = uint16(i * classes)
		if len(t.ends[node]) > 0 {
			k.accepting = min(k.accepting, row[node])
			k.ends = append(k.ends, t.ends[node])
		}
	}
	for _, node := range order {
		for c := range classes {
			k.next[int(row[node])+c] = row[t.follow(node, uint8(c))]
		}
	}
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

// find appends the literals that end in b[from:] to hits, in order. state is the automaton's at from; it returns that at
// the end of b.
func (k *keywords) find(b []byte, from int, state uint16, hits []hit) ([]hit, uint16) {
	for len(b)-from >= laneBlock {
		block := b[:min(len(b), from+32<<10)]
		hits, state = k.findInLanes(block, from, state, hits)
		from = len(block)
	}
	for i := from; i < len(b); i++ {
		state = k.next[state+uint16(k.class[b[i]])]
		if state >= k.accepting {
			hits = append(hits, hit{i + 1, state})
		}
	}
	return hits, state
}

// findInLanes is find that walks four parts of b[from:] at a time. Each part but the first begins with the bytes before it
// that decide its state.
func (k *keywords) findInLanes(b []byte, from int, s0 uint16, hits []hit) ([]hit, uint16) {
	n := (len(b) - from) / lanes
	l0, l1, l2, l3 := b[from:from+n], b[from+n:][:n], b[from+2*n:][:n], b[from+3*n:][:n]
	s1, s2, s3 := k.enter(b, from+n), k.enter(b, from+2*n), k.enter(b, from+3*n)
	var late [lanes - 1][]hit
	next, class, accepting := k.next, &k.class, k.accepting
	for i := range l0 {
		s0 = next[s0+uint16(class[l0[i]])]
		s1 = next[s1+uint16(class[l1[i]])]
		s2 = next[s2+uint16(class[l2[i]])]
		s3 = next[s3+uint16(class[l3[i]])]
		if max(s0, s1, s2, s3) < accepting {
			continue
		}
		if s0 >= accepting {
			hits = append(hits, hit{from + i + 1, s0})
		}
		for lane, s := range [lanes - 1]uint16{s1, s2, s3} {
			if s >= accepting {
				late[lane] = append(late[lane], hit{from + (lane+1)*n + i + 1, s})
			}
		}
	}
	for i := from + lanes*n; i < len(b); i++ {
		s3 = next[s3+uint16(class[b[i]])]
		if s3 >= accepting {
			late[lanes-2] = append(late[lanes-2], hit{i + 1, s3})
		}
	}
	for _, l := range late {
		hits = append(hits, l...)
	}
	return hits, s3
}

// enter returns the state before b[at].
func (k *keywords) enter(b []byte, at int) uint16 {
	var s uint16
	for _, c := range b[at-k.warm : at] {
		s = k.next[s+uint16(k.class[c])]
	}
	return s
}
