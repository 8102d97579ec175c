package pipelock

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
)

// escapes says how the text of a body may be written, so that it is looked at as its reader will see it.
type escapes uint8

const (
	// backslashes are those of JSON strings (RFC 8259 section 7). They are undone wherever they are: JSON also comes in
	// parts of multipart bodies, in events and in messages, and a token has no backslash that could be lost. JSON within a
	// JSON string, such as the arguments of a model's tool, doubles them with each level: a run of them counts as one, so
	// that whatever the level a line's end is one, and no letter beside a token.
	backslashes escapes = iota
	// percents are those of forms (WHATWG URL, application/x-www-form-urlencoded), with "+" for a space. The "&" between
	// fields ends a line, so that each value is a text of its own.
	percents
)

const (
	// longestRun is how many backslashes one escape may begin with: as many as a quotation mark has at the fourth level, and one.
	longestRun = 16
	// longestEscape is that and what may follow, as \u00XX has it.
	longestEscape = longestRun + len("u00XX")
)

// view undoes escapes in a stream and remembers where they were. What is not a valid escape stays as it is.
type view struct {
	escapes escapes
	carry   []byte // an escape whose end has not come
	out     []byte
	room    *viewRoom // out's and marks', until they are outgrown; nil before the first escape
	read    int64     // bytes of the stream that are in what was given out, without carry
	given   int64
	marks   []mark
	// telling are the bytes that matter to whoever asks for undone: that tells whether the last call of decode undid an
	// escape for one of them, or found one cut.
	telling *[256]bool
	undone  bool
}

// release ends the use of what decode returned, and of v.
func (v *view) release() {
	if v.room != nil {
		viewRooms.Put(v.room)
		v.room, v.out, v.marks = nil, nil, nil
	}
}

// viewRoom is what a view works with.
type viewRoom struct {
	text  buffer
	marks [256]mark
}

// viewRooms holds those that are not in use.
var viewRooms = sync.Pool{New: func() any { return new(viewRoom) }}

// mark says that byte given of the text is byte read of the stream, and so on behind it up to the next mark, but for escapes of
// two bytes: bit i of short stands for one that begins i bytes behind read.
type mark struct {
	given, read int64
	short       uint64
}

// decode returns the text of the next bytes: p itself if that has no escapes. It is valid until the next call.
func (v *view) decode(p []byte) []byte {
	v.undone = false
	if len(v.carry) == 0 && v.special(p) < 0 {
		v.read += int64(len(p))
		v.given += int64(len(p))
		return p
	}
	if v.telling == nil {
		v.telling = &noBytes
	}
	if v.room == nil {
		v.room = viewRooms.Get().(*viewRoom)
		v.out, v.marks = v.room.text[:], v.room.marks[:0]
	}
	v.out = slices.Grow(v.out[:0], len(v.carry)+len(p)) // an escape is never shorter than its text
	if n := len(v.carry); n > 0 {
		begun := append(v.carry, p[:min(len(p), longestEscape)]...)
		v.carry = nil
		at := v.undo(begun, n)
		if at < n {
			return v.cut(begun[at:])
		}
		p = p[at-n:]
	}
	if at := v.undo(p, len(p)); at < len(p) {
		return v.cut(p[at:])
	}
	return v.out
}

// cut keeps an escape whose end has not come, and returns what is before it.
func (v *view) cut(escape []byte) []byte {
	v.carry, v.undone = bytes.Clone(escape), true
	return v.out
}

