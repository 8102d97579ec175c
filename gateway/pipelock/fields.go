package pipelock

import (
	"errors"
	"io"
	"math"
	"strings"

	"gatewayd/gateway/formats"
)

// fields looks into one message after the other in the wire format of protocol buffers, as it comes, for forms in each field
// as a text of its own: in the message as it is written a token's length stands before it and the next field's tag behind,
// and either may be a letter. Known tokens need that not.
//
// What is short is kept until it is whole (see Stream.lookAtFields). A longer field may be a text or a message, which nobody
// says: it is taken for both until it turns out to be no message.
type fields struct {
	st   *Stream
	most int // bytes of what is short

	open  []*field // the message that is not short, and such fields within each other
	pos   int64    // in the message
	short []byte   // the message, or a field
}

// phase is what comes next in a message.
type phase uint8

const (
	atTag phase = iota
	atNumber
	atSize
	atSkipped
	atShort  // a field that is kept until it is whole
	atOpaque // nothing more that can be told apart
)

// field is one that may be a text or a message.
type field struct {
	text   *formats.Stream
	from   int   // in what is pushed: where the text goes on
	held   int64 // bytes of the text that may belong to a token that goes on
	pushed int64
	end    int64 // in the outermost message

	phase phase
	left  int64 // bytes of what is skipped or short
	value uint64
	shift uint
}

// unknown is the end of a message whose length nobody has told.
const unknown = math.MaxInt64

func newFields(st *Stream) *fields { return &fields{st: st, most: holdBack} }

// begin begins a message of size bytes, or unknown.
func (f *fields) begin(size int64) {
	f.pos, f.open, f.short = 0, nil, f.short[:0]
	if size != unknown && size > int64(f.most) {
		f.enter(0, size)
	}
}

// enter goes into a field that begins at p[at:].
func (f *fields) enter(at int, end int64) {
	d := &field{text: f.st.s.formats.NewStream(f.st.s.policy), from: at, end: end}
	if len(f.open) == fieldDepth {
		d.phase = atOpaque
	}
	f.open = append(f.open, d)
}

// pending is how many of the bytes that were pushed were not looked at in every form.
func (f *fields) pending() int {
	n := int64(len(f.short))
	for _, d := range f.open {
		n = max(n, d.held)
	}
	return int(n)
}

// push takes the next bytes of the message.
func (f *fields) push(p []byte) *LeakError {
	if len(f.open) == 0 {
		if len(f.short)+len(p) <= f.most {
			f.short = append(f.short, p...)
			return nil
		}
		f.enter(0, unknown)
		before := f.short
		f.short = nil
		if leak := f.push(before); leak != nil {
			return leak
		}
	}
	for at := 0; at < len(p); {
		n, leak := f.step(p, at)
		if leak != nil {
			return leak
		}
		at += n
		f.pos += int64(n)
		for len(f.open) > 1 && f.pos == f.open[len(f.open)-1].end {
			if leak := f.leave(p[:at]); leak != nil {
				return leak
			}
		}
	}
	for _, d := range f.open {
		if leak := f.see(d, p); leak != nil {
			return leak
		}
		d.from = 0
	}
	return nil
}

// see gives what p has of a field to its text.
func (f *fields) see(d *field, p []byte) (leak *LeakError) {
	d.pushed += int64(len(p) - d.from)
	free := d.text.Push(p[d.from:], f.st.take(&leak))
	d.held = d.pushed - free
	return leak
}

// leave ends the innermost field, which p ends with.
func (f *fields) leave(p []byte) *LeakError {
	d := f.open[len(f.open)-1]
	f.open = f.open[:len(f.open)-1]
	leak := f.see(d, p)
	d.text.End(f.st.take(&leak))
	return leak
}

// end ends the message, wherever it is.
func (f *fields) end() *LeakError {
	leak := f.st.lookAtFields(f.short)
	f.short = f.short[:0]
	for leak == nil && len(f.open) > 0 {
		f.open[len(f.open)-1].from = 0
		leak = f.leave(nil)
	}
	return leak
}

// step reads on at p[at:], in the innermost field, and returns how many bytes that took.
func (f *fields) step(p []byte, at int) (n int, leak *LeakError) {
	d := f.open[len(f.open)-1]
	here := int(min(int64(len(p)-at), d.end-f.pos))
	switch d.phase {
	case atOpaque:
		return here, nil
	case atSkipped, atShort:
		n = int(min(int64(here), d.left))
		d.left -= int64(n)
		if d.phase == atShort {
			f.short = append(f.short, p[at:at+n]...)
		}
		if d.left > 0 {
			return n, nil
		}
		if d.phase == atShort {
			leak = f.st.lookAtFields(f.short)
			f.short = f.short[:0]
		}
		d.phase = atTag
		return n, leak
	}
	if whole := d.varint(p[at]); whole {
		f.value(d, at+1)
	}
	return 1, nil
}

// varint takes the next byte of a number, and tells whether that was its last (encoding, "Base 128 Varints").
func (d *field) varint(c byte) bool {
	if d.shift > 63 || d.shift == 63 && c > 1 {
		d.phase = atOpaque
		return false
	}
	d.value |= uint64(c&0x7f) << d.shift
	d.shift += 7
	return c < 0x80
}

// value makes use of a number that is whole: what follows is at p[at:].
func (f *fields) value(d *field, at int) {
	v := d.value
	d.value, d.shift = 0, 0
	if d.phase == atSize {
		f.sized(d, v, at)
		return
	}
	if d.phase == atNumber {
		d.phase = atTag
		return
	}
	if v>>3 == 0 {
		d.phase = atOpaque
		return
	}
	switch v & 7 {
	case wireVarint:
		d.phase = atNumber
	case wireLength:
		d.phase = atSize
	case wireFixed64:
		d.phase, d.left = atSkipped, 8
	case wireFixed32:
		d.phase, d.left = atSkipped, 4
	case wireBegin, wireEnd:
	default:
		d.phase = atOpaque
	}
}

// sized begins a field of so many bytes.
func (f *fields) sized(d *field, size uint64, at int) {
	begin := f.pos + 1
	switch {
	case size > uint64(d.end-begin):
		d.phase = atOpaque
	case size == 0:
		d.phase = atTag
	case size <= uint64(f.most):
		d.phase, d.left = atShort, int64(size)
	default:
		d.phase = atTag // when that field has ended
		f.enter(at, begin+int64(size))
	}
}

// isProtobuf tells whether a body of the type is one message in the wire format (unary calls of Connect; OTLP; none of the
// names was ever the only one).
func isProtobuf(media string) bool {
	switch media {
	case "application/proto", "application/protobuf", "application/x-protobuf", "application/vnd.google.protobuf", "application/x-google-protobuf":
		return true
	}
	return strings.HasSuffix(media, "+proto") || strings.HasSuffix(media, "+protobuf")
}

// oneMessage is the content of a body that is one message.
type oneMessage struct {
	in     io.Reader
	within *fields
	buf    []byte
}

func newOneMessage(b *takenApart, in io.Reader) *oneMessage {
	return &oneMessage{in: in, within: newFields(b.plain), buf: make([]byte, readSize)}
}

func (m *oneMessage) pending() int { return m.within.pending() }
func (m *oneMessage) whole() bool  { return false }

// step reads some of the message.
func (m *oneMessage) step() error {
	n, err := m.in.Read(m.buf)
	if leak := m.within.push(m.buf[:n]); leak != nil {
		return leak
	}
	if errors.Is(err, io.EOF) {
		if leak := m.within.end(); leak != nil {
			return leak
		}
	}
	return err
}
