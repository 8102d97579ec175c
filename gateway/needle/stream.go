package needle

// leastHeld is how many bytes of a possible occurrence must be there before
// they are held back. Three bytes tell nothing of a secret, and a stream whose
// peer waits for a whole message must not wait for that message's last byte.
const leastHeld = 4

// Stream searches one stream that comes in pieces. Whatever the pieces, it
// finds what a search of the whole would find. It belongs to one goroutine.
type Stream struct {
	set *Set
	buf []byte
	// keep is where the next window begins in buf, and done how much of that
	// was let go already.
	keep, done int
}

// NewStream returns a stream over the set's needles.
func NewStream(set *Set) *Stream { return &Stream{set: set} }

// Reset makes s a new stream over the set's needles, and keeps its memory.
func (s *Stream) Reset(set *Set) { s.set, s.buf, s.keep, s.done = set, s.buf[:0], 0, 0 }

// Use goes on with other needles. Of what was pushed before, only what may begin an occurrence of the needles until now is
// remembered.
func (s *Stream) Use(set *Set) { s.set = set }

// Window is what a Stream looks at: Bytes[:From] was let go before and is
// remembered, Bytes[From:To] may be let go now, and Bytes[To:] is held back,
// because an occurrence that begins there may go on. From To on there are
// never more bytes than the longest form has. The bytes are the stream's own,
// valid until its next call, and must not be written to.
type Window struct {
	Bytes    []byte
	From, To int
	// Next is the offset at which the next window will begin, at most To.
	Next int
}

// Push takes the next bytes. It calls found, with offsets into the window, for
// every occurrence of value id in the window, as Set.Scan does; one that ends
// beyond Next is reported again by the next call if it begins at or after it.
// When found returns false Push stops, and nothing may be let go.
func (s *Stream) Push(p []byte, found func(start, end, id int) bool) Window {
	s.buf = append(s.buf[:copy(s.buf, s.buf[s.keep:])], p...)
	w := s.window(s.buf, found)
	s.keep = w.Next
	return w
}

// PushOver is Push, but the window may be p itself, so that nothing is copied
// but what is remembered of it: w.Bytes is valid only as long as p is.
func (s *Stream) PushOver(p []byte, found func(start, end, id int) bool) Window {
	if s.keep < len(s.buf) {
		return s.Push(p, found)
	}
	w := s.window(p, found)
	s.buf, s.keep = append(s.buf[:0], p[w.Next:]...), 0
	return w
}

// window searches b, which begins with what is remembered.
func (s *Stream) window(b []byte, found func(start, end, id int) bool) Window {
	w := Window{Bytes: b, From: s.done}
	stopped := false
	pending := s.set.Scan(b, func(start, end, id int) bool {
		stopped = !found(start, end, id)
		return !stopped
	})
	if stopped {
		w.To = w.From
		return w
	}
	w.Next = pending
	w.To = max(w.From, pending)
	if len(b)-pending < leastHeld {
		w.To = len(b)
	}
	s.done = w.To - pending
	return w
}

// Flush returns what is still held, to be let go, and goes on: an occurrence of which that is a part is found when the rest
// of it comes. The bytes are the stream's own, valid until its next call.
func (s *Stream) Flush() []byte {
	rest := s.buf[min(len(s.buf), s.keep+s.done):]
	s.done = len(s.buf) - s.keep
	return rest
}

// Rest ends the stream and returns what is still held: no occurrence is in it
// that was not reported. The next Push begins a new stream.
func (s *Stream) Rest() []byte {
	rest := s.buf[min(len(s.buf), s.keep+s.done):]
	s.keep, s.done = len(s.buf), 0
	return rest
}
