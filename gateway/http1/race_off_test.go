//go:build !race

package http1

// idleBudget is what one idle TLS connection may hold, in bytes: crypto/tls's own state, a goroutine and little else.
const idleBudget = 20 << 10
