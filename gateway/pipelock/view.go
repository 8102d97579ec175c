package pipelock

import (
	"bytes"
	"math/bits"
	"slices"
	"sync"
	"unicode"
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
	short   shortTable // of telling
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
	marks [2 * readSize / blockSize]mark
}

// viewRooms holds those that are not in use.
var viewRooms = sync.Pool{New: func() any { return new(viewRoom) }}

// mark says that byte given of the text is byte read of the stream, and so on behind it up to the next mark, but for bytes that
// were dropped, all of an escape but its last: bit i is for the one that is i bytes behind read.
type mark struct {
	given, read int64
	dropped     uint64
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
	v.short.tell(v.telling)
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
		plain := v.special(p[at:])
		if plain < 0 {
			plain = len(p) - at
		}
		v.out = append(v.out, p[at:at+plain]...)
		v.given, v.read = v.given+int64(plain), v.read+int64(plain)
		if at += plain; at == len(p) {
			break
		}
		if n := v.undoBlocks(p[at:]); n > 0 {
			at += n
			continue
		}
		c, times, n := v.unescape(p[at:])
		if n == 0 {
			break
		}
		for range times {
			v.out = append(v.out, c)
		}
		v.undone = v.undone || v.telling[c]
		v.mark(mark{v.given, v.read, 1<<(n-times) - 1})
		at += n
		v.given, v.read = v.given+int64(times), v.read+int64(n)
	}
	return at
}

// mark notes m, if it says what the mark before does not.
func (v *view) mark(m mark) {
	if m.dropped != 0 {
		v.marks = append(v.marks, m)
	}
}

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
	if digits > 2 {
		return ascii(sum), digits
	}
	return byte(sum), digits
}

// ascii returns a character, or 0xff for one beyond ASCII.
func ascii(sum int) byte {
	if sum >= 0x80 {
		return 0xff
	}
	return byte(sum)
}

// character returns what four hexadecimal digits stand for, as hexDigits does.
func character(digits *[4]byte) byte {
	return ascii(digit(digits[0])<<12 | digit(digits[1])<<8 | digit(digits[2])<<4 | digit(digits[3]))
}

// digit returns the value of a hexadecimal digit, or -1.
func digit(c byte) int { return int(digitValues[c]) }

var digitValues = func() (values [256]int8) {
	for c := range values {
		values[c] = -1
	}
	for value, c := range "0123456789abcdef" {
		values[c], values[unicode.ToUpper(c)] = int8(value), int8(value)
	}
	return values
}()

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
	for before := range int64(bits.OnesCount64(last.dropped)) {
		if n <= int64(bits.TrailingZeros64(last.dropped))-before {
			break
		}
		last.dropped &= last.dropped - 1
		at++
	}
	return at
}
