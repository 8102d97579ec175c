package pipelock

import (
	"slices"
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

// Known is a compiled set of tokens. It is immutable and may be used by any
// number of goroutines. The zero Known has none.
type Known struct {
	set    *needle.Set
	tokens []token
}

type token struct {
	name  string
	value string // "" if the token has no home: nothing but the set needs it then
	homes map[string]bool
}

// nothing is what a scanner knows that was given no tokens.
var nothing = &Known{}

// NewKnown compiles tokens. It keeps nothing of the slice.
func NewKnown(tokens []Token) *Known {
	k := &Known{tokens: make([]token, len(tokens))}
	values := make([]string, len(tokens))
	for i, t := range tokens {
		values[i] = t.Value
		k.tokens[i].name = t.Name
		if len(t.Homes) == 0 {
			continue
		}
		homes := make(map[string]bool, len(t.Homes))
		for _, h := range t.Homes {
			homes[h] = true
		}
		k.tokens[i].value, k.tokens[i].homes = t.Value, homes
	}
	k.set = needle.NewSet(values)
	return k
}

// leaks tells whether token id may not go to host.
func (k *Known) leaks(id int, host string) bool { return !k.tokens[id].homes[host] }

// finding is that of b[start:end], which is token id.
func (k *Known) finding(place string, b []byte, start, end, id int) Finding {
	return Finding{Rule: k.tokens[id].name, Place: place, Excerpt: k.excerpt(b, start, end)}
}

// search looks at the next bytes of a stream on its way to host.
func (k *Known) search(in *needle.Stream, p []byte, host, place string) (needle.Window, *LeakError) {
	var at [3]int
	leaks := false
	w := in.PushOver(p, func(start, end, id int) bool {
		if k.leaks(id, host) {
			at, leaks = [3]int{start, end, id}, true
		}
		return !leaks
	})
	if !leaks {
		return w, nil
	}
	return needle.Window{}, &LeakError{Finding: k.finding(place, w.Bytes, at[0], at[1], at[2])}
}

// mayGo tells whether what has a token's form is a token that may go to host, or a part of one, or has one in it.
func (k *Known) mayGo(host, secret string) bool {
	return slices.ContainsFunc(k.tokens, func(t token) bool {
		return t.homes[host] && (strings.Contains(t.value, secret) || len(t.value) >= needle.MinLength && strings.Contains(secret, t.value))
	})
}

// Has tells whether b has a token in it, in whatever encoding.
func (k *Known) Has(b []byte) bool { return k.set.Has(b) }

// Redact returns text with each token in it, in whatever encoding, replaced.
func (k *Known) Redact(text string) string {
	if !k.Has([]byte(text)) {
		return text
	}
	var b strings.Builder
	from := 0
	k.set.Scan([]byte(text), func(start, end, _ int) bool {
		if start >= from { // one that begins within another goes on as its rest
			b.WriteString(text[from:start])
			b.WriteString(redacted)
		}
		from = max(from, end)
		return true
	})
	if from == 0 {
		return text
	}
	return b.String() + text[from:]
}
