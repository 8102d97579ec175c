//go:build race

package http2

// idleBudget with the race detector, which keeps shadows of its own: here the test only shows that no buffer is held.
const idleBudget = 32 << 10
