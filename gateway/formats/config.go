package formats

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/zricethezav/gitleaks/v8/config"
)

// file is a rule file: those parts of gitleaks' format that mean something for traffic, which has neither paths nor
// commits.
type file struct {
	Allowlist  allowlistTOML   `toml:"allowlist"`
	Allowlists []allowlistTOML `toml:"allowlists"`
	Rules      []ruleTOML      `toml:"rules"`

	text string
}

type ruleTOML struct {
	ID          string          `toml:"id"`
	Description string          `toml:"description"`
	Regex       string          `toml:"regex"`
	Path        string          `toml:"path"`
	Entropy     float64         `toml:"entropy"`
	SecretGroup int             `toml:"secretGroup"`
	Keywords    []string        `toml:"keywords"`
	Allowlist   allowlistTOML   `toml:"allowlist"`
	Allowlists  []allowlistTOML `toml:"allowlists"`
	Check       string          `toml:"check"` // not of gitleaks
}

type allowlistTOML struct {
	Condition   string   `toml:"condition"`
	RegexTarget string   `toml:"regexTarget"`
	Regexes     []string `toml:"regexes"`
	StopWords   []string `toml:"stopwords"`
	Paths       []string `toml:"paths"`
	Commits     []string `toml:"commits"`
	TargetRules []string `toml:"targetRules"`
}

// RuleError reports a rule file that cannot be used.
type RuleError struct {
	// File is what the caller named the text, and Line where in it the fault is, from 1 on; 0 when that is not known.
	File string
	Line int
	// Rule is the id of the rule at fault, or "" when it is the file.
	Rule string
	// Problem says what is wrong and what to write instead.
	Problem string
}

// Error names file, line, rule and problem.
func (e *RuleError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Rule != "" {
		where = fmt.Sprintf("%s: rule %q", where, e.Rule)
	}
	return fmt.Sprintf("read rules %s: %s", where, e.Problem)
}

// defaultName is what errors call the built-in rules.
const defaultName = "built in"

// Default compiles gitleaks' own rules. It takes some tens of milliseconds; the result is meant to be shared. An error
// means that the program was built with a version of them that it cannot use.
func Default() (*Set, error) { return Compile("", nil) }

// Compile compiles gitleaks' own rules and those of text, a rule file in the same format (TOML) that errors call name. A
// rule of text replaces a built-in one with its id; its allow-lists for all rules add to the built-in ones. Rules that
// depend on a file's path are left out, since traffic has none. An error is a *RuleError.
func Compile(name string, text []byte) (*Set, error) {
	builtin, err := parseFile(defaultName, []byte(config.DefaultConfig))
	if err != nil {
		return nil, err
	}
	own, err := parseFile(name, text)
	if err != nil {
		return nil, err
	}
	replaced := map[string]bool{}
	for _, r := range own.Rules {
		replaced[r.ID] = true
	}
	b := &builder{}
	b.from(defaultName, builtin)
	for _, r := range builtin.Rules {
		if !replaced[r.ID] {
			b.add(r)
		}
	}
	b.from(name, own)
	for _, r := range own.Rules {
		b.add(r)
	}
	return b.finish()
}

// parseFile decodes one rule file.
func parseFile(name string, text []byte) (*file, error) {
	f := &file{text: string(text)}
	if err := toml.Unmarshal(text, f); err != nil {
		e := &RuleError{File: name, Problem: err.Error()}
		if d := (*toml.DecodeError)(nil); errors.As(err, &d) {
			e.Line, _ = d.Position()
		}
		return nil, e
	}
	seen := map[string]bool{}
	for i, r := range f.Rules {
		if r.ID == "" {
			return nil, &RuleError{File: name, Line: f.line(ruleHead, i), Problem: "this rule has no id: give it one, unique in the file"}
		}
		if seen[r.ID] {
			return nil, &RuleError{File: name, Line: f.lineOf(r.ID, 1), Rule: r.ID, Problem: "the file has this id twice: rename one of the two"}
		}
		seen[r.ID] = true
	}
	return f, nil
}

// ruleHead begins a rule in the usual way of writing.
var ruleHead = regexp.MustCompile(`(?m)^[ \t]*\[\[[ \t]*rules[ \t]*\]\]`)

