package formats

import (
	"bytes"
	"math"
	"regexp"
	"slices"
	"strings"
)

// target is what an allow-list's expressions are tried on.
type target uint8

const (
	targetSecret target = iota
	targetMatch
	targetLine
)

// lineContext is how much of a line before and behind a match its allow-lists see, in bytes: a line may be a whole body.
const lineContext = 128

// allowlist says what is no secret after all.
type allowlist struct {
	all     bool // both expressions and words must say so, if there are both
	target  target
	regexes []*regexp.Regexp
	words   *words
}

// allows tells whether the list knows the secret. It adds to looked how many bytes it looked at.
func (l *allowlist) allows(secret, match, line []byte, looked *int64) bool {
	*looked += int64(len(secret))
	word := l.words.in(secret)
	if word && (!l.all || len(l.regexes) == 0) {
		return true
	}
	if !word && l.all && l.words != nil {
		return false
	}
	text := [][]byte{targetSecret: secret, targetMatch: match, targetLine: line}[l.target]
	return slices.ContainsFunc(l.regexes, func(re *regexp.Regexp) bool {
		*looked += int64(len(text))
		return re.Match(text)
	})
}

// verdict says what the secret is that a match of r holds: random enough, well formed, and on no allow-list. text is what
// is around; match and secret are in it. It adds to looked how many bytes it looked at, each as often as it did.
func (s *Set) verdict(r *rule, text []byte, match, secret span, looked *int64) verdict {
	value := bytes.Trim(text[secret.lo:secret.hi], "\n")
	*looked += int64(len(value))
	if r.entropy > 0 && entropy(value) <= r.entropy {
		return harmless
	}
	v := genuine
	if r.check != nil {
		*looked += int64(len(value))
		if v = r.check(text[max(0, match.lo-lineContext):secret.lo], value); v == harmless {
			return v
		}
	}
	line := lineAround(text, match)
	for _, lists := range [2][]allowlist{r.lists, s.lists} {
		for i := range lists {
			if lists[i].allows(value, text[match.lo:match.hi], line, looked) {
				return harmless
			}
		}
	}
	return v
}

// lineAround returns the line of the match, cut.
func lineAround(text []byte, match span) []byte {
	before := text[max(0, match.lo-lineContext):match.lo]
	from := match.lo - len(before) + bytes.LastIndexByte(before, '\n') + 1
	to := min(len(text), match.hi+lineContext)
	if i := bytes.IndexByte(text[match.hi:to], '\n'); i >= 0 {
		to = match.hi + i
	}
	return text[from:to]
}

// entropy returns Shannon's, in bits per byte.
func entropy(b []byte) float64 {
	if len(b) == 0 {
		return 0
	}
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	sum := 0.0
	for _, c := range b { // each byte value once for each time it occurs
		sum += math.Log2(float64(count[c]))
	}
	return math.Log2(float64(len(b))) - sum/float64(len(b))
}

// words are looked for anywhere in a text, in any case. A nil words holds none.
type words struct {
	seen  [1 << 10]uint64 // a bit for the hash of a word's first three bytes
	by    map[[3]byte][]string
	short []string
}

// newWords returns nil when there are none.
func newWords(all []string) *words {
	if len(all) == 0 {
		return nil
	}
	w := &words{by: map[[3]byte][]string{}}
	for _, word := range all {
		word = strings.ToLower(word)
		if len(word) < 3 {
			w.short = append(w.short, word)
			continue
		}
		head := [3]byte([]byte(word))
		w.by[head] = append(w.by[head], word)
		h := hash3(head)
		w.seen[h>>6] |= 1 << (h & 63)
	}
	return w
}

func hash3(h [3]byte) uint32 {
	return (uint32(h[0]) | uint32(h[1])<<8 | uint32(h[2])<<16) * 0x9e3779b1 >> 16
}

// in tells whether text holds a word.
func (w *words) in(text []byte) bool {
	if w == nil {
		return false
	}
	text = bytes.ToLower(text)
	for i := range max(0, len(text)-2) {
		head := [3]byte(text[i:])
		if h := hash3(head); w.seen[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		for _, word := range w.by[head] {
			if bytes.HasPrefix(text[i:], []byte(word)) {
				return true
			}
		}
	}
	return slices.ContainsFunc(w.short, func(word string) bool { return bytes.Contains(text, []byte(word)) })
}
