// Package needle finds known byte strings in streams, in every form that
// [Forms] lists, at about the speed of memory and with memory bounded by the
// longest form.
//
// A [Set] is searched by the algorithm of Wu and Manber ("A fast algorithm for
// multi-pattern searching", 1994): the three bytes at the end of a
// window, which is as wide as the shortest needle but at most 32 bytes, tell
// how far the window may move, so most bytes are never looked at.
package needle

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// MinLength is the length in bytes below which a string is not looked for:
// shorter ones turn up in ordinary text.
const MinLength = 8

// block is how many bytes at the end of a window tell how far it may move.
// Two are common to too many strings when there are dozens of needles.
const block = 3

// Set is a compiled set of needles. It is immutable and may be used by any
// number of goroutines. A nil Set has no needles.
type Set struct {
	needles []needle
	// shift maps the hash of a window's last block to how far the window may
	// move: 0 when a needle may begin where the window does. Its length is
	// 1 << (32 - down).
	shift []uint8
	down  uint
	// heads is a hash table of the needles by their first eight bytes, letters
	// in either case: indices into needles plus one, and 0 for none. Its length
	// is 1 << (64 - deep).
	heads []int32
	deep  uint
	// first maps a byte to the needles that begin with it.
	first   [256][]int32
	holds   [256]bool // bytes that are in some needle
	longest int
	window  int // how many bytes at the front of every needle tell the windows, at least MinLength
}

type needle struct {
	head  uint64 // the first eight bytes, little-endian
	loose uint64 // of mask, likewise
	all   []byte
	mask  []byte // nil, or form.loose
	id    int
	next  int32 // the next needle in the same slot of heads, plus one
}

// begins tells whether the needle and b begin with the same bytes, so many of them.
func (n *needle) begins(b []byte, length int) bool {
	if n.mask == nil {
		return bytes.Equal(n.all[:length], b[:length])
	}
	for i, c := range b[:length] {
		if c|n.mask[i] != n.all[i] {
			return false
		}
	}
	return true
}

// NewSet compiles every form of every value; id i of a match is the value's
// index. Values shorter than MinLength are not looked for: whoever keeps
// values that matter refuses short ones first.
func NewSet(values []string) *Set {
	s := &Set{}
	for id, value := range values {
		for _, form := range formsOf(value) {
			s.add(form, id)
		}
	}
	s.window = s.widest()
	// Sixteen slots for each block keep false hits rare; 12 to 16 bits keep
	// the table within 4 to 64 KB.
	width := min(16, max(12, bits.Len(uint(len(s.needles)*(s.window-block)*16))))
	s.shift, s.down = make([]uint8, 1<<width), uint(32-width)
	for i := range s.shift {
		s.shift[i] = uint8(s.window - block + 1)
	}
	width = max(6, bits.Len(uint(len(s.needles)*4)))
	s.heads, s.deep = make([]int32, 1<<width), uint(64-width)
	for i := range s.needles {
		n := &s.needles[i]
		for end := block - 1; end < s.window; end++ {
			n.blocks(end, func(three uint32) {
				at := s.slot(three)
				s.shift[at] = min(s.shift[at], uint8(s.window-1-end))
			})
		}
		at := &s.heads[s.headSlot(n.head)]
		n.next, *at = *at, int32(i+1)
	}
	return s
}

// add adds one form of value id.
func (s *Set) add(f form, id int) {
	n := needle{all: []byte(f.text), id: id}
	n.head = binary.LittleEndian.Uint64(n.all)
	if f.loose != "" {
		n.mask = []byte(f.loose)
		n.loose = binary.LittleEndian.Uint64(n.mask)
	}
	at := int32(len(s.needles))
	s.needles = append(s.needles, n)
	s.longest = max(s.longest, len(n.all))
	s.first[n.all[0]] = append(s.first[n.all[0]], at)
	if n.mask != nil && n.mask[0] != 0 {
		upper := n.all[0] &^ n.mask[0]
		s.first[upper] = append(s.first[upper], at)
	}
	for i, c := range n.all {
		s.holds[c] = true
		if n.mask != nil {
			s.holds[c&^n.mask[i]] = true
		}
	}
}

// blocks calls f for each way to write the three bytes of the needle that end with byte end.
func (n *needle) blocks(end int, f func(three uint32)) {
	three := func(b []byte) uint32 { return uint32(b[end-2]) | uint32(b[end-1])<<8 | uint32(b[end])<<16 }
	text, loose := three(n.all), uint32(0)
	if n.mask != nil {
		loose = three(n.mask)
	}
	for upper := loose; ; upper = (upper - 1) & loose { // all subsets (Knuth, section 7.1.3)
		f(text &^ upper)
		if upper == 0 {
			return
		}
	}
}

// maxWindow bounds the window: beyond it, little is left to skip, and short
// texts would be all tail.
const maxWindow = 32

