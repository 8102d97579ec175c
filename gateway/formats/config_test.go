package formats

import (
	"errors"
	"strings"
	"testing"
)

// TestRuleErrors makes sure that a file that cannot be used is refused with the line and what to do.
func TestRuleErrors(t *testing.T) {
	const good = "[[rules]]\nid = \"acme\"\nregex = 'acme_[a-z]{8}'\nkeywords = [\"acme_\"]\n\n"
	for _, c := range []struct {
		text, rule, problem string
		line                int
	}{
		{good + "[[rules]\n", "", "expected", 6},
		{good + "[[rules]]\nregex = 'b'\n", "", "give it one", 6},
		{good + good, "acme", "rename one", 7},
		{good + "[[rules]]\nid = 'other'\n", "other", "no regex", 7},
		{good + "[[rules]]\nid = \"other\"\nregex = '('\n", "other", "missing closing", 7},
		{good + "[[rules]]\nid = \"other\"\nregex = '[a-z]{20}'\n", "other", "add keywords", 7},
		{good + "[[rules]]\nid = \"other\"\nregex = '[a-z]{20}'\nkeywords = ['a']\n", "other", "at least 3", 7},
		{good + "[[rules]]\nid = \"other\"\nregex = 'other_(a)'\nsecretGroup = 2\n", "other", "1 groups", 7},
		{good + "[[rules]]\nid = \"other\"\nregex = 'other_(a)'\n[[rules.allowlists]]\nregexTarget = 'file'\n", "other", "write secret, match or line", 7},
		{good + "[[rules]]\nid = \"other\"\nregex = 'other_(a)'\n[[rules.allowlists]]\nregexes = ['(']\n", "other", "missing closing", 7},
		{"[allowlist]\nregexes = ['(']\n", "", "missing closing", 0},
	} {
		_, err := Compile("rules.toml", []byte(c.text))
		var e *RuleError
		if !errors.As(err, &e) || e.File != "rules.toml" || e.Line != c.line || e.Rule != c.rule || !strings.Contains(e.Error(), c.problem) {
			t.Errorf("%q: %v", c.text, err)
		}
	}
}
