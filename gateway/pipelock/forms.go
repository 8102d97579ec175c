package pipelock

import (
	"gatewayd/gateway/formats"
	"gatewayd/gateway/needle"
)

// leastHeld is how many bytes of what may be a token must be there before they are held back: see Stream.Push.
const leastHeld = 4

// formStream looks for tokens by their form in one stream, after the exact ones.
type formStream struct {
	st    *Stream
	view  view
	found *formats.Stream // nil between texts
	held  []byte          // bytes of the stream from gone on
	gone  int64           // bytes of the stream that were let go before the last call
	next  int64           // bytes of the stream that were let go with it
	leak  *LeakError
	// tokens are those that known looks for, to the text's end.
	tokens *Known
	known  needle.Stream
}

// newFormStream returns nil when the scanner looks for no forms.
func newFormStream(st *Stream) *formStream {
	if st.s.formats == nil {
		return nil
	}
	return &formStream{st: st}
}

// begin begins a text.
func (f *formStream) begin() {
	*f = formStream{st: f.st, view: view{escapes: f.st.written}, found: f.st.s.formats.NewStream(f.st.s.policy), held: f.held[:0], tokens: f.st.tokens}
	if len(f.tokens.tokens) > 0 {
		f.known.Reset(f.tokens.set)
		f.found.Encoded(f.encoded)
	}
}

// encoded looks for known tokens in a text that was encoded: what a token alone looks like in that encoding is known too,
// but not when it is broken into lines.
func (f *formStream) encoded(encoding string, text []byte, ends bool) {
	if ends {
		f.known.Rest()
		return
	}
	var at [3]int
	leaks := false
	w := f.known.Push(text, func(start, end, id int) bool {
		if f.tokens.leaks(id, f.st.host) {
			at, leaks = [3]int{start, end, id}, true
		}
		return !leaks
	})
	if leaks && f.leak == nil {
		f.leak = &LeakError{Finding: f.tokens.finding(f.st.place, w.Bytes, at[0], at[1], at[2])}
		f.leak.Finding.Encoding = encoding
	}
}

// push takes the next bytes and returns those that can be let go, or what keeps them. They may lie in p.
func (f *formStream) push(p []byte) ([]byte, *LeakError) {
	all := f.with(p)
	free := f.found.Push(f.view.decode(p), f.take)
	if f.leak != nil {
		return nil, f.leak
	}
	end := f.gone + int64(len(all))
	if f.next = max(f.gone, f.view.origin(free)); free == f.view.given || end-f.next < leastHeld {
		f.held, f.gone, f.next = f.held[:0], end, end
		return all, nil
	}
	if len(f.held) == 0 {
		f.held = append(f.held, p...)
	}
	return f.held[:f.next-f.gone], nil
}

// with returns what was held back and p behind it: p itself, if nothing was.
func (f *formStream) with(p []byte) []byte {
	if f.found == nil {
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
	free, leak := f.push(p)
	if leak != nil || len(f.held) == 0 {
		return free, leak
	}
	f.next = f.gone + int64(len(f.held))
	return f.held, nil
}

// end takes the last bytes and returns what was held back. The next push begins a new stream.
func (f *formStream) end(p []byte) ([]byte, *LeakError) {
	rest := f.with(p)
	f.found.Push(f.view.decode(p), f.take)
	f.found.Push(f.view.carry, f.take)
	f.found.End(f.take)
	f.found = nil
	f.view.release()
	return rest, f.leak
}

// take notes one finding.
func (f *formStream) take(found formats.Finding) {
	finding, ok := f.st.tokens.judge(f.st.host, f.st.place, found)
	switch {
	case !ok || f.leak != nil:
	case finding.Action == Block:
		f.leak = &LeakError{Finding: finding}
	default:
		f.st.notes.add(finding)
	}
}