// widest returns the widest window that every needle fills.
func (s *Set) widest() int {
	width := maxWindow
	for i := range s.needles {
		width = min(width, len(s.needles[i].all))
	}
	return width
}

// slot hashes a block of three bytes (multiplicative hashing, Knuth volume 3,
// section 6.4).
func (s *Set) slot(three uint32) uint32 { return three * multiplier >> s.down }

const multiplier = 0x9e3779b1

func (s *Set) headSlot(head uint64) uint64 {
	return (head | 0x2020202020202020) * 0x9e3779b97f4a7c15 >> s.deep
}

// Longest returns the length in bytes of the longest form, which bounds what
// a stream holds back.
func (s *Set) Longest() int {
	if s == nil {
		return 0
	}
	return s.longest
}

// empty has no needles.
var empty Set

// Holds returns for each byte whether some needle has it. It must not be written to.
func (s *Set) Holds() *[256]bool {
	if s == nil {
		s = &empty
	}
	return &s.holds
}

// Scan calls found for every occurrence b[start:end] of a form of value id, in
// the order of their starts; several may have the same start. It stops when
// found returns false. It returns the first offset at which an occurrence may
// begin that ends beyond b, or len(b) when there is none; after an early stop
// the offset means nothing.
func (s *Set) Scan(b []byte, found func(start, end, id int) bool) (pending int) {
	if s == nil || len(s.needles) == 0 {
		return len(b)
	}
	i, pending, more := s.windows(b, found)
	if !more {
		return pending
	}
	// Windows that do not fit any more: is the rest the beginning of a head?
	for start := max(0, i-(s.window-1)); start < pending; start++ {
		if s.begins(b[start:]) {
			return start
		}
	}
	return pending
}

// Has tells whether a form of a value is in b.
func (s *Set) Has(b []byte) bool {
	if s == nil || len(s.needles) == 0 {
		return false
	}
	_, _, none := s.windows(b, nothing)
	return !none
}

// nothing is what Has calls for the first occurrence.
func nothing(int, int, int) bool { return false }

// windows calls found for every occurrence, as Scan does. It returns the last byte of the first window that does not fit, the
// offset of the first occurrence that is cut, or len(b), and found's last answer.
func (s *Set) windows(b []byte, found func(start, end, id int) bool) (i, pending int, more bool) {
	pending = len(b)
	shift, down, farthest := s.shift, s.down, s.window-block+1
	i = s.window - 1 // the window's last byte
	for i < len(b) {
		three := binary.LittleEndian.Uint32(b[i-3:i+1]) >> 8
		if skip := shift[three*multiplier>>(down&31)]; skip != 0 {
			if i += int(skip); int(skip) == farthest {
				i = s.leap(b, i, farthest)
			}
			continue
		}
		cut, more := s.candidates(b, i-(s.window-1), found)
		if !more {
			return i, pending, false
		}
		if cut {
			pending = min(pending, i-(s.window-1))
		}
		i++
	}
	return i, pending, true
}

// leap moves a window that ends with byte i for as long as it and the next three can each move as far as any can. These do not
// wait for each other.
func (s *Set) leap(b []byte, i, farthest int) int {
	shift, down := s.shift, s.down&31
	for i+3*farthest < len(b) {
		i1, i2, i3 := i+farthest, i+2*farthest, i+3*farthest
		sum := uint(shift[binary.LittleEndian.Uint32(b[i-3:i+1])>>8*multiplier>>down])
		sum += uint(shift[binary.LittleEndian.Uint32(b[i1-3:i1+1])>>8*multiplier>>down])
		sum += uint(shift[binary.LittleEndian.Uint32(b[i2-3:i2+1])>>8*multiplier>>down])
		sum += uint(shift[binary.LittleEndian.Uint32(b[i3-3:i3+1])>>8*multiplier>>down])
		if sum != uint(4*farthest) {
			break
		}
		i += 4 * farthest
	}
	return i
}

// candidates compares the needles that may begin at start. cut tells that one
// of them goes on beyond b; more is found's answer.
func (s *Set) candidates(b []byte, start int, found func(start, end, id int) bool) (cut, more bool) {
	head := binary.LittleEndian.Uint64(b[start:])
	for at := s.heads[s.headSlot(head)]; at != 0; {
		n := &s.needles[at-1]
		at = n.next
		if n.head != head|n.loose {
			continue
		}
		rest := b[start:]
		if len(rest) < len(n.all) {
			cut = cut || n.begins(rest, len(rest))
			continue
		}
		if n.begins(rest, len(n.all)) && !found(start, start+len(n.all), n.id) {
			return cut, false
		}
	}
	return cut, true
}

// begins tells whether some needle begins with tail, which is shorter than a
// head.
func (s *Set) begins(tail []byte) bool {
	for _, at := range s.first[tail[0]] {
		if s.needles[at].begins(tail, len(tail)) {
			return true
		}
	}
	return false
}
