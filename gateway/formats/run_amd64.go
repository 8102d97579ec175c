package formats

import features "golang.org/x/sys/cpu"

// runBlockSize is how many bytes longRun looks at at a time.
const runBlockSize = 32

// hasLongRun tells whether the processor can do what longRun asks of it.
var hasLongRun = features.X86.HasAVX2

// findRunInBlocks returns where the first run in text begins, or false and from where on that has not been looked for.
func findRunInBlocks(text []byte) (at int, ok bool) {
	whole := len(text) &^ (runBlockSize - 1)
	if whole == 0 || !hasLongRun {
		return 0, false
	}
	if at = longRun(&text[0], whole); at >= 0 {
		return at, true
	}
	return whole - (shortestRun - 1), false
}

// longRun returns where the first shortestRun characters of base64 begin that follow each other in the n bytes at text, whole
// blocks of them; -1 if there are none.
//
//go:noescape
func longRun(text *byte, n int) int
