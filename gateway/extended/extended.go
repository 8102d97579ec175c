// Package extended makes golang.org/x/net/http2 offer extended CONNECT, by which a client opens a WebSocket on a stream of
// HTTP/2 (RFC 8441). That package looks at GODEBUG for it, once, when it is initialised, and has no other switch.
//
// This one imports nothing that http2 does not, and its path sorts before golang.org, so it is initialised first: the next
// package to be initialised is always the first by its path of those whose imports are (the Go Programming Language
// Specification, "Program initialization").
package extended

import "os"

var before, was = os.LookupEnv("GODEBUG")

func init() { //nolint:gochecknoinits // before that of http2 is the one time for it
	setting := "http2xconnect=1"
	if before != "" {
		setting = before + "," + setting
	}
	_ = os.Setenv("GODEBUG", setting) // it fails only for names and values that no environment can hold
}

// Restore sets GODEBUG as it was, for programs that this one starts. It is for the init of a package that imports http2.
func Restore() {
	if was {
		_ = os.Setenv("GODEBUG", before) // it was there
		return
	}
	_ = os.Unsetenv("GODEBUG") // it fails only for names that no environment can hold
}
