package formats

import (
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/zricethezav/gitleaks/v8/config"
)

// builtin is the default set, compiled once for all tests.
var builtin = sync.OnceValues(Default)

func defaultSet(t testing.TB) *Set {
	t.Helper()
	s, err := builtin()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// source returns the default rules as they are written, without those for files.
func source(t testing.TB) []ruleTOML {
	t.Helper()
	f, err := parseFile(defaultName, []byte(config.DefaultConfig))
	if err != nil {
		t.Fatal(err)
	}
	var out []ruleTOML
	for _, r := range f.Rules {
		if r.Regex != "" && r.Path == "" {
			out = append(out, r)
		}
	}
	return out
}

// compileOwn compiles rules without the built-in ones.
func compileOwn(text string) (*Set, error) {
	f, err := parseFile("own.toml", []byte(text))
	if err != nil {
		return nil, err
	}
	b := &builder{}
	b.from("own.toml", f)
	for _, r := range f.Rules {
		b.add(r)
	}
	return b.finish()
}

// generator writes strings that match an expression.
type generator struct{ rnd *rand.Rand }

func (g generator) write(b *strings.Builder, re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		b.WriteRune(g.member(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte("abcdefghij0123456789"[g.rnd.IntN(20)])
	case syntax.OpCapture:
		g.write(b, re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			g.write(b, sub)
		}
	case syntax.OpAlternate:
		g.write(b, re.Sub[g.rnd.IntN(len(re.Sub))])
	case syntax.OpStar:
		g.times(b, re.Sub[0], 0, 4)
	case syntax.OpPlus:
		g.times(b, re.Sub[0], 1, 9)
	case syntax.OpQuest:
		g.times(b, re.Sub[0], 0, 1)
	case syntax.OpRepeat:
		most := re.Max
		if most < 0 || most > re.Min+12 {
			most = re.Min + 12
		}
		g.times(b, re.Sub[0], re.Min, most)
	}
}

func (g generator) times(b *strings.Builder, re *syntax.Regexp, least, most int) {
	for range least + g.rnd.IntN(most-least+1) {
		g.write(b, re)
	}
}

// member returns a rune of a class: a letter, digit or what else is printable in ASCII, if there is any.
func (g generator) member(ranges []rune) rune {
	var nice, other []rune
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= min(ranges[i+1], unicode.MaxASCII); r++ {
			if unicode.IsLetter(r) || unicode.IsDigit(r) {
				nice = append(nice, r)
			} else if r >= ' ' && r < unicode.MaxASCII {
				other = append(other, r)
			}
		}
	}
	if len(nice) > 0 {
		return nice[g.rnd.IntN(len(nice))]
	}
	if len(other) > 0 {
		return other[g.rnd.IntN(len(other))]
	}
	return ranges[0]
}

// example returns a text that holds one true secret of the rule, by the rule's own expression and the judgement of it.
func example(t testing.TB, s *Set, r ruleTOML, seed uint64) (string, bool) {
	t.Helper()
	re, err := syntax.Parse(r.Regex, syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	whole := regexp.MustCompile(r.Regex)
	g := generator{rand.New(rand.NewPCG(seed, 4))}
	for range 3000 {
		var b strings.Builder
		g.write(&b, re)
		text := structured(r.ID, b.String(), g.rnd)
		around := "\n" + nearby(r) + text + "\n"
		if reference(s, r.ID, whole, r.SecretGroup, around) {
			return around, true
		}
	}
	return "", false
}

// nearby returns a keyword for rules whose match holds none.
func nearby(r ruleTOML) string {
	switch r.ID {
	case "facebook-access-token", "sourcegraph-access-token", "airtable-personnal-access-token":
		return r.Keywords[len(r.Keywords)-1] + " "
	}
	return ""
}

// structured repairs what the structure of a token decides and its expression does not.
func structured(id, text string, rnd *rand.Rand) string {
	switch id {
	case "github-pat", "github-oauth", "github-app-token":
		if i := strings.IndexByte(text, '_'); i >= 0 && len(text) >= i+37 {
			return text[:i+31] + checksum62(text[i+1:i+31]) + text[i+37:]
		}
	case "jwt":
		if i := strings.IndexByte(text, '.'); i >= 0 {
			return "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + text[i:]
		}
	case "private-key":
		if i := strings.Index(strings.ToUpper(text), "KEY"); i >= 0 {
			var b strings.Builder
			for i := range 256 {
				if i%64 == 0 {
					b.WriteByte('\n')
				}
				b.WriteByte("ABCDEFGHIJKLMNOPabcdefghij0123456789+/"[rnd.IntN(38)])
			}
			return "-----BEGIN RSA PRIVATE KEY-----" + b.String() + "\n-----END RSA PRIVATE KEY-----"
		}
	}
	return text
}

// reference looks for one rule the slow way: by the rule's own expression over the whole text.
func reference(s *Set, id string, re *regexp.Regexp, group int, text string) bool {
	var r *rule
	for _, have := range s.rules {
		if have.id == id {
			r = have
		}
	}
	for _, at := range re.FindAllStringSubmatchIndex(text, -1) {
		match := span{at[0], at[1]}
		secret := match
		for g := 1; g < len(at)/2; g++ {
			if at[2*g] >= 0 && at[2*g] < at[2*g+1] && (group == 0 || group == g) {
				secret = span{at[2*g], at[2*g+1]}
				break
			}
		}
		if s.verdict(r, []byte(text), match, secret, new(int64)) == genuine {
			return true
		}
	}
	return false
}
