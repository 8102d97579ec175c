package pipelock

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"sort"
	"strings"

	"gatewayd/gateway/needle"
)

// Token is one string that must not leave, except to its homes.
type Token struct {
	// Name is how findings call it, such as "dummy of api.example.org".
	Name string
	// Value is the string itself. It never shows in a finding. Values shorter
	// than needle.MinLength are not looked for.
	Value string
	// Homes are the canonical hosts that it may go to.
	Homes []string
}

// Finding says what was found and where. It never holds a token.
type Finding struct {
	// Rule is the token's name.
	Rule string `json:"rule"`
	// Place is where it was: "url", "header NAME", "body", or what the caller
	// called it.
	Place string `json:"place"`
	// Excerpt is what surrounds it, with the token and whatever looks like
	// another replaced.
	Excerpt string `json:"excerpt"`
}

// Scanner knows the tokens of one plan. It is immutable and may be used by any
// number of goroutines. A nil Scanner knows none.
type Scanner struct {
	set    *needle.Set
	tokens []known
}

type known struct {
	name  string
	homes map[string]bool
}

// New returns a scanner for the tokens. It keeps nothing of the slice.
func New(tokens []Token) *Scanner {
	s := &Scanner{tokens: make([]known, len(tokens))}
	values := make([]string, len(tokens))
	for i, t := range tokens {
		homes := make(map[string]bool, len(t.Homes))
		for _, h := range t.Homes {
			homes[h] = true
		}
		s.tokens[i], values[i] = known{t.Name, homes}, t.Value
	}
	s.set = needle.NewSet(values)
	return s
}

// maxFindings bounds what Scan and Request return: one finding is enough to
// block, and a guest must not fill a log with one request.
const maxFindings = 8

// Scan returns what is found in b, which is whole and on its way to host, a
// canonical name: at most one finding per token and place, and eight in all.
func (s *Scanner) Scan(host, place string, b []byte) []Finding {
	if s == nil {
		return nil
	}
	var found []Finding
	s.set.Scan(b, func(start, end, id int) bool {
		if f := (Finding{Rule: s.tokens[id].name, Place: place}); s.leaks(id, host) && !reported(found, f) {
			f.Excerpt = excerpt(b, start, end)
			found = append(found, f)
		}
		return len(found) < maxFindings
	})
	return found
}

// Request scans the head of a request on its way to host: the URL or request
// target as it will be sent, and the header's names and values, each as it is
// and with percent-encodings undone, up to twice. skip names headers whose
// values the gateway sets itself afterwards, in any case. It returns at most
// one finding per token and place, and eight in all.
func (s *Scanner) Request(host, url string, h http.Header, skip []string) []Finding {
	if s == nil {
		return nil
	}
	found := s.scanText(nil, host, "url", url)
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	sort.Strings(names) // so that the same request gives the same findings
	for _, name := range names {
		found = s.scanText(found, host, "header name", name)
		if slices.ContainsFunc(skip, func(s string) bool { return strings.EqualFold(s, name) }) {
			continue
		}
		for _, value := range h[name] {
			found = s.scanText(found, host, "header "+textproto.CanonicalMIMEHeaderKey(name), value)
		}
	}
	return found[:min(len(found), maxFindings)]
}

// scanText adds to found what is in one text, as it is and decoded.
func (s *Scanner) scanText(found []Finding, host, place, text string) []Finding {
	for range 3 {
		for _, f := range s.Scan(host, place, []byte(text)) {
			if len(found) < maxFindings && !reported(found, f) {
				found = append(found, f)
			}
		}
		decoded := unescape(text)
		if decoded == text {
			break
		}
		text = decoded
	}
	return found
}

// leaks tells whether token id may not go to host.
func (s *Scanner) leaks(id int, host string) bool { return !s.tokens[id].homes[host] }

func reported(found []Finding, f Finding) bool {
	return slices.ContainsFunc(found, func(g Finding) bool { return g.Rule == f.Rule && g.Place == f.Place })
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
