package formats

import "math"

const (
	// shortestRun is how many characters must follow each other to be looked at: 18 bytes in base64.
	shortestRun = 24
	// runBlock is how many characters of a run are judged at a time, and runHead how many tell whether that is text: random
	// bytes look like it once in 300 times.
	runBlock = 256
	runHead  = 8
	// wrapped is the least length of a line of base64 that may go on in the next line (RFC 2045 section 6.8 has 76).
	wrapped = 60
)

// runs undoes base64 and hexadecimal within a stream, one level deep, and has what comes out scanned as a text of its own.
// A run is as many characters of base64 as follow each other, of either alphabet. It is looked at in blocks: those that
// begin with text are undone, and the one behind such a block, so that pictures, archives and hashes cost next to nothing.
type runs struct {
	within *Stream // scans what comes out; nil until there is something
	at     int64   // in the outer stream: what is before was looked at
	inside bool    // at is in a run
	hex    bool    // the run is hexadecimal
	line   int64   // where the run began, or its line
	block  int64   // where its block began
	judged bool    // text says whether the block is undone
	text   bool
	before bool // the block before began with text
	held   int64
	marks  []runMark
	out    []byte // came out, and was not given to within yet
	also   func(encoding string, text []byte, ends bool)
}

// runMark says that byte given of what came out was at byte read of the outer stream, and so on behind it.
type runMark struct{ given, read int64 }

// nothingHeld is what runs.held is while no byte has to wait.
const nothingHeld = math.MaxInt64

// see looks at what st has from r.at on. ended says that the stream ends with it.
func (r *runs) see(st *Stream, ended bool, found func(Finding)) {
	defer r.give(found)
	for {
		rest := st.buf[r.at-st.base:]
		if !r.inside {
			n, ok := findRun(rest)
			if r.at += int64(n); !ok {
				return
			}
			r.begin(rest[n:])
			continue
		}
		if !r.judged && !r.judge(rest, ended, found) {
			return
		}
		n := r.take(st, rest, found)
		r.at += int64(n)
		if r.at-r.block == runBlock {
			r.block, r.judged = r.at, false
			continue
		}
		if rest = rest[n:]; !ended && len(rest) < 4 && len(rest) == members(rest) {
			return // the rest of a group may come
		}
		if !r.endLine(st, rest, ended, found) {
			return
		}
	}
}

// begin begins a run that text begins with.
func (r *runs) begin(text []byte) {
	r.inside, r.line, r.block, r.judged, r.before = true, r.at, r.at, false, false
	var head [runHead]byte
	_, n := undoHex(head[:0], text[:2*runHead])
	r.hex = n == 2*runHead && isText(head[:])
}

// judge decides whether the block that rest begins with is undone. It reports whether there was enough to tell.
func (r *runs) judge(rest []byte, ended bool, found func(Finding)) bool {
	head := rest[:min(len(rest), runHead)]
	n := members(head)
	if n == len(head) && n < runHead && !ended {
		return false
	}
	r.judged, r.text = true, r.before
	if n == 0 {
		return true // the run has ended with the block before
	}
	r.before = r.isText(head[:n])
	if r.text = r.text || r.before; !r.text {
		r.cut(found)
	}
	return true
}

// isText tells whether head, of a block of the run, says text.
func (r *runs) isText(head []byte) bool {
	var room [runHead]byte
	text, _ := r.undo(room[:0], head[:min(len(head), runHead/2)]) // which is enough to tell most
	if !isText(text) {
		return false
	}
	text, _ = r.undo(room[:0], head)
	return isText(text)
}

// take consumes what is there of the block, and returns its length.
func (r *runs) take(st *Stream, rest []byte, found func(Finding)) int {
	rest = rest[:min(len(rest), int(runBlock-(r.at-r.block)))]
	if !r.text {
		return skipped(rest)
	}
	r.mark(st)
	var n int
	r.out, n = r.undo(r.out, rest)
	if len(r.out) > lanes*lane {
		r.give(found)
	}
	return n
}

// mark notes that what comes out next was at r.at.
func (r *runs) mark(st *Stream) {
	if r.within == nil {
		r.within = &Stream{set: st.set, policy: st.policy}
	}
	r.marks = append(r.marks, runMark{r.within.end() + int64(len(r.out)), r.at})
}

// give hands r.out to the inner stream.
func (r *runs) give(found func(Finding)) {
	if len(r.out) == 0 {
		return
	}
	free := r.within.Push(r.out, r.translated(found))
	if r.also != nil {
		r.also(r.encoding(), r.out, false)
	}
	r.out = r.out[:0]
	r.held = nothingHeld
	if free < r.within.end() {
		r.held = r.origin(free)
	}
	i := 1
	for i < len(r.marks) && r.marks[i].given <= r.within.base { // of what is before there will be no more findings
		i++
	}
	r.marks = append(r.marks[:0], r.marks[i-1:]...)
}

