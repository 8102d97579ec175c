package pipelock

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"gatewayd/gateway/formats"
)

// Action says what a finding leads to.
type Action uint8

// The actions. What nobody decided is blocked.
const (
	Block Action = iota // the request is refused
	Warn                // it goes on, and its record says what was found
)

// String returns "block" or "warn".
func (a Action) String() string {
	if a == Warn {
		return "warn"
	}
	return "block"
}

// MarshalText is [encoding.TextMarshaler].MarshalText.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Finding says what was found and where. It never holds a token.
type Finding struct {
	// Rule is the token's name, or the id of the rule whose form it has.
	Rule string `json:"rule"`
	// Action is what is to be done.
	Action Action `json:"action"`
	// Place is where it was: "url", "header NAME", "body", or what the caller
	// called it.
	Place string `json:"place"`
	// Encoding is "base64" or "hex" when a form was found in what that said,
	// else "".
	Encoding string `json:"encoding,omitempty"`
	// Excerpt is what surrounds it, with the token and whatever looks like
	// another replaced.
	Excerpt string `json:"excerpt"`
}

// Scanner knows the tokens of one plan. It may be used by any number of
// goroutines. A nil Scanner knows none.
type Scanner struct {
	live    func() *Known // nil knows nothing
	formats *formats.Set
	policy  formats.Policy
	// asWritten says that streams are no text that anybody reads: no escape is undone.
	asWritten bool
	clean     atomic.Pointer[cleanTexts] // of heads
}

// New returns a scanner for tokens that stay what they are. It keeps nothing of
// the slice.
func New(tokens []Token) *Scanner {
	k := NewKnown(tokens)
	return Live(func() *Known { return k })
}

// Live returns a scanner for tokens that change: now is called, by any number
// of goroutines, for every head, every piece of a body and every other text,
// and returns those that are looked for in it. It must be quick and must not
// return nil.
func Live(now func() *Known) *Scanner { return &Scanner{live: now} }

// WithFormats returns a scanner that also looks for tokens by their form, under a policy that set made. A nil set makes it
// look for none.
func (s *Scanner) WithFormats(set *formats.Set, policy formats.Policy) *Scanner {
	with := Scanner{formats: set, policy: policy}
	if s != nil {
		with.live = s.live
	}
	return &with
}

// now returns what is known now.
func (s *Scanner) now() *Known {
	if s == nil || s.live == nil {
		return nothing
	}
	return s.live()
}

// exact returns the scanner that only looks for what is known, in what was written: for a body that is encoded.
func (s *Scanner) exact() *Scanner {
	with := s.WithFormats(nil, formats.Policy{})
	with.asWritten = true
	return with
}

// maxFindings bounds what Scan and Request return: one finding is enough to
// block, and a guest must not fill a log with one request.
const maxFindings = 8

// Scan returns what is found in b, which is whole and on its way to host, a
// canonical name: at most one finding per token and place, or one of each action, and eight in all, which no note keeps
// from what is blocked.
func (s *Scanner) Scan(host, place string, b []byte) []Finding {
	if s == nil {
		return nil
	}
	return s.scan(s.now(), host, place, b, false)
}

// scan is Scan for the tokens of k. handed says that b is where a client brings back what a server handed out; what has the
// form of that is noted then.
func (s *Scanner) scan(k *Known, host, place string, b []byte, handed bool) []Finding {
	var found []Finding
	k.set.Scan(b, func(start, end, id int) bool {
		if f := (Finding{Rule: k.tokens[id].name, Place: place}); k.leaks(id, host) && !reported(found, f) {
			found = add(found, k.finding(place, b, start, end, id))
		}
		return len(found) < maxFindings
	})
	s.formats.Scan(b, s.policy, func(f formats.Finding) {
		if g, ok := k.judge(host, place, f); ok {
			if handed && s.formats.HandedOut(g.Rule) {
				g.Action = Warn
			}
			found = add(found, g)
		}
	})
	return found
}

// judge turns what has a token's form into a finding, unless it is a known token that may go to the host.
func (k *Known) judge(host, place string, f formats.Finding) (Finding, bool) {
	if k.mayGo(host, string(f.Text[f.From:f.To])) {
		return Finding{}, false
	}
	out := Finding{Rule: f.Rule, Place: place, Encoding: f.Encoding, Excerpt: k.excerpt(f.Text, f.From, f.To)}
	if f.Note {
		out.Action = Warn
	}
	return out, true
}

// Request scans the head of a request on its way to host: the URL or request
// target as it will be sent, and the header's names and values, each as it is
// and with percent-encodings undone, up to twice. skip names headers whose
// values the gateway sets itself afterwards, in any case. Basic credentials
// (RFC 7617) are looked into. A JSON Web Token is noted in Authorization, in
// cookies and in the query of a signed URL: servers hand them out to be brought
// back there, as registries of containers do for a pull. It returns as many findings as Scan.
func (s *Scanner) Request(host, url string, h http.Header, skip []string) []Finding {
	if s == nil {
		return nil
	}
	t := texts{s: s, known: s.now(), host: host}
	if !t.nothing(url, h, skip) {
		t.head(url, h, skip)
	}
	return t.found
}

