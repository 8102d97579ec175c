package codex

import (
	"log/slog"
	"net/http"

	"gatewayd/plan/provider"
)

// AnswererConfig is what NewAnswerer needs.
type AnswererConfig struct {
	Bottle          string
	CredentialsFile string // absolute path on the host, or "" for the default below Host.Home
	Host            provider.Host
	Log             *slog.Logger // nil discards
}

// NewAnswerer returns the handler that stands in for the sign-in host.
func NewAnswerer(c AnswererConfig) http.Handler {
	return http.NotFoundHandler()
}
