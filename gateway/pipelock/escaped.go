package pipelock

import "gatewayd/gateway/needle"

// escaped looks for known tokens in a text whose escapes were undone. One with an escape for a single byte is in none of the
// forms that are looked for in what was written; where there is no escape, that search has found what there is, and nothing
// is done again.
type escaped struct {
	found   needle.Stream
	pending bool // what was pushed may end in the beginning of a token
	held    int  // how many bytes that may belong to one must wait, those of them that were let go counted
}

// push takes the next bytes of st's text. undone says that one of them that tokens have was escaped, or that an escape is cut
// behind them; if not, no more than the last, tail in number, may begin a token that goes on.
func (e *escaped) push(st *Stream, text []byte, tail int, undone bool) *LeakError {
	if !undone && !e.pending {
		text = text[len(text)-min(tail, len(text)):]
	}
	if len(text) == 0 {
		return nil
	}
	e.found.Use(st.tokens.set)
	w, leak := st.tokens.search(&e.found, text, st.host, st.place)
	e.pending, e.held = w.Next < len(w.Bytes), 0
	if w.To < len(w.Bytes) {
		e.held = len(w.Bytes) - w.Next
	}
	return leak
}

// flush lets go of what must wait. A token that goes on is still found.
func (e *escaped) flush() {
	e.found.Flush()
	e.held = 0
}

// end ends the text.
func (e *escaped) end() {
	e.found.Rest()
	e.pending, e.held = false, 0
}
