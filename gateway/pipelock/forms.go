package pipelock

import (
	"sync"

	"gatewayd/gateway/formats"
	"gatewayd/gateway/needle"
)

// leastHeld is how many bytes of what may be a token must be there before they are held back: see Stream.Push.
const leastHeld = 4

// formStream looks into one stream as its reader will see it, for tokens by their form and for known ones, after those were
// looked for in what was written.
type formStream struct {
	st    *Stream
	view  view
	room  *formRoom // nil between texts
	held  []byte    // bytes of the stream from gone on
	gone  int64     // bytes of the stream that were let go before the last call
	next  int64     // bytes of the stream that were let go with it
	leak  *LeakError
	known escaped
	// tokens are those that are looked for in what was encoded, to the text's end.
	tokens *Known
}

// formRoom is what a formStream works with for one text.
type formRoom struct {
	f     *formStream
	found formats.Stream
	coded needle.Stream // of f.tokens
	also  func(encoding string, text []byte, ends bool)
}

// formRooms holds those that are not in use.
var formRooms = sync.Pool{New: func() any {
	r := &formRoom{}
	r.also = r.encoded
	return r
}}

// begin begins a text.
func (f *formStream) begin() {
	*f = formStream{st: f.st, view: view{escapes: f.st.written}, room: formRooms.Get().(*formRoom), held: f.held[:0], known: f.known, tokens: f.st.tokens}
	f.room.f = f
	f.room.found.Reset(f.st.s.formats, f.st.s.policy)
	if len(f.tokens.tokens) > 0 {
		f.room.coded.Reset(f.tokens.set)
		f.room.found.Encoded(f.room.also)
	}
}

// encoded looks for known tokens in a text that was encoded: what a token alone looks like in that encoding is known too,
// but not when it is broken into lines.
func (r *formRoom) encoded(encoding string, text []byte, ends bool) {
	if ends {
		r.coded.Rest()
		return
	}
	f := r.f
	if _, leak := f.tokens.search(&r.coded, text, f.st.host, f.st.place); leak != nil && f.leak == nil {
		f.leak = leak
		f.leak.Finding.Encoding = encoding
	}
}

// push takes the next bytes and returns those that can be let go, or what keeps them. They may lie in p. Of those only the
// last, tail in number, may begin a token as they are written.
func (f *formStream) push(p []byte, tail int) ([]byte, *LeakError) {
	all := f.with(p)
	free := f.see(f.decode(p), tail)
	if f.leak != nil {
		return nil, f.leak
	}
	end, from := f.gone+int64(len(all)), f.view.origin(free)
	if free == f.view.given || end-from < leastHeld {
		f.held, f.gone, f.next = f.held[:0], end, end
		return all, nil
	}
	f.next = max(f.gone, from)
	if len(f.held) == 0 {
		f.held = append(f.held, p...)
	}
	return f.held[:f.next-f.gone], nil
}

// decode returns the text of the next bytes.
func (f *formStream) decode(p []byte) []byte {
	f.view.telling = f.st.tokens.set.Holds()
	return f.view.decode(p)
}

// see looks into the next bytes of the text, and returns how many of all can be let go.
func (f *formStream) see(text []byte, tail int) int64 {
	free := f.room.found.Push(text, f.take)
	if leak := f.known.push(f.st, text, tail, f.view.undone); leak != nil && f.leak == nil {
		f.leak = leak
	}
	return min(free, f.view.given-int64(f.known.held))
}

// with returns what was held back and p behind it: p itself, if nothing was.
func (f *formStream) with(p []byte) []byte {
	if f.room == nil {
		f.begin()
	}
	f.held = f.held[:copy(f.held, f.held[f.next-f.gone:])]
	f.gone = f.next
	if len(f.held) == 0 {
		return p
	}
	f.held = append(f.held, p...)
	return f.held
}

// flush takes the next bytes and returns all that is held.
func (f *formStream) flush(p []byte) ([]byte, *LeakError) {
	free, leak := f.push(p, len(p))
	f.known.flush()
	if leak != nil || len(f.held) == 0 {
		return free, leak
	}
	f.next = f.gone + int64(len(f.held))
	return f.held, nil
}

// end takes the last bytes and returns what was held back. The next push begins a new stream.
func (f *formStream) end(p []byte, tail int) ([]byte, *LeakError) {
	rest := f.with(p)
	f.see(f.decode(p), tail)
	f.see(f.view.carry, len(f.view.carry))
	f.room.found.End(f.take)
	if f.known.flush(); !f.st.goesOn {
		f.known.end()
	}
	f.room.f = nil
	formRooms.Put(f.room)
	f.room = nil
	f.view.release()
	return rest, f.leak
}

// take takes one finding. Of leaks the first is kept.
func (f *formStream) take(found formats.Finding) {
	if f.st.notes.all != nil { // else what was let go must be found out first, and that may lie before
		found.Offset = f.view.origin(found.Offset)
	}
	f.st.take(&f.leak)(found)
}
