package pipelock

import (
	"encoding/binary"
	"math/bits"
)

// undoBlocks is undo for blocks that p begins with, the first of which begins with a backslash: as many as it can do at once. It
// returns their length, 0 where p is too short.
func (v *view) undoBlocks(p []byte) (n int) {
	if v.escapes != backslashes {
		return 0
	}
	if n = v.undoAtOnce(p); n > 0 {
		return n
	}
	for len(p)-n >= len(blocks{}) {
		found := backslashesIn((*[blockSize]byte)(p[n:]))
		if found == 0 {
			break
		}
		n += v.undoBlock(p[n:], found)
	}
	return n
}

// undoAtOnce is undoBlocks by undo64, up to a block that has no escapes, or one that undo64 leaves to others.
func (v *view) undoAtOnce(p []byte) (at int) {
	if !hasUndo64 {
		return 0
	}
	text, end := v.out[:cap(v.out)], len(v.out)
	for dropped := ^uint64(0); dropped != 0 && len(p)-at >= blockSize; {
		written := (*[blockSize]byte)(p[at:])
		var long, tells uint64
		var n int
		if dropped, long, tells, n = undo64((*[blockSize]byte)(text[end:]), written, &v.short); n == 0 {
			break
		}
		v.undone = v.undone || tells != 0
		for ; long != 0; long &= long - 1 {
			last := uint(bits.TrailingZeros64(long)+4) % blockSize
			c := character((*[4]byte)(written[last-3:]))
			text[end+int(last)-bits.OnesCount64(dropped&(1<<last-1))] = c
			v.undone = v.undone || v.telling[c]
		}
		v.mark(mark{v.given, v.read, dropped})
		given := n - bits.OnesCount64(dropped)
		v.given, v.read = v.given+int64(given), v.read+int64(n)
		at, end = at+n, end+given
	}
	v.out = text[:end]
	return at
}

// shortTable is how undo64 knows the letters of short escapes, each by its place in keys.
type shortTable struct {
	keys      [16]byte
	values    [16]byte // what they stand for, with the highest bit for what tells
	backslash uint64   // all bits, if a backslash tells
	packed    *[256][8]uint8
	telling   *[256]bool // what the table was made of
}

// packed has for each set of bytes of a word that are dropped the places of those that stay, in order.
var packed = func() (all [256][8]uint8) {
	for dropped := range all {
		places := &all[dropped]
		n := 0
		for i := range places {
			places[i] = 0x80 // nothing
		}
		for i := range uint8(8) {
			if dropped>>i&1 == 0 {
				places[n] = i
				n++
			}
		}
	}
	return all
}()

// shortKeys are the letters of short escapes in the places where undo64 looks for them.
var shortKeys = [16]byte{0xff, 0xff, '"', 'r', 0xff, 't', 'n', 0xff, 0xff, 0xff, 'b', 0xff, 0xff, 0xff, 'f', '/'}

// tell makes a table for what matters to whoever asks.
func (t *shortTable) tell(telling *[256]bool) {
	if t.telling == telling {
		return
	}
	*t = shortTable{keys: shortKeys, packed: &packed, telling: telling}
	for i, letter := range shortKeys {
		c := short[letter]
		if t.values[i] = c; telling[c] {
			t.values[i] |= 0x80
		}
	}
	if telling['\\'] {
		t.backslash = ^uint64(0)
	}
}

// undoBlock is undo for the first block of p, which has as many bytes as blocks has: found has a bit for each backslash in it.
func (v *view) undoBlock(p []byte, found uint64) (n int) {
	text, written := (*blocks)(v.out[len(v.out):cap(v.out)]), (*blocks)(p)
	m, from := mark{v.given, v.read, found}, uint(0) // m's place in the block
	at, end, seen := uint(0), uint(0), uint64(0)
	for {
		if at, end, found, seen = undoShort(text, written, at, end, found, seen); found == 0 {
			break
		}
		c, times, n := unescapeJSON(p[at:])
		v.undone = v.undone || v.telling[c]
		if at+uint(n) > blockSize { // what the mark cannot say
			m.dropped &= 1<<at - 1
			v.mark(m)
			from, m = at, mark{v.given + int64(end), v.read + int64(at), 0}
		}
		for range times {
			text[end] = c
			end++
		}
		m.dropped = m.dropped&^((1<<n-1)<<(at-from)) | (1<<(n-times)-1)<<(at-from)
		at += uint(n)
		found &^= 1<<at - 1 // what else the escape has
	}
	v.mark(m)
	if at < blockSize {
		copyBlock(text, end, written, at)
		end += blockSize - at
		at = blockSize
	}
	for ; seen != 0; seen &= seen - 1 {
		v.undone = v.undone || v.telling[bits.TrailingZeros64(seen)]
	}
	v.out = v.out[:len(v.out)+int(end)]
	v.given, v.read = v.given+int64(end), v.read+int64(at)
	return int(at)
}

// undoShort undoes the escapes of one backslash and one character, from byte at of a block on, as long as there is no other
// between them. seen gets a bit for what each stands for. It is a function of its own, so that all that the loop needs has room
// in registers.
func undoShort(text, written *blocks, at, end uint, found, seen uint64) (uint, uint, uint64, uint64) {
	for found != 0 {
		i := uint(bits.TrailingZeros64(found)) % blockSize
		copyBlock(text, end, written, at) // whatever there is to copy: how much that is cannot be foretold
		end += i - at
		at = i
		c := short[written[i+1]]
		if c == 0 {
			break
		}
		text[end%(2*blockSize)] = c
		seen |= 1 << (c % 64)
		end++
		at += 2
		found &= found - 1
	}
	return at, end, found, seen
}

var noBytes [256]bool

const (
	blockSize = 64 // bytes that are searched for escapes at a time
	// A constant in each byte of a word, and each byte's highest bit.
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// backslashesIn returns a bit for each byte of b: 1 for a backslash.
func backslashesIn(b *[blockSize]byte) uint64 {
	return backslashesOf(b[0:]) | backslashesOf(b[8:])<<8 | backslashesOf(b[16:])<<16 | backslashesOf(b[24:])<<24 |
		backslashesOf(b[32:])<<32 | backslashesOf(b[40:])<<40 | backslashesOf(b[48:])<<48 | backslashesOf(b[56:])<<56
}

// backslashesOf is backslashesIn for the first eight bytes of b.
func backslashesOf(b []byte) uint64 {
	x := binary.LittleEndian.Uint64(b) ^ '\\'*ones
	x = ((x&^highs + ^uint64(highs)) | x) & highs // not the highest bit of each byte that is 0 now
	return (x ^ highs) >> 7 * 0x0102040810204080 >> 56
}

// blocks is one block, the bytes behind it that its last escape may have, and room for what may be copied with those.
type blocks [3 * blockSize]byte

// copyBlock copies a block from byte at of one to byte end of the other, both before the end of the second block: word by word,
// since as a whole it would be a call.
func copyBlock(to *blocks, end uint, from *blocks, at uint) {
	t, f := to[end%(2*blockSize):][:blockSize], from[at%(2*blockSize):][:blockSize]
	*(*[16]byte)(t[0:]) = [16]byte(f[0:])
	*(*[16]byte)(t[16:]) = [16]byte(f[16:])
	*(*[16]byte)(t[32:]) = [16]byte(f[32:])
	*(*[16]byte)(t[48:]) = [16]byte(f[48:])
}

// short has what an escape of one backslash and one character stands for, which most are; 0 for what is none.
var short = [256]byte{'n': '\n', 't': '\t', 'r': '\r', 'b': '\b', 'f': '\f', '"': '"', '/': '/'}
