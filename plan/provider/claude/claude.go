// Package claude provisions bottles that run Claude Code.
package claude

import (
	"errors"

	"gatewayd/plan/provider"
)

// Provider implements provider.Provider.
type Provider struct{}

// Name returns the template name.
func (Provider) Name() string { return "claude" }

// Provision contributes routes and environment.
func (Provider) Provision(provider.Request) (provider.Contribution, error) {
	return provider.Contribution{}, errors.New("provision claude: not written yet")
}
