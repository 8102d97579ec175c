//go:build !amd64

package formats

// findRunInBlocks is for processors of which something is known.
func findRunInBlocks([]byte) (at int, ok bool) { return 0, false }
