//go:build !race

package http2

// idleBudget is what one idle TLS connection may hold, in bytes: crypto/tls's own state, a goroutine, the tables of the compression
// and little else. What the test itself keeps of each is in it.
const idleBudget = 22 << 10
