package codex

import (
	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

// The hosts of the Codex CLI, as seen on the wire.
const (
	modelHost      = "chatgpt.com"     // models, account, plugins; HTTPS and WebSocket
	apiHost        = "api.openai.com"  // the model, with an API key
	signInHost     = "auth.openai.com" // sign-in, refresh, revocation
	telemetryHost  = "ab.chatgpt.com"  // metrics; turned off in the guest's config.toml
	tokenPath      = "/oauth/token"    // RFC 6749 §3.2
	revokePath     = "/oauth/revoke"   // RFC 7009 §2
	modelsPath     = "/backend-api/codex/models"
	guestDir       = "codex" // CODEX_HOME below the guest directory
	authPath       = guestDir + "/auth.json"
	configPath     = guestDir + "/config.toml"
	bundlePath     = "ca-bundle.pem"
	credentials    = ".codex/auth.json" // below the host's home directory
	tokenPointer   = "/tokens/access_token"
	refreshPointer = "/tokens/refresh_token"
	apiKeyPointer  = "/OPENAI_API_KEY"
)

// modelPaths are the path prefixes of modelHost that the CLI uses. The bearer
// would open the user's conversations and cloud tasks on the same host:
// whatever is not here is denied. A manifest route for the host with paths of
// its own replaces the list.
func modelPaths() []string {
	return []string{
		"/backend-api/codex/**", // models, responses, analytics-events
		"/backend-api/plugins/**",
		"/backend-api/ps/**", // plugins and their MCP endpoint
		"/backend-api/wham/accounts/check",
		"/backend-api/wham/config/**",
		"/backend-api/wham/rate-limit-reset-credits",
		"/backend-api/wham/security-setup",
		"/backend-api/wham/settings/**",
		"/backend-api/wham/usage",
	}
}

// apiPaths are the paths of apiHost that the CLI uses; an API key opens files
// and fine-tunes there as well.
func apiPaths() []string { return []string{"/v1/models", "/v1/responses/**"} }

// methods are those that the CLI uses; GET covers the WebSocket (RFC 6455
// §4.1) and HEAD the CLI's own diagnosis.
func methods() []string { return []string{"GET", "HEAD", "POST"} }

// passThrough returns a route that is never decrypted.
func passThrough(host string) routes.Route {
	return routes.Route{Host: host, Port: 443, Protocol: routes.HTTPS, TLSPassthrough: true, Origin: origin()}
}

// api returns a route of an API host. tls_passthrough: what the gateway itself
// authenticates is not scanned.
func api(host string, paths []string, auth *routes.Auth) routes.Route {
	return routes.Route{
		Host: host, Port: 443, Protocol: routes.HTTPS, Methods: methods(), Paths: paths,
		Auth: auth, TLSPassthrough: true, Origin: origin(),
	}
}

// signIn returns the route of the sign-in host, answered by the gateway.
func signIn() routes.Route {
	return routes.Route{
		Host: signInHost, Port: 443, Protocol: routes.HTTPS, Methods: []string{"POST"},
		Paths: []string{revokePath, tokenPath}, Answer: AnswerName, Origin: origin(),
	}
}

func origin() routes.Origin { return routes.Origin{Provider: name} }

// bearer returns the auth of the API hosts: a string in the host's auth.json.
func bearer(file, pointer string, dummies routes.Dummies) *routes.Auth {
	return &routes.Auth{
		Scheme: routes.Bearer, Header: "Authorization", Dummies: dummies,
		Secret: secretAt(file, pointer),
	}
}

// remedy says what renews the host's credentials.
func remedy(file string) string {
	return "run `codex login`, or any codex command to renew the token, on the host as the user who owns " + file
}

// guestDummies is what the guest may present to the API hosts: a JWT signed
// with the bottle's dummy key, whatever its expiry, or the dummy API key. Both
// hold however the host signs in, so that a guest provisioned before the host
// changed from one to the other meets no refusal.
func guestDummies(bottle string) routes.Dummies {
	return routes.Dummies{Values: []string{dummyAPIKey(bottle)}, JWTKey: provider.DummyKey(bottle)}
}

// tokenCanaries are the guest's dummies as a scanner knows them: each JWT of
// the bottle begins with the same header; the API key and the refresh token are
// placeholders.
func tokenCanaries(bottle string) ([]provider.Canary, error) {
	header, err := dummyHeader(bottle)
	if err != nil {
		return nil, err
	}
	return []provider.Canary{
		{Name: "dummy codex api key", Value: dummyAPIKey(bottle), Homes: []string{apiHost, modelHost}},
		{Name: "dummy codex token", Value: header, Homes: []string{apiHost, signInHost, modelHost}},
		{Name: "dummy codex refresh token", Value: dummyRefresh(bottle), Homes: []string{signInHost}},
	}, nil
}
