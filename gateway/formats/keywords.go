package formats

import (
	"slices"
	"sync"
)

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
	// load; the array is as large as the index can be, so that no step checks a bound. Those with the bit accepts accept.
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
	guard    guard
}

// endings returns the rules' literals that end in an accepting state.
func (k *keywords) endings(state uint16) []ending { return k.ends[(state-accepts)/k.classes] }

// hit is a literal that ended: the offset of what is behind it, and the state there.
type hit struct {
	end   int
	state uint16
}

// hits are the literals that ended in one block of bytes, for each lane in order.
type hits struct {
	at [lanes][lane]hit
	n  [lanes]int
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
			e := ending{int32(i), n + int32(r.back.hi), n + int32(r.back.lo), r.guard(atom)}
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

// find puts the literals that end in the block that begins at from into h. state is the automaton's at from. It returns the
// length of the block and the state behind it.
func (k *keywords) find(b []byte, from int, state uint16, h *hits) (n int, behind uint16) {
	h.n = [lanes]int{}
	if n = min(len(b)-from, lanes*lane); n > lane+k.warm {
		return n, k.findInLanes(b[:from+n], from, state, h)
	}
	n = min(n, lane)
	for i, c := range b[from : from+n] {
		if state = k.next[state+uint16(k.class[c])]; state >= accepts {
			h.at[0][h.n[0]%lane] = hit{from + i + 1, state}
			h.n[0]++
		}
	}
	return n, state
}

// findInLanes is find for b[from:], which is more than a lane and at most all. When it is less, lanes overlap. Each but the
// first begins with the bytes before it that decide its state.
func (k *keywords) findInLanes(b []byte, from int, state uint16, h *hits) uint16 {
	states := [lanes]uint16{state}
	at := [lanes]int{from}
	for l := 1; l < lanes; l++ {
		at[l] = max(min(from+l*lane, len(b)-lane), from+k.warm)
		for _, c := range b[at[l]-k.warm : at[l]] {
			states[l] = k.next[states[l]+uint16(k.class[c])]
		}
	}
	l0, l1, l2, l3 := (*[lane]byte)(b[at[0]:]), (*[lane]byte)(b[at[1]:]), (*[lane]byte)(b[at[2]:]), (*[lane]byte)(b[at[3]:])
	for i := walk(l0, l1, l2, l3, k.next, &k.class, 0, &states); i > 0; i = walk(l0, l1, l2, l3, k.next, &k.class, i, &states) {
		for l, state := range states { // without a branch: which lane it was cannot be foretold
			h.at[l][h.n[l]%lane] = hit{at[l] + i, state}
			h.n[l] += int(state / accepts)
		}
	}
	for l := 1; l < lanes; l++ {
		h.drop(l, at[l-1]+lane)
	}
	return states[lanes-1]
}

// drop drops the lane's hits up to end, which the lane before has.
func (h *hits) drop(l, end int) {
	n := 0
	for n < h.n[l] && h.at[l][n].end <= end {
		n++
	}
	if n > 0 {
		h.n[l] = copy(h.at[l][:], h.at[l][n:h.n[l]])
	}
}

// absent tells that no literal is in b.
func (k *keywords) absent(b []byte) bool {
	h := scratch.Get().(*hits)
	defer scratch.Put(h)
	state := uint16(0)
	for from := 0; from < len(b); {
		n, behind := k.find(b, from, state, h)
		if h.n != [lanes]int{} {
			return false
		}
		from, state = from+n, behind
	}
	return true
}

// scratch holds hits that are not in use.
var scratch = sync.Pool{New: func() any { return &hits{} }}

// walk walks all lanes from i on until one accepts, and returns the offset behind that; 0 when none does. It is a function
// of its own, with lanes of fixed length, so that all that the loop needs has room in registers.
func walk(l0, l1, l2, l3 *[lane]byte, next *[1 << 16]uint16, class *[256]uint8, i int, states *[lanes]uint16) int {
	s0, s1, s2, s3 := states[0], states[1], states[2], states[3]
	for ; uint(i) < lane; i++ {
		s0 = next[s0+uint16(class[l0[i]])]
		s1 = next[s1+uint16(class[l1[i]])]
		s2 = next[s2+uint16(class[l2[i]])]
		s3 = next[s3+uint16(class[l3[i]])]
		if (s0|s1|s2|s3)&accepts != 0 {
			*states = [lanes]uint16{s0, s1, s2, s3}
			return i + 1
		}
	}
	*states = [lanes]uint16{s0, s1, s2, s3}
	return 0
}