// endLine ends the line that ends where rest begins, and the run, unless it goes on in the next line. It reports false
// when more bytes are needed to tell.
func (r *runs) endLine(st *Stream, rest []byte, ended bool, found func(Finding)) bool {
	if n := members(rest[:min(len(rest), 3)]); r.text && !r.hex && n > 0 { // of a group that is not whole
		r.mark(st)
		r.out = r.undoPart(r.out, rest[:n])
		r.at += int64(n)
		rest = rest[n:]
	}
	if length := r.at - r.line; length >= wrapped && length%4 == 0 {
		n := 0
		if n < len(rest) && rest[n] == '\r' {
			n++
		}
		if n < len(rest) && rest[n] == '\n' {
			n++
		}
		if n == len(rest) && !ended {
			return false
		}
		if n > 0 && n < len(rest) && rest[n-1] == '\n' && members(rest[n:n+1]) > 0 {
			r.at += int64(n)
			r.line, r.block, r.judged = r.at, r.at, false
			return true
		}
	}
	r.cut(found)
	r.inside = false
	return true
}

// cut ends the text that was undone so far.
func (r *runs) cut(found func(Finding)) {
	r.give(found)
	r.held = nothingHeld
	if len(r.marks) > 0 {
		r.within.End(r.translated(found))
		r.within.restart()
		r.marks = r.marks[:0]
		if r.also != nil {
			r.also(r.encoding(), nil, true)
		}
	}
}

// translated returns found for findings in what was undone.
func (r *runs) translated(found func(Finding)) func(Finding) {
	return func(f Finding) {
		f.Encoding = r.encoding()
		f.Offset = r.origin(f.Offset)
		found(f)
	}
}

// encoding returns the name of the run's.
func (r *runs) encoding() string {
	if r.hex {
		return "hex"
	}
	return "base64"
}

// origin returns where in the outer stream byte given of what came out was, or the group of characters that holds it.
func (r *runs) origin(given int64) int64 {
	i := len(r.marks) - 1
	for i > 0 && r.marks[i].given > given {
		i--
	}
	n := max(0, given-r.marks[i].given)
	if r.hex {
		return r.marks[i].read + 2*n
	}
	return r.marks[i].read + n/3*4
}

// undo appends the bytes of the whole groups that text begins with, and returns how long those are.
func (r *runs) undo(out, text []byte) ([]byte, int) {
	if r.hex {
		return undoHex(out, text)
	}
	n := 0
	for ; n+4 <= len(text); n += 4 {
		a, b, c, d := base64Values[text[n]], base64Values[text[n+1]], base64Values[text[n+2]], base64Values[text[n+3]]
		if a|b|c|d == notMember {
			break
		}
		out = append(out, a<<2|b>>4, b<<4|c>>2, c<<6|d)
	}
	return out, n
}

// undoPart is undo for a group at the end that lacks characters.
func (r *runs) undoPart(out, text []byte) []byte {
	if len(text) < 2 {
		return out
	}
	b := base64Values[text[1]]
	out = append(out, base64Values[text[0]]<<2|b>>4)
	if len(text) > 2 {
		out = append(out, b<<4|base64Values[text[2]]>>2)
	}
	return out
}

// undoHex is runs.undo for hexadecimal.
func undoHex(out, text []byte) ([]byte, int) {
	n := 0
	for ; n+2 <= len(text); n += 2 {
		a, b := hexValues[text[n]], hexValues[text[n+1]]
		if a|b == notMember {
			break
		}
		out = append(out, a<<4|b)
	}
	return out, n
}

// isText tells whether b looks like the beginning of a text in ASCII.
func isText(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c >= 0x7f) && c != '\n' && c != '\t' && c != '\r' {
			return false
		}
	}
	return len(b) > 0
}

// notMember is the value of a character that is not in an alphabet.
const notMember = 0xff

// values returns the values of characters, the alphabets' first having 0.
func values(alphabets ...string) (v [256]uint8) {
	for i := range v {
		v[i] = notMember
	}
	for _, alphabet := range alphabets {
		for i := range len(alphabet) {
			v[alphabet[i]] = uint8(i)
		}
	}
	return v
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

var (
	base64Values = values(letters+"+/", letters+"-_")
	hexValues    = values("0123456789abcdef", "0123456789ABCDEF")
)

// Words of bytes: a constant in each, and each's highest bit.
const (
	wordSize = 8
	ones     = 0x0101010101010101
	highs    = 0x8080808080808080
)

// members returns how many characters of base64 text begins with.
func members(text []byte) int {
	n := 0
	for n < len(text) && base64Values[text[n]] != notMember {
		n++
	}
	return n
}

// skipped returns how many bytes of a block that is not undone text begins with: up to one that is less than '+' or not
// ASCII. Base64 has none, and has one behind it in nearly every format.
func skipped(text []byte) int {
	n := 0
	for n+4*wordSize <= len(text) && none(unclean(text[n:])|unclean(text[n+wordSize:])|unclean(text[n+2*wordSize:])|unclean(text[n+3*wordSize:]))>>63 != 0 {
		n += 4 * wordSize
	}
	for n < len(text) && '+' <= text[n] && text[n] < 0x80 {
		n++
	}
	return n
}
