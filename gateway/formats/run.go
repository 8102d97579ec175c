package formats

import (
	"encoding/binary"
	"math/bits"
)

// findRun returns where the first run in text begins, or false and where one may that goes on behind text.
func findRun(text []byte) (at int, ok bool) {
	at, ok = findRunInBlocks(text)
	if ok {
		return at, true
	}
	n, ok := findRunInWords(text[at:])
	return at + n, ok
}

// findRunInWords is findRun without what a processor may be good at. Wherever words of eight bytes begin, a run has two whole
// ones that follow each other, one of which is every other one.
func findRunInWords(text []byte) (at int, ok bool) {
	for i := 0; i+wordSize <= len(text); {
		words, step := uint(0), 2*wordSize
		if i+9*wordSize <= len(text) {
			step = 8 * wordSize
			if nine := (*[9 * wordSize]byte)(text[i:]); cleanPair(nine) {
				words = memberWords(nine)
			}
		} else {
			words = memberWord(text[i:])
		}
		for words != 0 && !longAround(text, i+2*wordSize*bits.TrailingZeros(words)) {
			words &= words - 1
		}
		if words == 0 {
			i += step
			continue
		}
		from, n := runAround(text, i+2*wordSize*bits.TrailingZeros(words))
		if n == shortestRun {
			return from, true
		}
		i = from + n + 1
	}
	from := len(text)
	for from > 0 && base64Values[text[from-1]] != notMember {
		from--
	}
	return from, false
}

// longAround tells whether the word at i may be in a run of shortestRun: that has all of the word before it, or behind it.
func longAround(text []byte, i int) bool {
	if i < wordSize || len(text) < i+2*wordSize {
		return true
	}
	before, behind := text[i-wordSize:i], text[i+wordSize:i+2*wordSize]
	return base64Values[before[0]]|base64Values[before[wordSize-2]] != notMember ||
		base64Values[behind[1]]|base64Values[behind[wordSize-1]] != notMember
}

// runAround returns the characters of base64 around i, at most shortestRun of them.
func runAround(text []byte, i int) (from, n int) {
	for from = i; from > 0 && base64Values[text[from-1]] != notMember; {
		from--
	}
	return from, members(text[from:min(len(text), from+shortestRun)])
}

// cleanPair tells whether two words of b that follow each other have no byte that is less than '+' or not ASCII. Such bytes
// are in no run, and are near in almost all other text.
func cleanPair(b *[9 * wordSize]byte) bool {
	w0, w1, w2, w3, w4 := unclean(b[0:]), unclean(b[wordSize:]), unclean(b[2*wordSize:]), unclean(b[3*wordSize:]), unclean(b[4*wordSize:])
	w5, w6, w7, w8 := unclean(b[5*wordSize:]), unclean(b[6*wordSize:]), unclean(b[7*wordSize:]), unclean(b[8*wordSize:])
	return (none(w0|w1)|none(w1|w2)|none(w2|w3)|none(w3|w4)|none(w4|w5)|none(w5|w6)|none(w6|w7)|none(w7|w8))>>63 != 0
}

// unclean returns the first word of b with the highest bit of some byte set if one is less than '+' or not ASCII; other bits
// mean nothing.
func unclean(b []byte) uint64 {
	x := binary.LittleEndian.Uint64(b)
	return (x-'+'*ones)&^x | x
}

// none returns a word whose highest bit says that no byte of x has its own.
func none(x uint64) uint64 { return (x&highs - 1) &^ x }

// memberWords returns a bit for every other word of b, if that is characters of base64 throughout.
func memberWords(b *[9 * wordSize]byte) uint {
	return memberWord(b[0:]) | memberWord(b[2*wordSize:])<<1 | memberWord(b[4*wordSize:])<<2 | memberWord(b[6*wordSize:])<<3 | memberWord(b[8*wordSize:])<<4
}

func memberWord(b []byte) uint {
	x := binary.LittleEndian.Uint64(b)
	// In what follows the highest bit of each byte is the answer, and no sum is more than 0xff.
	y := x &^ highs
	small := y | 0x20*ones
	letter := (small + (0x80-'a')*ones) &^ (small + (0x7f-'z')*ones)
	sign := (y + (0x80-'+')*ones) &^ (y + (0x7f-'9')*ones) // '+' to '9', among which are ',' and '.'
	other := ((y | 0x02*ones) ^ '.'*ones) + 0x7f*ones      // all but those two
	underscore := ^((y ^ '_'*ones) + 0x7f*ones)
	return uint(none(^((letter | sign&other | underscore) &^ x)) >> 63)
}
