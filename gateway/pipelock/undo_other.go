//go:build !amd64

package pipelock

var hasUndo64 = false

// undo64 is for processors of which something is known.
func undo64(_, _ *[blockSize]byte, _ *shortTable) (dropped, long, tells uint64, n int) {
	return 0, 0, 0, 0
}
