package formats

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"slices"
)

// Finding is one secret in a stream.
type Finding struct {
	// Rule is the rule's id.
	Rule string
	// Text is what was found with some bytes around it, and Text[From:To] the secret. It is the stream's own, valid until
	// the next call.
	Text     []byte
	From, To int
	// Note tells that the policy wants a note of it and no more, or that its checksum is wrong.
	Note bool
	// Doubtful tells that its checksum is wrong.
	Doubtful bool
	// Encoding is "base64" or "hex" when the secret was found in what that said, else "". Text is what it said.
	Encoding string
	// Offset is where the secret begins in the stream, in bytes of what was pushed; if it was encoded, within a few bytes.
	Offset int64
}

// Entropy returns how random the secret is: Shannon's measure of it, in bits per byte.
func (f Finding) Entropy() float64 { return entropy(bytes.Trim(f.Text[f.From:f.To], "\n")) }

// Bounds of what one stream costs.
const (
	// mostVerdicts bounds how many judged matches a stream remembers.
	mostVerdicts = 64
	// mostFindings is how many notes of one rule a stream reports. Whoever puts more into one stream gains nothing by it,
	// and judging them is the dearest part of a scan. Findings that are no notes have no such bound: the caller stops at
	// the first, or has a reason to let it go that need not hold for the next.
	mostFindings = 16
	// traceStep is how often a long candidate notes its state, in bytes.
	traceStep = 8
	// traceFrom is how long a candidate is before it begins with that.
	traceFrom = 16
)

// directFrom is how long a piece must be for its bytes not to be copied.
const directFrom = 1 << 10

// candidate is a place where a match of a rule may begin, and how far that has been followed.
type candidate struct {
	rule   int32
	first  bool   // the stream begins here
	start  int64  // offset in the stream
	pos    int64  // up to which it was followed
	hold   int64  // where its secret may begin, or -1
	match  int64  // where the first match was known to have ended, or -1
	state  *state // at pos
	atEnd  bool   // the stream ended
	closed int64  // pos at which it is to be judged
	group  *group // nil while it is alone
}

// Stream looks for the set's rules in one stream of bytes. Its findings are the same however the bytes are cut. It belongs
// to one goroutine.
type Stream struct {
	set    *Set
	policy Policy

	buf  []byte // own, or for the time of a Push the caller's
	own  []byte
	base int64 // of buf in the stream
	text int64 // where the text that is looked at begins
	word uint16

	open  []candidate
	ripe  []candidate        // to be judged
	notes map[int32][]*notes // of rules with long candidates
	fresh []group            // that are not in use

	last     map[int32]int64 // where the last finding of a rule ended
	count    map[int32]int
	verdicts map[uint64]verdict
	seed     maphash.Seed

	encoded *runs // nil within what was encoded

	// work is what the stream has cost beyond the one pass over its bytes: steps of rules' automata, bytes that rules'
	// expressions were tried on, bytes of matches that were looked up among the verdicts, and bytes that those took that
	// were not there.
	work work
}

type work struct{ steps, tried, recalled, looked int64 }

// NewStream returns a stream of the set's rules under the policy.
func (s *Set) NewStream(policy Policy) *Stream {
	st := &Stream{}
	st.Reset(s, policy)
	return st
}

// mostRoom bounds what is kept of a stream's memory, in bytes of its text.
const mostRoom = 64 << 10

// Reset makes st, which is zero or was ended, a new stream of the set's rules under the policy, and keeps its memory.
func (st *Stream) Reset(s *Set, policy Policy) {
	if s != st.set {
		st.notes = nil
	}
	if cap(st.own) > mostRoom {
		st.own = nil
	}
	clear(st.last)
	clear(st.count)
	clear(st.verdicts)
	*st = Stream{
		set: s, policy: policy, own: st.own[:0], open: st.open[:0], ripe: st.ripe[:0], notes: st.notes, fresh: st.fresh,
		last: st.last, count: st.count, verdicts: st.verdicts, seed: st.seed, encoded: st.encoded,
	}
	if st.encoded == nil {
		st.encoded = &runs{}
	}
	*st.encoded = runs{held: nothingHeld, marks: st.encoded.marks[:0], out: st.encoded.out[:0]}
}

// Encoded has f called with every text that the stream holds in an encoding, "base64" or "hex", piece by piece, and when
// it ends. The bytes are the stream's own, valid until f returns. It is to be called before the first Push.
func (st *Stream) Encoded(f func(encoding string, text []byte, ends bool)) {
	if st.encoded != nil {
		st.encoded.also = f
	}
}

