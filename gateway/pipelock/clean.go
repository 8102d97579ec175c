package pipelock

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// Clients send most fields of a head with each request, so what was found to hold nothing is remembered. These bound how much: a
// bottle can fill the memory of each of its scanners.
const (
	cleanSlots  = 256 // texts of one scanner, a power of two
	cleanLength = 512 // bytes of one text, which is a field's name and value, or a target
	cleanAtOnce = 8   // texts that are remembered of one head
)

// cleanTexts remembers texts of heads in which nothing was found of known and of what their scanner looks for besides. It may be
// used by any number of goroutines. Each text has two places, which it may have to share.
type cleanTexts struct {
	known *Known
	slots [cleanSlots]atomic.Pointer[cleanText]
}

// cleanText is a field, with no value if that is not scanned, or a request target, without a name.
type cleanText struct{ name, value string }

// cleanSeed is that of the hashes.
var cleanSeed = maphash.MakeSeed()

// cleanFor returns what is remembered of heads in which known was looked for.
func (s *Scanner) cleanFor(known *Known) *cleanTexts {
	c := s.clean.Load()
	if c == nil || c.known != known {
		c = &cleanTexts{known: known}
		s.clean.Store(c)
	}
	return c
}

// places are where a text can be: fields by their names, since their values change.
func (c *cleanTexts) places(t cleanText) (first, second *atomic.Pointer[cleanText]) {
	by := t.name
	if by == "" {
		by = t.value
	}
	at := maphash.String(cleanSeed, by) % cleanSlots
	return &c.slots[at], &c.slots[at^1]
}

// has tells whether t is remembered.
func (c *cleanTexts) has(t cleanText) bool {
	first, second := c.places(t)
	at := first.Load()
	if at != nil && *at == t {
		return true
	}
	at = second.Load()
	return at != nil && *at == t
}

// add remembers t, of which it keeps nothing but a copy: in place of the field's last value, or where there is room, or else of
// whatever is there.
func (c *cleanTexts) add(t cleanText) {
	first, second := c.places(t)
	place := first
	if at := first.Load(); at != nil && at.name != t.name {
		if at = second.Load(); at == nil || at.name == t.name {
			place = second
		}
	}
	place.Store(&cleanText{strings.Clone(t.name), strings.Clone(t.value)})
}

// headTexts gathers the texts of one head that have to be scanned.
type headTexts struct {
	clean *cleanTexts
	all   []byte // the texts, each as a line
	basic bool   // basic credentials are among them, which are not undone
	new   [cleanAtOnce]cleanText
	n     int
}

// target adds a request target, as a whole and part by part.
func (l *headTexts) target(url string) {
	if l.known(cleanText{value: url}) {
		return
	}
	l.line(url)
	for _, c := range []byte(url) {
		if isTargetPart(c) {
			c = '\n'
		}
		l.all = append(l.all, c)
	}
	l.all = append(l.all, '\n')
}

// field adds a field's name and values, of which there are none if they are not scanned. What servers handed out is not kept.
func (l *headTexts) field(name string, values []string) {
	switch len(values) {
	case 0:
		if l.known(cleanText{name: name}) {
			return
		}
	case 1:
		if !oneOf(broughtBack, name) && l.known(cleanText{name, values[0]}) {
			return
		}
	}
	l.line(name)
	for _, v := range values {
		l.line(v)
		l.basic = l.basic || basicCredentials(v) != ""
	}
	if len(values) > 1 {
		l.line(strings.Join(values, between(name)))
	}
}

// known tells whether a text is remembered, and notes it if it can be.
func (l *headTexts) known(t cleanText) bool {
	if len(t.name)+len(t.value) > cleanLength {
		return false
	}
	if l.clean.has(t) {
		return true
	}
	if l.n < len(l.new) {
		l.new[l.n] = t
		l.n++
	}
	return false
}

// line adds one text.
func (l *headTexts) line(text string) { l.all = append(append(l.all, text...), '\n') }

// remember remembers all that is new. Nothing was found in it.
func (l *headTexts) remember() {
	for _, t := range l.new[:l.n] {
		l.clean.add(t)
	}
}
