package dns

import (
	"fmt"
	"math"
	"strings"
)

// Bounds on what a guest may put in place of a wildcard. They are wide, since real names are long: object stores put a
// 63-letter bucket and a region in front of their name, content networks a hash. What they leave open, the budget of new names
// per minute bounds: a name carries about 50 bytes at best.
const (
	// maxFreeLabels is how many labels a wildcard may stand for. Endpoint names of cloud providers have five.
	maxFreeLabels = 6
	// maxFreeBytes is how many bytes they may have together, dots included.
	maxFreeBytes = 100
	// maxRun is the longest run of letters and digits that may look like encoded data: a SHA-1 in hexadecimal passes, 26 bytes
	// in base32 do not.
	maxRun = 40
	// minRunDigits is the share of digits, one in so many, from which a run looks encoded. Base32 has one in five, base36 one
	// in four, hexadecimal five in eight.
	minRunDigits = 10
	// maxFreeEntropy, in bits per byte, and minFreeEntropy bytes: from this many bytes on, more entropy than this over all free
	// labels means data spread over several. Hexadecimal has at most 4.0, words about 3.9, base32 of this length about 4.7.
	maxFreeEntropy, minFreeEntropy = 4.5, 64
)

// checkLabels returns an error when the labels that stand for a wildcard, canonical and without the dot behind them, are more
// than a host name needs, or look like data.
func checkLabels(labels string) error {
	if n := strings.Count(labels, ".") + 1; n > maxFreeLabels {
		return fmt.Errorf("%d labels in place of the wildcard, at most %d; name the host exactly to allow it", n, maxFreeLabels)
	}
	if len(labels) > maxFreeBytes {
		return fmt.Errorf("%d bytes in place of the wildcard, at most %d; name the host exactly to allow it", len(labels), maxFreeBytes)
	}
	for run := range strings.FieldsFuncSeq(labels, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		if len(run) > maxRun && digits(run)*minRunDigits >= len(run) {
			return fmt.Errorf("a label with %d letters and digits in a row looks like encoded data; name the host exactly to allow it", len(run))
		}
	}
	joined := strings.NewReplacer(".", "", "-", "", "_", "").Replace(labels)
	if len(joined) >= minFreeEntropy && entropy(joined) > maxFreeEntropy {
		return fmt.Errorf("labels with %.1f bits a byte look like encoded data; name the host exactly to allow it", entropy(joined))
	}
	return nil
}

// digits counts the decimal digits of s.
func digits(s string) int {
	n := 0
	for i := range len(s) {
		if s[i] >= '0' && s[i] <= '9' {
			n++
		}
	}
	return n
}

// entropy returns the Shannon entropy of the bytes of s, in bits per byte.
func entropy(s string) float64 {
	var counts [256]int
	for i := range len(s) {
		counts[s[i]]++
	}
	var h float64
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / float64(len(s))
			h -= p * math.Log2(p)
		}
	}
	return h
}
