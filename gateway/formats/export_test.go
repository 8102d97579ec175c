package formats

import "testing"

// Specimen is a text with one true secret of a rule.
type Specimen struct{ Rule, Text string }

// Specimens returns texts made from each built-in rule's own expression, so many for each, and the number of rules.
func Specimens(t testing.TB, each int) (all []Specimen, rules int) {
	t.Helper()
	s := defaultSet(t)
	for _, r := range source(t) {
		rules++
		for seed := range uint64(each) {
			text, ok := example(t, s, r, seed)
			if !ok {
				t.Errorf("no example for %s", r.ID)
				break
			}
			all = append(all, Specimen{r.ID, text})
		}
	}
	return all, rules
}

// plus adds up the work of two streams.
func (w work) plus(v work) work {
	return work{w.steps + v.steps, w.tried + v.tried, w.recalled + v.recalled, w.looked + v.looked}
}
