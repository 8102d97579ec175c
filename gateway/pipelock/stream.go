package pipelock

import "gatewayd/gateway/needle"

// LeakError reports a token in a stream. Nothing of the token from its fourth
// byte on was let go.
type LeakError struct{ Finding Finding }

// Error names place and rule.
func (e *LeakError) Error() string { return "scan " + e.Finding.Place + ": found " + e.Finding.Rule }

// Stream scans one stream of bytes that comes in pieces: a body, a part of
// one, or the messages of a connection. It belongs to one goroutine.
type Stream struct {
	s           *Scanner
	tokens      *Known // those that are looked for now
	host, place string
	found       needle.Stream
	forms       *formStream // nil when only what was written counts
	written     escapes
	goesOn      bool // known tokens are found across Rest
	notes       *notes
	err         error
}

// notes are the findings that were let go, of all that belongs to one body.
type notes struct {
	found []Finding
	all   func(Inspected) // takes what is found by its form instead, whatever is to be done about it; nil outside of Inspect
}

func (n *notes) add(f Finding) {
	n.found = add(n.found, f)
}

// Stream returns a new scan of bytes on their way to host, a canonical name.
// place is what findings call them.
func (s *Scanner) Stream(host, place string) *Stream {
	return s.stream(host, place, backslashes)
}

func (s *Scanner) stream(host, place string, written escapes) *Stream {
	all := &struct { // at once: most bodies are small
		Stream
		forms formStream
		notes notes
	}{Stream: Stream{s: s, tokens: s.now(), host: host, place: place, written: written}}
	st := &all.Stream
	st.notes = &all.notes
	st.found.Use(st.tokens.set)
	if s != nil && !s.asWritten {
		st.forms = &all.forms
		st.forms.st = st
	}
	return st
}

// part returns a stream for a text of its own that is in what st scans, such as what a part of it decodes to. Both have the
// same Warnings.
func (st *Stream) part(written escapes) *Stream {
	p := st.s.stream(st.host, st.place, written)
	p.notes = st.notes
	return p
}

// Warnings returns what was found and let go, eight findings at most.
func (st *Stream) Warnings() []Finding { return st.notes.found }

// Push takes the next bytes and returns those that can be let go, which may be
// none; they are p's or the stream's own, valid until the next call as long as
// p is, and must not be written to. Up to three bytes at the end are let go even
// where a token might begin, so that a peer who waits for a whole message never
// waits for its end. When a token is complete that may not go to the host, Push
// returns a *LeakError, then and ever after, and nothing more.
func (st *Stream) Push(p []byte) ([]byte, error) {
	w, err := st.exact(p)
	switch {
	case err != nil:
		return nil, err
	case st.forms == nil:
		return w.Bytes[w.From:w.To], nil
	}
	tail := w.To - max(w.From, w.Next)
	if w.To < len(w.Bytes) { // what is held back may be an escape, so that a token may go on in it all the same
		tail = w.To - w.From
	}
	return st.form(st.forms.push(w.Bytes[w.From:w.To], tail))
}

// last is Push and Rest for the last bytes of a stream: it returns all that was not let go, in one.
func (st *Stream) last(p []byte) ([]byte, error) {
	w, err := st.exact(p)
	if err != nil {
		return nil, err
	}
	rest := w.Bytes[w.From:]
	st.restExact()
	if st.forms == nil {
		return rest, nil
	}
	return st.form(st.forms.end(rest, len(w.Bytes)-max(w.From, w.Next)))
}

// exact looks for known values in the next bytes.
func (st *Stream) exact(p []byte) (needle.Window, error) {
	if st.err != nil {
		return needle.Window{}, st.err
	}
	st.renew()
	w, leak := st.tokens.search(&st.found, p, st.host, st.place)
	if leak != nil {
		st.err = leak
		return needle.Window{}, leak
	}
	return w, nil
}

// renew looks from here on for what is known now.
func (st *Stream) renew() {
	if k := st.s.now(); k != st.tokens {
		st.tokens = k
		st.found.Use(k.set)
	}
}

// Flush returns what is still held back, to be let go although a token may go on in what comes next: such a token is still
// found, but not held back. Its errors are Push's.
func (st *Stream) Flush() ([]byte, error) {
	if st.err != nil {
		return nil, st.err
	}
	rest := st.found.Flush()
	if st.forms == nil {
		return rest, nil
	}
	return st.form(st.forms.flush(rest))
}

// form keeps the error of the search for forms.
func (st *Stream) form(free []byte, leak *LeakError) ([]byte, error) {
	if leak != nil {
		st.err = leak
		return nil, leak
	}
	return free, nil
}

// Rest ends the stream and returns what was held back, which is clean, or the
// error that Push returned, or a *LeakError for what the end makes a token. The
// next Push begins a new one, unless there was an error. Warnings stay.
func (st *Stream) Rest() ([]byte, error) {
	if st.err != nil {
		return nil, st.err
	}
	rest := st.restExact()
	if st.forms == nil {
		return rest, nil
	}
	return st.form(st.forms.end(rest, len(rest)))
}

// restExact ends the search for known values, unless that goes on, and returns what it held back.
func (st *Stream) restExact() []byte {
	if st.goesOn {
		return st.found.Flush()
	}
	return st.found.Rest()
}
