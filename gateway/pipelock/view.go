package pipelock

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
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
	room    *buffer // out's, until it is outgrown; nil before the first escape
	read    int64   // bytes of the stream that are in what was given out, without carry
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
		buffers.Put(v.room)
		v.room, v.out = nil, nil
	}
}

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
		v.room = buffers.Get().(*buffer)
		v.out = v.room[:]
	}
	out := slices.Grow(v.out[:0], len(p)+wordSize) // an escape is never shorter than its text
	out = out[:cap(out)]
	telling := v.telling
	if telling == nil {
		telling = &noBytes
	}
	end := 0
	read, given := v.read+int64(len(p)), v.given
	for {
		i := v.plain(out[end:], p)
		end += i
		if p = p[i:]; len(p) == 0 {
			break
		}
		c, times, n := byte(0), 1, 2
		if len(p) > 1 && p[0] == '\\' {
			c = short[p[1]]
		}
		if c == 0 {
			if c, times, n = v.unescape(p); n == 0 { // cut
				v.carry, v.undone = bytes.Clone(p), true
				break
			}
		}
		v.undone = v.undone || telling[c]
		for range times {
			out[end] = c
			end++
		}
		p = p[n:]
		if n != times {
			v.marks = append(v.marks, mark{given + int64(end), read - int64(len(p))})
		}
	}
	v.out, v.read, v.given = out, read-int64(len(p)), given+int64(end)
	return out[:end]
}

var noBytes [256]bool

const (
	// wordSize is how many bytes are copied at a time where escapes are near, and soon how many of them are looked at in
	// this way.
	wordSize = 8
	soon     = 4 * wordSize
	// A constant in each byte of a word, and each byte's highest bit.
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain copies what p begins with, up to the first byte that may begin an escape, and returns its length. out has room for
// wordSize bytes more than p has; what is behind the copy in it is overwritten.
func (v *view) plain(out, p []byte) int {
	n := 0
	for v.escapes == backslashes && n < soon && n+wordSize <= len(p) {
		x := binary.LittleEndian.Uint64(p[n:])
		binary.LittleEndian.PutUint64(out[n:], x)
		x ^= '\\' * ones
		if x = (x - ones) &^ x & highs; x != 0 { // its lowest bit tells the first byte that is a backslash
			return n + bits.TrailingZeros64(x)/8
		}
		n += wordSize
	}
	end := v.special(p[n:])
	if end < 0 {
		end = len(p) - n
	}
	return n + copy(out[n:], p[n:n+end])
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
