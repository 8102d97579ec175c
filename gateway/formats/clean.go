package formats

import "bytes"

// Clean tells that nothing is found in b, nor would be if each of its lines, or any of them together, were a text of its own.
// It says so of nearly all texts that hold nothing, and costs far less than a scan.
func (s *Set) Clean(b []byte) bool {
	return s == nil || s.absent(b) && nothingEncoded(b)
}

// absent tells that no match of a rule begins in b.
func (s *Set) absent(b []byte) bool {
	h := scratch.Get().(*hits)
	defer scratch.Put(h)
	state := uint16(0)
	for from := 0; from < len(b); {
		n, behind := s.keywords.find(b, from, state, h)
		for l := range h.at {
			for _, x := range h.at[l][:h.n[l]] {
				if s.begins(b, from+x.end(), x.state()) {
					return false
				}
			}
		}
		from, state = from+n, behind
	}
	return true
}

// begins tells whether a match may begin with one of the literals that end before end.
func (s *Set) begins(b []byte, end int, state uint16) bool {
	how := way(b, end)
	next := b[end:min(end+lookahead, len(b))]
	if i := bytes.IndexByte(next, '\n'); i >= 0 { // where it may end
		next = next[:i]
	}
	endings := s.keywords.endings(state)
	for i := range endings {
		e := &endings[i]
		if e.ways>>how&1 == 0 || e.ahead.refuses(next) {
			continue
		}
		m := s.rules[e.rule].machine
		for back := e.from; back >= e.to; back-- {
			at := end - int(back)
			if at < 0 {
				continue
			}
			edge := at == 0 || b[at-1] == '\n'
			if edge && e.guard[atEdge]>>how&1 != 0 && m.goesOn(atEdge, b[at:]) {
				return true
			}
			if at == 0 {
				continue
			}
			if before := kindOf(b[at-1]); e.guard[before]>>how&1 != 0 && m.goesOn(before, b[at:]) {
				return true
			}
		}
	}
	return false
}

// goesOn tells whether a match may begin with text behind a byte of the kind, as far as its first bytes tell. The match may
// end with any line.
func (a *automaton) goesOn(before kind, text []byte) bool {
	s := a.start(before)
	for _, c := range text[:min(len(text), traceFrom)] {
		if c == '\n' && a.end(s).matched {
			return true
		}
		if s = a.step(s, c); !s.plain {
			return s.matched || !s.dead
		}
	}
	return len(text) > traceFrom || a.end(s).matched
}

// nothingEncoded tells that nothing is undone in b. Of long runs it does not know.
func nothingEncoded(b []byte) bool {
	for {
		at, ok := findRun(b)
		if !ok {
			return true
		}
		var r runs
		b = b[at:]
		r.begin(b)
		n := members(b)
		if n >= wrapped || r.isText(b[:runHead]) {
			return false
		}
		b = b[n:]
	}
}