// undo appends the text of p to v.out, which has room for it, up to byte end or somewhat farther. It returns where it stopped:
// before end only at an escape that p does not have the end of.
func (v *view) undo(p []byte, end int) (at int) {
	for at < end {
		if v.escapes == backslashes && len(p)-at >= len(blocks{}) {
			if found := backslashesIn((*[blockSize]byte)(p[at:])); found != 0 {
				at += v.undoBlock(p[at:], found)
				continue
			}
		}
		plain := v.special(p[at:])
		if plain < 0 {
			plain = len(p) - at
		}
		v.out = append(v.out, p[at:at+plain]...)
		v.given, v.read = v.given+int64(plain), v.read+int64(plain)
		if at += plain; at == len(p) {
			break
		}
		c, times, n := v.unescape(p[at:])
		if n == 0 {
			break
		}
		for range times {
			v.out = append(v.out, c)
		}
		v.undone = v.undone || v.telling[c]
		at += n
		v.given, v.read = v.given+int64(times), v.read+int64(n)
		v.mark(mark{v.given, v.read, 0}, n != times)
	}
	return at
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
		for range times {
			text[end] = c
			end++
		}
		m.short &^= (1<<n - 1) << (at - from)
		if n != times {
			m.short &= 1<<(at-from) - 1
			v.mark(m, from > 0)
			from = at + uint(n)
			m = mark{v.given + int64(end), v.read + int64(from), found >> from}
		}
		at += uint(n)
		found &^= 1<<at - 1 // what else the escape has
	}
	v.mark(m, from > 0)
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

// mark notes m, if it says what the mark before does not.
func (v *view) mark(m mark, long bool) {
	if long || m.short != 0 {
		v.marks = append(v.marks, m)
	}
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

// special returns where the first byte is that may begin an escape, or -1.
func (v *view) special(p []byte) int {
	if v.escapes == percents {
		return bytes.IndexAny(p, "%+&")
	}
	return bytes.IndexByte(p, '\\')
}

// unescape returns what the escape that p begins with stands for, c so many times, and its length. The length is 0 when more
// bytes are needed.
func (v *view) unescape(p []byte) (c byte, times, n int) {
	switch p[0] {
	case '+':
		return ' ', 1, 1
	case '&':
		return '\n', 1, 1
	case '\\':
		return unescapeJSON(p)
	}
	value, n := hexDigits(p[1:], 2)
	switch {
	case n < 0:
		return 0, 0, 0
	case n == 0:
		return p[0], 1, 1
	}
	return value, 1, 1 + n
}

// unescapeJSON is unescape for a run of backslashes and what follows it.
func unescapeJSON(p []byte) (c byte, times, n int) {
	run := 1
	for run < len(p) && run < longestRun && p[run] == '\\' {
		run++
	}
	switch {
	case run == longestRun:
		return '\\', run / 2, run / 2
	case run == len(p):
		return 0, 0, 0
	}
	switch c = p[run]; c {
	case '"', '/':
	case 'n':
		c = '\n'
	case 't':
		c = '\t'
	case 'r':
		c = '\r'
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'u':
		switch value, n := hexDigits(p[run+1:], 4); {
		case n < 0:
			return 0, 0, 0
		case n == 0:
			return '\\', 1, run
		default:
			return value, 1, run + 1 + n
		}
	default:
		return '\\', 1, run
	}
	return c, 1, run + 1
}

// hexDigits reads digits hexadecimal digits and returns their value, 0xff for one beyond ASCII: no token has it, whichever
// rune it is. n is 0 if there is something else, and less if p ends before.
func hexDigits(p []byte, digits int) (value byte, n int) {
	sum := 0
	for i := range digits {
		if i >= len(p) {
			return 0, -1
		}
		d := digit(p[i])
		if d < 0 {
			return 0, 0
		}
		sum = sum<<4 | d
	}
	if digits > 2 && sum >= 0x80 {
		sum = 0xff
	}
	return byte(sum), digits
}

// digit returns the value of a hexadecimal digit, or -1.
func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// origin returns where in the stream byte given of the text was, or the nearest byte to that which was asked for before.
func (v *view) origin(given int64) int64 {
	var last mark
	i := 0
	for ; i < len(v.marks) && v.marks[i].given <= given; i++ {
		last = v.marks[i]
	}
	if i > 1 {
		v.marks = append(v.marks[:0], v.marks[i-1:]...)
	}
	n := max(0, given-last.given)
	at := last.read + n
	for before := range int64(bits.OnesCount64(last.short)) {
		if n <= int64(bits.TrailingZeros64(last.short))-before {
			break
		}
		last.short &= last.short - 1
		at++
	}
	return at
}