// line returns the line, from 1 on, of the nth place in the file that re matches, or 0.
func (f *file) line(re *regexp.Regexp, n int) int {
	at := re.FindAllStringIndex(f.text, n+1)
	if len(at) <= n {
		return 0
	}
	return 1 + strings.Count(f.text[:at[n][0]], "\n")
}

// lineOf returns the line of the nth rule with the id, or 0.
func (f *file) lineOf(id string, n int) int {
	return f.line(regexp.MustCompile(`(?m)^[ \t]*["']?id["']?[ \t]*=[ \t]*["']`+regexp.QuoteMeta(id)+`["']`), n)
}

// builder collects compiled rules. Its first error is the one that finish returns.
type builder struct {
	name  string // of file
	file  *file
	set   Set
	lists []allowlist
	err   error
}

// from begins with a file, and takes its allow-lists that hold for all rules.
func (b *builder) from(name string, f *file) {
	b.name, b.file = name, f
	for _, a := range append([]allowlistTOML{f.Allowlist}, f.Allowlists...) {
		if len(a.TargetRules) == 0 {
			b.allow(&b.lists, "", a)
		}
	}
}

// allow compiles one allow-list into to.
func (b *builder) allow(to *[]allowlist, rule string, a allowlistTOML) {
	list := allowlist{all: strings.EqualFold(a.Condition, "and")}
	if list.all && len(a.Paths)+len(a.Commits) > 0 {
		return // a condition on a path or a commit is never met
	}
	switch a.RegexTarget {
	case "", "secret":
		list.target = targetSecret
	case "match":
		list.target = targetMatch
	case "line":
		list.target = targetLine
	default:
		b.fail(rule, fmt.Sprintf("regexTarget %.40q is unknown: write secret, match or line", a.RegexTarget))
	}
	for _, x := range a.Regexes {
		re, err := regexp.Compile(x)
		if err != nil {
			b.fail(rule, "an allow-list's expression cannot be compiled: "+err.Error())
			return
		}
		list.regexes = append(list.regexes, re)
	}
	list.words = newWords(a.StopWords)
	if len(list.regexes) > 0 || list.words != nil {
		*to = append(*to, list)
	}
}

// add compiles one rule.
func (b *builder) add(r ruleTOML) {
	if r.Regex == "" || r.Path != "" || b.err != nil {
		if r.Regex == "" && r.Path == "" {
			b.fail(r.ID, "it has no regex: write one, or a path for a rule that is only for files")
		}
		return
	}
	var lists []allowlist
	for _, a := range append([]allowlistTOML{r.Allowlist}, r.Allowlists...) {
		b.allow(&lists, r.ID, a)
	}
	if r.Check != "" && checks[r.Check] == nil {
		b.fail(r.ID, fmt.Sprintf("check %.40q is unknown: write %s", r.Check, strings.Join(slices.Sorted(maps.Keys(checks)), ", ")))
	}
	alternatives, err := parseRegex(r.Regex, r.SecretGroup)
	for i := 0; i < len(alternatives) && err == nil; i++ {
		c := &rule{id: r.ID, entropy: r.Entropy, group: r.SecretGroup, lists: lists}
		verified := c.tune()
		if r.Check != "" {
			c.check, verified = checks[r.Check], checkWords[r.Check]
		}
		c.about = Rule{ID: r.ID, Description: r.Description, Entropy: r.Entropy, Check: verified, Advisory: advisory(r.ID)}
		err = c.compile(alternatives[i], r.Keywords)
		b.set.rules = append(b.set.rules, c)
	}
	if err != nil {
		b.fail(r.ID, err.Error())
	}
}

func (b *builder) fail(rule, problem string) {
	if b.err == nil {
		b.err = &RuleError{File: b.name, Line: b.file.lineOf(rule, 0), Rule: rule, Problem: problem}
	}
}

// finish joins the rules' keywords into one automaton.
func (b *builder) finish() (*Set, error) {
	if b.err != nil {
		return nil, b.err
	}
	s := &b.set
	s.lists = b.lists
	for _, r := range s.rules {
		s.reach = max(s.reach, r.back.hi+lineContext)
	}
	for length := longestAtom; ; length-- {
		if s.keywords = newKeywords(s.rules, length); s.keywords != nil {
			return s, nil
		}
		if length == shortestAtom {
			return nil, &RuleError{File: "in all", Problem: fmt.Sprintf("%d rules have too many different keywords: use fewer", len(s.rules))}
		}
	}
}
