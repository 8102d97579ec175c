package formats

import (
	"hash/crc32"
	"slices"
	"testing"
)

// checksum62 is the checksum of GitHub's tokens, worked out in another way than the code does.
func checksum62(body string) string {
	out := make([]byte, 0, 6)
	for n := uint64(crc32.ChecksumIEEE([]byte(body))); len(out) < 6; n /= 62 {
		d := byte(n % 62)
		switch {
		case d < 10:
			d += '0'
		case d < 36:
			d += 'A' - 10
		default:
			d += 'a' - 36
		}
		out = append(out, d)
	}
	slices.Reverse(out)
	return string(out)
}

// found returns the ids of the rules with findings in text.
func found(s *Set, text string) []string {
	var ids []string
	s.Scan([]byte(text), Policy{}, func(f Finding) {
		if !slices.Contains(ids, f.Rule) {
			ids = append(ids, f.Rule)
		}
	})
	return ids
}

// TestEveryRuleDetects generates true examples for each rule and looks for them.
func TestEveryRuleDetects(t *testing.T) {
	s := defaultSet(t)
	var without []string
	examples, misses := 0, 0
	for _, r := range source(t) {
		for seed := range uint64(5) {
			text, ok := example(t, s, r, seed)
			if !ok {
				without = append(without, r.ID)
				break
			}
			examples++
			if !slices.Contains(found(s, text), r.ID) {
				misses++
				t.Errorf("%s is missed in %q", r.ID, text)
			}
		}
	}
	t.Logf("%d examples of %d rules, %d missed; no example could be made for %q", examples, len(source(t))-len(without), misses, without)
	if len(without) > 0 {
		t.Errorf("no example for %q", without)
	}
}
