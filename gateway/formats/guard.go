package formats

import "encoding/binary"

// longestGuarded is the length of the longest literal that has a guard worth its name.
const longestGuarded = 3

// guard tells for most places where a short literal ends that no match begins with it. Literals are found in any case; a
// guard knows in which ways of writing it, and behind what, the rule's expression takes this one. Bit v of entry k stands
// for the way v (see way), behind a byte of kind k.
type guard [kinds]uint8

// way returns how the literal is written that ends before byte end of b: for each of the last three bytes whether it is a small
// letter, if it is a letter.
func way(b []byte, end int) (v uint8) {
	if end > longestGuarded { // bit 5 of the last three bytes of a word
		w := binary.LittleEndian.Uint32(b[end-4 : end])
		return uint8(w>>29&1 | w>>20&2 | w>>11&4)
	}
	for i := range end {
		v |= b[end-1-i] >> 5 & 1 << i
	}
	return v
}

// guard returns the guard of one of the rule's literals.
func (r *rule) guard(atom string) (g guard) {
	if len(atom) > longestGuarded || r.back != (span{}) {
		return guard{0xff, 0xff, 0xff, 0xff}
	}
	for k := range kinds {
		for upper := range 1 << len(atom) {
			text := []byte(atom)
			for i, c := range text {
				if 'a' <= c && c <= 'z' && upper>>i&1 != 0 {
					text[i] = c - 'a' + 'A'
				}
			}
			if _, _, refused := r.machine.skim(r.machine.start(k), text); refused {
				continue
			}
			for before := range 1 << (longestGuarded - len(text)) { // what is before a literal of two bytes may be anything
				g[k] |= 1 << (way(text, len(text)) | uint8(before)<<len(text))
			}
		}
	}
	return g
}
