package provision

import (
	"fmt"
	"os"

	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/gateway"
	"gatewayd/gateway/formats"
)

// maxRules bounds the operator's file of rules, in bytes.
const maxRules = 1 << 20

// Formats compiles the built-in rules and those of pipelock.rules. It takes some tens of milliseconds. An error names the
// file and the rule.
func Formats(c config.Config) (*formats.Set, error) {
	if c.PipelockRules == "" {
		return formats.Default()
	}
	text, err := os.ReadFile(c.PipelockRules)
	if err != nil {
		return nil, fmt.Errorf("read pipelock.rules: %w", err)
	}
	if len(text) > maxRules {
		return nil, fmt.Errorf("read pipelock.rules: %s has more than %d bytes", c.PipelockRules, maxRules)
	}
	return formats.Compile(c.PipelockRules, text)
}

// Scanned gives the bottle the rules, and trip, the manifest's word on how many leaks cut it off, if it has one. A route
// that turns a rule off which there is not is an error: it would turn off nothing.
func Scanned(b *gateway.Bottle, c config.Config, trip *int, set *formats.Set) error {
	for _, r := range b.Table.Routes() {
		for _, id := range r.Pipelock.Disable {
			if !set.Has(id) {
				return fmt.Errorf("%v: pipelock.disable: there is no rule %.60q; `gatewayd scan --rules` lists them", r.Origin, id)
			}
		}
	}
	b.Formats, b.Trip = set, c.PipelockTrip
	if trip != nil {
		b.Trip = *trip
	}
	return nil
}
