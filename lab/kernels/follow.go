package main

import (
	"bytes"
	"strings"
)

// follower reports each test of the top level as it ends, for whoever watches a slow machine.
type follower struct {
	say  func(format string, args ...any)
	name string // of the kernel
	line []byte
}

// Write implements io.Writer. It never fails.
func (f *follower) Write(p []byte) (int, error) {
	f.line = append(f.line, p...)
	for {
		line, rest, whole := bytes.Cut(f.line, []byte("\n"))
		if !whole {
			f.line = f.line[max(0, len(f.line)-mostSaid):]
			return len(p), nil
		}
		f.line = rest
		if end, ok := strings.CutPrefix(string(line), "\x16--- "); ok && !strings.Contains(end, "/") {
			f.say("%-5s %s", f.name, end)
		}
	}
}