// head adds what is in any text of a head.
func (t *texts) head(url string, h http.Header, skip []string) {
	if path, query, _ := strings.Cut(url, "?"); signed(query) {
		t.target(path) // what is in there is none of the signature's
		t.handed = true
	}
	t.target(url)
	var room [32]string
	names := room[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names) // so that the same request gives the same findings
	for _, name := range names {
		t.handed = false
		t.scan("header name", "", name)
		if oneOf(skip, name) {
			continue
		}
		t.handed = oneOf(broughtBack, name)
		for _, value := range h[name] {
			t.scan("header ", name, value)
			t.scan("header ", name, basicCredentials(value))
		}
		if len(h[name]) > 1 {
			t.scan("header ", name, strings.Join(h[name], between(name)))
		}
	}
}

// oneOf tells whether names has the name, in any case.
func oneOf(names []string, name string) bool {
	return slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, name) })
}

// broughtBack are the fields in which clients bring back what servers handed out.
var broughtBack = []string{"Authorization", "Cookie"}

// signed tells whether a query has a parameter that is a signature over the URL, as those of stores of objects have.
func signed(query string) bool {
	for p := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(p, "=")
		switch strings.ToLower(name) {
		case "sig", "signature", "x-amz-signature", "x-goog-signature":
			return true
		}
	}
	return false
}

// between returns what servers put between the values of a field that comes several times (RFC 9110 section 5.3; RFC 9113
// section 8.2.3 for what one cookie field was cut into). To whoever reads them so they are one text.
func between(name string) string {
	if strings.EqualFold(name, "Cookie") {
		return "; "
	}
	return ", "
}

// isTargetPart tells whether a byte is between two parts of a request target, each of which is scanned as a line, as forms are
// looked for in whole texts.
func isTargetPart(c byte) bool { return c == '/' || c == '?' || c == '&' || c == '#' }

// targetParts returns the target with its parts as lines.
func targetParts(target string) string {
	parts := []byte(target)
	for i, c := range parts {
		if isTargetPart(c) {
			parts[i] = '\n'
		}
	}
	return string(parts)
}

// texts scans the parts of one head, of which most are clean: what a finding alone needs is made for a finding.
type texts struct {
	s     *Scanner
	known *Known
	host  string
	found []Finding
	bytes []byte // the text that is scanned

	handed bool // see Scanner.scan
}

// nothing tells that there is nothing in a head that has to be looked into. It looks at all texts at once, which takes a
// fraction of the time; what spans two of them is no matter, since each is then scanned for itself.
func (t *texts) nothing(url string, h http.Header, skip []string) bool {
	room, _ := headRooms.Get().(*[]byte)
	if room == nil {
		room = new([]byte)
	}
	defer headRooms.Put(room)
	l := headTexts{clean: t.s.cleanFor(t.known), all: (*room)[:0]}
	l.target(url)
	for name, values := range h {
		if oneOf(skip, name) {
			values = nil
		}
		l.field(name, values)
	}
	if *room = l.all[:0]; cap(l.all) > largestHead {
		*room = nil
	}
	if len(l.all) == 0 {
		return true
	}
	if l.basic || bytes.IndexByte(l.all, '%') >= 0 || t.known.Has(l.all) || !t.s.formats.Clean(l.all) {
		return false
	}
	l.remember()
	return true
}

// headRooms holds room for texts of heads that is not in use, up to largestHead bytes each.
var headRooms sync.Pool

const largestHead = 16 << 10

// target adds what is in a request target, as a whole and part by part.
func (t *texts) target(target string) {
	t.scan("url", "", target)
	t.scan("url", "", targetParts(target))
}

// scan adds what is in one text, as it is and decoded. Its place is called where, and by a header's name if that is given.
func (t *texts) scan(where, name, text string) {
	for range 3 {
		t.bytes = append(t.bytes[:0], text...)
		for _, f := range t.s.scan(t.known, t.host, where, t.bytes, t.handed) {
			f.Place = where + textproto.CanonicalMIMEHeaderKey(name)
			t.found = add(t.found, f)
		}
		decoded := unescape(text)
		if decoded == text {
			break
		}
		text = decoded
	}
}

// basicCredentials returns user and password of a header value that has them, or "".
func basicCredentials(value string) string {
	const scheme = "basic "
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return ""
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value[len(scheme):]))
	if err != nil {
		return "" // no server reads it either
	}
	return string(text)
}

// add returns found with f, if that says anything new and there is room for it. What is blocked takes the room of a note.
func add(found []Finding, f Finding) []Finding {
	if reported(found, f) {
		return found
	}
	if len(found) < maxFindings {
		return append(found, f)
	}
	if i := slices.IndexFunc(found, func(g Finding) bool { return g.Action == Warn }); i >= 0 && f.Action == Block {
		found[i] = f
	}
	return found
}

// reported tells whether found has the rule and place of f, and leads to the same or worse.
func reported(found []Finding, f Finding) bool {
	return slices.ContainsFunc(found, func(g Finding) bool {
		return g.Rule == f.Rule && g.Place == f.Place && (g.Action == Block || f.Action == Warn)
	})
}

// unescape undoes the percent-encodings that are well formed and leaves the
// rest, unlike url.PathUnescape, which gives up on the whole.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if d, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(d)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
