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

// longestRun is how many backslashes one escape may begin with: as many as a quotation mark has at the fourth level, and one.
const longestRun = 16

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

// mark says that byte given of the text is byte read of the stream, and so on behind it up to the next mark.
type mark struct{ given, read int64 }

// decode returns the text of the next bytes: p itself if that has no escapes. It is valid until the next call.
func (v *view) decode(p []byte) []byte {
	v.undone = false
	if len(v.carry) == 0 && v.special(p) < 0 {
		v.read += int64(len(p))
		v.given += int64(len(p))
		return p
	}
	if len(v.carry) > 0 {
		p = append(v.carry, p...)
		v.carry = nil
	}
	if v.room == nil {
		v.room = viewRooms.Get().(*viewRoom)
		v.out, v.marks = v.room.text[:], v.room.marks[:0]
	}
	v.out = slices.Grow(v.out[:0], len(p)+wordsAtOnce) // an escape is never shorter than its text
	end, n := v.undo(v.out[:len(p)+wordsAtOnce], p)
	if n < len(p) { // cut
		v.carry, v.undone = bytes.Clone(p[n:]), true
	}
	v.read += int64(n)
	v.given += int64(end)
	return v.out[:end]
}

// undo writes the text of p into out, which has room for wordsAtOnce bytes more than p has, and returns its length and that
// of p's part that it is the text of: all but an escape whose end has not come.
func (v *view) undo(out, p []byte) (end, at int) {
	telling, marks, undone := v.telling, v.marks, false
	if telling == nil {
		telling = &noBytes
	}
	defer func() { v.marks, v.undone = marks, undone }()
	for at < len(p) {
		begin, found := at, uint64(0) // a bit for each byte behind begin that may begin an escape
		if v.escapes == backslashes && len(p)-at >= blockSize+wordsAtOnce {
			found = backslashesIn((*[blockSize]byte)(p[at:]))
		}
		near := found != 0
		if !near {
			n := v.special(p[at:])
			if n < 0 {
				return end + copy(out[end:], p[at:]), len(p)
			}
			end += copy(out[end:], p[at:at+n])
			at += n
			begin, found = at, 1
		}
		for found != 0 {
			if i := begin + bits.TrailingZeros64(found); near {
				end += copyNear(out[end:], p[at:], i-at)
				at = i
			}
			found &= found - 1
			if near && short[p[at+1]] != 0 {
				out[end] = short[p[at+1]]
				undone = undone || telling[out[end]]
				end++
				at += 2
				marks = append(marks, mark{v.given + int64(end), v.read + int64(at)})
				continue
			}
			c, times, n := v.unescape(p[at:])
			if n == 0 {
				return end, at
			}
			found &^= 1<<(at+n-begin) - 1 // what else the escape has
			undone = undone || telling[c]
			for range times {
				out[end] = c
				end++
			}
			if at += n; n != times {
				marks = append(marks, mark{v.given + int64(end), v.read + int64(at)})
			}
		}
		if n := begin + blockSize - at; near && n > 0 {
			end += copyNear(out[end:], p[at:], n)
			at += n
		}
	}
	return end, at
}

var noBytes [256]bool

const (
	// blockSize is how many bytes are searched for escapes at a time, and wordsAtOnce how many are copied where they are near.
	blockSize   = 64
	wordsAtOnce = 16
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

// copyNear copies n bytes, and what is behind them up to a whole number of words, for which both have room; and returns n.
func copyNear(to, from []byte, n int) int {
	*(*[wordsAtOnce]byte)(to) = [wordsAtOnce]byte(from) // mostly all, and whether any at all cannot be foretold
	for i := wordsAtOnce; i < n; i += wordsAtOnce {
		*(*[wordsAtOnce]byte)(to[i:]) = [wordsAtOnce]byte(from[i:])
	}
	return n
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
	return last.read + max(0, given-last.given)
}
