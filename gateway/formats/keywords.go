package formats

import "slices"

const (
	// lanes is how many places of a block are walked at once, and lane how many bytes of it each walks.
	lanes = 4
	lane  = 512
	// accepts is the bit that all accepting states have, and no other.
	accepts = 1 << 15
)

// keywords finds the literals of all rules: the automaton of Aho and Corasick ("Efficient string matching", 1975) with
// every transition filled in. Letters count in either case.
type keywords struct {
	class [256]uint8 // of a byte; upper and lower case letters share theirs
	// next maps a state plus a class to a state. A state is the index of its row, so that a step is one addition and one
	// load; the array is as large as the index can be, so that no step checks a bound.
	// States with the bit accepts are accepting.
	next    *[1 << 16]uint16
	ends    [][]ending // by accepting state
	classes uint16
	warm    int // bytes before a lane's first that decide its state
}

// ending is what a rule makes of a literal that ends here.
type ending struct {
	rule int32
	// from and to are how many bytes before the literal's end a match of the rule begins, the farther first.
	from, to int32
}

// endings returns the rules' literals that end in an accepting state.
func (k *keywords) endings(state uint16) []ending { return k.ends[(state-accepts)/k.classes] }

// hit is a literal that ended.
type hit struct {
	end   int // offset behind it
	state uint16
}

// hits are literals that ended, in order, and room for those of lanes whose turn has not come.
type hits struct {
	all  []hit
	late [lanes][]hit
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
	k.classes = uint16(classes)
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
	if silent > accepts || accepting > len(k.next) {
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

// find puts the literals that end in b[from:] into h. state is the automaton's at from; it returns that at the end of b.
func (k *keywords) find(b []byte, from int, state uint16, h *hits) uint16 {
	h.all = h.all[:0]
	for ; len(b)-from >= lanes*lane; from += lanes * lane {
		state = k.findInLanes(b, from, state, h)
	}
	for i := from; i < len(b); i++ {
		state = k.next[state+uint16(k.class[b[i]])]
		if state >= accepts {
			h.all = append(h.all, hit{i + 1, state})
		}
	}
	return state
}

// findInLanes is find for the lanes that begin at from, and adds to h. Each lane but the first begins with the bytes
// before it that decide its state.
func (k *keywords) findInLanes(b []byte, from int, state uint16, h *hits) uint16 {
	states := [lanes]uint16{state}
	for l := 1; l < lanes; l++ {
		at := from + l*lane
		for _, c := range b[at-k.warm : at] {
			states[l] = k.next[states[l]+uint16(k.class[c])]
		}
	}
	block := (*[lanes * lane]byte)(b[from:])
	for i := walk(block, k.next, &k.class, 0, &states); i > 0; i = walk(block, k.next, &k.class, i, &states) {
		if states[0] >= accepts {
			h.all = append(h.all, hit{from + i, states[0]})
		}
		for l := 1; l < lanes; l++ {
			if states[l] >= accepts {
				h.late[l] = append(h.late[l], hit{from + l*lane + i, states[l]})
			}
		}
	}
	for l := 1; l < lanes; l++ {
		h.all = append(h.all, h.late[l]...)
		h.late[l] = h.late[l][:0]
	}
	return states[lanes-1]
}

// absent tells that no literal is in b.
func (k *keywords) absent(b []byte) bool {
	var h hits
	state := uint16(0)
	for len(b) > 0 && len(h.all) == 0 {
		n := min(len(b), lanes*lane)
		state = k.find(b[:n], 0, state, &h)
		b = b[n:]
	}
	return len(h.all) == 0
}

// walk walks all lanes from i on until one accepts, and returns the offset behind that; 0 when none does. It is a function
// of its own, with lanes of fixed length, so that all that the loop needs has room in registers.
func walk(b *[lanes * lane]byte, next *[1 << 16]uint16, class *[256]uint8, i int, states *[lanes]uint16) int {
	s0, s1, s2, s3 := states[0], states[1], states[2], states[3]
	for ; uint(i) < lane; i++ {
		s0 = next[s0+uint16(class[b[i]])]
		s1 = next[s1+uint16(class[b[i+lane]])]
		s2 = next[s2+uint16(class[b[i+2*lane]])]
		s3 = next[s3+uint16(class[b[i+3*lane]])]
		if (s0|s1|s2|s3)&accepts != 0 {
			*states = [lanes]uint16{s0, s1, s2, s3}
			return i + 1
		}
	}
	*states = [lanes]uint16{s0, s1, s2, s3}
	return 0
}
