// Package codex provisions bottles that run the Codex CLI.
package codex

import (
	"errors"

	"gatewayd/plan/provider"
)

// AnswerName is the Route.Answer of the sign-in host, the key under which the
// handler from NewAnswerer is wired.
const AnswerName = "codex-token"

// Provider implements provider.Provider.
type Provider struct{}

// Name returns the template name.
func (Provider) Name() string { return "codex" }

// Provision contributes routes, environment and files.
func (Provider) Provision(provider.Request) (provider.Contribution, error) {
	return provider.Contribution{}, errors.New("provision codex: not written yet")
}