// Push takes the next bytes and calls found for every finding that they complete.
// It returns how many of the bytes pushed so far may be let go: those behind may belong to a secret that is not complete.
func (st *Stream) Push(p []byte, found func(Finding)) (free int64) {
	if st.set == nil {
		st.base += int64(len(p))
		return st.base
	}
	switch n := min(2*st.reach(), len(p)); {
	case len(st.buf) == 0:
		st.buf = p
		st.scan(0, found)
		st.keep()
	case len(p) <= directFrom:
		st.add(p, found)
		st.keepLess()
	default:
		st.add(p[:n], found)
		if behind := len(st.buf) - n; st.kept() >= behind { // nothing before p is of interest any more: it need not be copied
			st.base += int64(behind)
			st.buf = p
			st.scan(n, found)
			st.keep()
		} else {
			st.add(p[n:], found)
			st.keepLess()
		}
	}
	free = st.end()
	for i := range st.open {
		if c := &st.open[i]; c.hold >= 0 && !st.policy.notes(c.rule) {
			free = min(free, c.hold)
		}
	}
	if st.encoded != nil {
		free = min(free, st.encoded.held)
	}
	return free
}

// end returns how many bytes were pushed.
func (st *Stream) end() int64 { return st.base + int64(len(st.buf)) }

// add copies the next bytes and scans them.
func (st *Stream) add(p []byte, found func(Finding)) {
	from := len(st.buf)
	st.buf = append(st.buf, p...)
	st.own = st.buf
	st.scan(from, found)
}

// scan looks at st.buf from from on.
func (st *Stream) scan(from int, found func(Finding)) {
	st.advance()
	h := scratch.Get().(*hits)
	for from < len(st.buf) {
		n, behind := st.set.keywords.find(st.buf, from, st.word, h)
		for l := range h.at {
			for _, x := range h.at[l][:h.n[l]] {
				st.begin(from+x.end(), x.state())
			}
		}
		from, st.word = from+n, behind
	}
	scratch.Put(h)
	st.judge(found)
	if st.encoded != nil {
		st.encoded.see(st, false, found)
	}
}

// End ends the stream: what could be a secret only at the end of a text is one now. The stream is of no use after it but to be
// Reset.
func (st *Stream) End(found func(Finding)) {
	if st.set == nil {
		return
	}
	for i := range st.open {
		c := &st.open[i]
		if m := st.set.rules[c.rule].machine; m.end(c.state).matched || c.match >= 0 {
			c.atEnd, c.closed = true, c.pos
			st.ripe = append(st.ripe, *c)
		}
	}
	st.open = st.open[:0]
	st.judge(found)
	if st.encoded != nil {
		st.encoded.see(st, true, found)
		st.encoded.cut(found)
		st.encoded.within.release()
		st.release()
		clear(st.open[:cap(st.open)]) // so that no state is kept alive
		clear(st.ripe[:cap(st.ripe)])
	}
}

// restart begins another text after End. Offsets go on.
func (st *Stream) restart() {
	st.base = st.end()
	st.text, st.own, st.word = st.base, st.own[:0], 0
	st.buf = st.own
}

// kept returns how many bytes of st.buf are not needed any more.
func (st *Stream) kept() int {
	from := st.base + int64(len(st.buf)-st.reach())
	if st.encoded != nil {
		from = min(from, st.encoded.at)
	}
	for i := range st.open {
		from = min(from, st.open[i].start-lineContext)
	}
	return max(0, int(from-st.base))
}

// keep forgets what is not needed any more, and makes what is needed its own. It makes the Text of earlier findings
// invalid.
func (st *Stream) keep() {
	n := st.kept()
	st.own = append(st.own[:0], st.buf[n:]...)
	st.buf = st.own
	st.base += int64(n)
}

// keepLess is keep, if that is worth it.
func (st *Stream) keepLess() {
	if st.kept() >= len(st.buf)/2 {
		st.keep()
	}
}

// reach is how many bytes before the end a later judgement may look at.
func (st *Stream) reach() int { return st.set.reach + longestAtom }

// begin opens the candidates of the literals that end before end, and follows them.
func (st *Stream) begin(end int, state uint16) {
	how := way(st.buf, end)
	next := st.buf[end:min(end+lookahead, len(st.buf))]
	endings := st.set.keywords.endings(state)
	for i := range endings {
		e := &endings[i]
		if e.ways>>how&1 == 0 || e.ahead.refuses(next) || !st.policy.uses(e.rule) {
			continue
		}
		for back := e.from; back >= e.to; back-- {
			at := end - int(back)
			if at < 0 {
				continue
			}
			before := atEdge
			if st.base+int64(at) > st.text {
				before = kindOf(st.buf[at-1])
			}
			if e.guard[before]>>how&1 == 0 {
				continue
			}
			m := st.set.rules[e.rule].machine
			start := st.base + int64(at)
			s, n, refused := m.skim(m.start(before), st.buf[at:min(at+traceFrom, len(st.buf))])
			st.work.steps += int64(n) + 1
			if refused {
				continue
			}
			c := candidate{rule: e.rule, first: start == st.text, start: start, pos: start + int64(n), hold: -1, match: -1, state: s}
			if st.follow(&c) {
				st.open = append(st.open, c)
			}
		}
	}
}

// advance follows the open candidates into bytes that are new.
func (st *Stream) advance() {
	kept := st.open[:0]
	for i := range st.open {
		c := st.open[i]
		if st.follow(&c) {
			kept = append(kept, c)
		}
	}
	st.open = kept
}

