package plan

import (
	"maps"
	"slices"

	"gatewayd/plan/provider"
	"gatewayd/plan/provider/claude"
	"gatewayd/plan/provider/codex"
)

// noProvider is the template of a bottle without an agent provider.
const noProvider = "none"

// builtins names every provider, and whether it can lend.
func builtins() map[string]struct {
	provider provider.Provider
	lends    bool
} {
	return map[string]struct {
		provider provider.Provider
		lends    bool
	}{
		noProvider: {provider: nothing{}},
		"codex":    {provider: codex.Provider{}, lends: true},
		"claude":   {provider: claude.Provider{}},
	}
}

// templates returns the names of all providers, sorted.
func templates() []string { return slices.Sorted(maps.Keys(builtins())) }

// builtin returns the provider called name.
func builtin(name string) (provider.Provider, bool) {
	b, ok := builtins()[name]
	return b.provider, ok
}

// lends tells whether the provider called name has the mode provider.Lend.
func lends(name string) bool { return builtins()[name].lends }

// nothing is the provider of a bottle without an agent: it contributes nothing.
type nothing struct{}

// Name returns "none".
func (nothing) Name() string { return noProvider }

// Provision contributes nothing.
func (nothing) Provision(provider.Request) (provider.Contribution, error) {
	return provider.Contribution{}, nil
}
