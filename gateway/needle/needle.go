// Package needle finds known byte strings in streams, in every form that
// [Forms] lists, at about the speed of memory and with memory bounded by the
// longest form.
//
// A [Set] is searched by the algorithm of Wu and Manber ("A fast algorithm for
// multi-pattern searching", 1994): two bytes at the end of an eight-byte
// window tell how far the window may move, so most bytes are never looked at.
package needle

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// MinLength is the length in bytes below which a string is not looked for:
// shorter ones turn up in ordinary text.
const MinLength = 8

// Set is a compiled set of needles. It is immutable and may be used by any
// number of goroutines. A nil Set has no needles.
type Set struct {
	needles []needle
	// shift maps the hash of a window's last two bytes to how far the window
	// may move: 0 when a needle may begin where the window does.
	shift []uint8
	bits  uint // len(shift) == 1<<bits
	// starts maps the same hash to the needles whose eight-byte head ends in
	// such a pair.
	starts map[uint16][]int32
	// first maps a byte to the needles that begin with it.
	first   [256][]int32
	longest int
}

type needle struct {
	head uint64 // the first eight bytes, little-endian
	all  []byte
	id   int
}

// NewSet compiles every form of every value; id i of a match is the value's
// index. Values shorter than MinLength are not looked for: whoever keeps
// values that matter refuses short ones first.
func NewSet(values []string) *Set {
	s := &Set{starts: make(map[uint16][]int32)}
	for id, value := range values {
		for _, form := range Forms(value) {
			all := []byte(form)
			s.first[all[0]] = append(s.first[all[0]], int32(len(s.needles)))
			s.needles = append(s.needles, needle{binary.LittleEndian.Uint64(all), all, id})
			s.longest = max(s.longest, len(all))
		}
	}
	// Eight times as many slots as there are pairs keep false hits rare; 12 to
	// 16 bits keep the table within 4 to 64 KB.
	s.bits = uint(min(16, max(12, bits.Len(uint(len(s.needles)*MinLength*8)))))
	s.shift = make([]uint8, 1<<s.bits)
	for i := range s.shift {
		s.shift[i] = MinLength - 1
	}
	for i, n := range s.needles {
		for p := 1; p < MinLength; p++ {
			h := s.hash(n.all[p-1], n.all[p])
			s.shift[h] = min(s.shift[h], uint8(MinLength-1-p))
		}
		h := s.hash(n.all[MinLength-2], n.all[MinLength-1])
		s.starts[h] = append(s.starts[h], int32(i))
	}
	return s
}

func (s *Set) hash(a, b byte) uint16 {
	return uint16((uint(a)<<(s.bits-8) ^ uint(b)) & (1<<s.bits - 1))
}

// Longest returns the length in bytes of the longest form, which bounds what
// a stream holds back.
func (s *Set) Longest() int {
	if s == nil {
		return 0
	}
	return s.longest
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
	pending = len(b)
	shift, width := s.shift, s.bits-8
	mask := uint(len(shift) - 1)
	i := MinLength - 1 // the window's last byte
	for i < len(b) {
		if skip := shift[(uint(b[i-1])<<width^uint(b[i]))&mask]; skip != 0 {
			i += int(skip)
			continue
		}
		cut, more := s.candidates(b, i-(MinLength-1), found)
		if !more {
			return pending
		}
		if cut {
			pending = min(pending, i-(MinLength-1))
		}
		i++
	}
	// Windows that do not fit any more: is the rest the beginning of a head?
	for start := max(0, i-(MinLength-1)); start < pending; start++ {
		if s.begins(b[start:]) {
			return start
		}
	}
	return pending
}

// candidates compares the needles that may begin at start. cut tells that one
// of them goes on beyond b; more is found's answer.
func (s *Set) candidates(b []byte, start int, found func(start, end, id int) bool) (cut, more bool) {
	head := binary.LittleEndian.Uint64(b[start:])
	h := s.hash(b[start+MinLength-2], b[start+MinLength-1])
	for _, at := range s.starts[h] {
		n := &s.needles[at]
		if n.head != head {
			continue
		}
		rest := b[start:]
		if len(rest) < len(n.all) {
			cut = cut || bytes.HasPrefix(n.all, rest)
			continue
		}
		if bytes.HasPrefix(rest, n.all) && !found(start, start+len(n.all), n.id) {
			return cut, false
		}
	}
	return cut, true
}

// begins tells whether some needle begins with tail, which is shorter than a
// head.
func (s *Set) begins(tail []byte) bool {
	for _, at := range s.first[tail[0]] {
		if bytes.HasPrefix(s.needles[at].all, tail) {
			return true
		}
	}
	return false
}