// follow follows a candidate as far as it can be. It reports whether the candidate goes on; one that is to be judged is
// put aside for that.
func (st *Stream) follow(c *candidate) bool {
	r := st.set.rules[c.rule]
	m, s := r.machine, c.state
	limit := c.start + int64(r.longest)
	end := min(st.base+int64(len(st.buf)), limit)
	ahead := st.buf[c.pos-st.base : end-st.base]
	from := c.pos
	defer func() { st.work.steps += c.pos - from }()
	for len(ahead) > 0 {
		n := min(len(ahead), int(traceStep-c.pos%traceStep))
		for i, b := range ahead[:n] {
			next := s.next[m.classes[b]%mostClasses].Load()
			if next == nil {
				next = m.make(s, int(m.classes[b]))
			}
			if s = next; s.plain {
				continue
			}
			at := c.pos + int64(i)
			if s.secret && c.hold < 0 {
				c.hold = at
			}
			if s.matched && c.match < 0 {
				c.match = at
			}
			if s.dead || s.matched && r.near != nil {
				c.pos = at + 1
				return st.close(c)
			}
		}
		c.pos += int64(n)
		ahead = ahead[n:]
		if c.pos%traceStep == 0 && c.pos-c.start >= traceFrom && st.known(c, s) {
			return false
		}
	}
	c.state = s
	if c.pos == limit {
		return st.close(c)
	}
	return true
}

// close ends a candidate, and has it judged if its expression matched.
func (st *Stream) close(c *candidate) bool {
	if c.match >= 0 {
		c.closed = c.pos
		st.ripe = append(st.ripe, *c)
	}
	return false
}

// judge looks at the candidates whose expression matched, in the order in which that became known.
func (st *Stream) judge(found func(Finding)) {
	slices.SortFunc(st.ripe, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.closed, b.closed), cmp.Compare(a.start, b.start), cmp.Compare(a.rule, b.rule))
	})
	for i := range st.ripe {
		st.look(&st.ripe[i], found)
	}
	st.ripe = st.ripe[:0]
}

// look finds the secret of one match, or of the last of its group, and reports it if it is genuine.
func (st *Stream) look(c *candidate, found func(Finding)) {
	if st.lookAt(c, found) || c.group == nil || c.group.last <= c.start {
		return
	}
	last := *c
	last.start, last.first = c.group.last, false
	st.lookAt(&last, found)
}

// lookAt reports whether there was something to report.
func (st *Stream) lookAt(c *candidate, found func(Finding)) bool {
	full := st.count[c.rule] >= mostFindings
	if c.start < st.last[c.rule] || full && st.policy.notes(c.rule) {
		return false
	}
	r := st.set.rules[c.rule]
	from := c.start
	if !c.first {
		from--
	}
	window := st.buf[from-st.base : c.closed-st.base]
	st.work.tried += int64(len(window))
	match, secret, ok := r.parts(window, c.first, c.atEnd)
	if !ok {
		return false
	}
	context := int(max(st.base, from-lineContext) - st.base)
	text := st.buf[context : c.closed-st.base]
	shift := int(from-st.base) - context
	match, secret = match.plus(shift), secret.plus(shift)
	v := st.verdict(c.rule, r, text, match, secret)
	if v == harmless || full && v == doubtful {
		return false
	}
	note := v == doubtful || st.policy.notes(c.rule)
	if st.last == nil {
		st.last, st.count = map[int32]int64{}, map[int32]int{}
	}
	at := st.base + int64(context)
	st.last[c.rule] = at + int64(match.hi)
	if note {
		st.count[c.rule]++
	}
	found(Finding{Rule: r.id, Text: text, From: secret.lo, To: secret.hi, Note: note, Doubtful: v == doubtful, Offset: at + int64(secret.lo)})
	return true
}

func (s span) plus(n int) span { return span{s.lo + n, s.hi + n} }

// verdict is Set.verdict, remembered for the same match on the same line: the same identifier often comes many times.
func (st *Stream) verdict(id int32, r *rule, text []byte, match, secret span) verdict {
	if st.verdicts == nil {
		st.verdicts, st.seed = map[uint64]verdict{}, maphash.MakeSeed()
	}
	var h maphash.Hash
	h.SetSeed(st.seed)
	_ = h.WriteByte(byte(id))
	_ = h.WriteByte(byte(id >> 8))
	from := max(0, match.lo-lineContext)
	st.work.recalled += int64(len(text) - from)
	_, _ = h.Write(text[from:])
	key := h.Sum64()
	if v, ok := st.verdicts[key]; ok {
		return v
	}
	if len(st.verdicts) >= mostVerdicts {
		clear(st.verdicts)
	}
	v := st.set.verdict(r, text, match, secret, &st.work.looked)
	st.verdicts[key] = v
	return v
}

// Scan calls found for the findings in b, which is a whole text: those that a Stream of it would report.
func (s *Set) Scan(b []byte, policy Policy, found func(Finding)) {
	if s.Clean(b) {
		return
	}
	st := s.NewStream(policy)
	st.Push(b, found)
	st.End(found)
}
