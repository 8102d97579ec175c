package redirect

import "context"

// CheckStatus is the outcome of one check.
type CheckStatus string

// The outcomes.
const (
	Pass CheckStatus = "pass"
	Warn CheckStatus = "warn"
	Fail CheckStatus = "fail"
)

// Check is one line of what Probe found.
type Check struct {
	Name   string
	Status CheckStatus
	Detail string
	Remedy string
}

// Probe looks at the machine.
func Probe(ctx context.Context, o Options) []Check { return nil }
