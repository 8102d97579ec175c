// Package claude provisions bottles that run Claude Code: which hosts it
// needs, and which dummy it holds in place of the host's credential.
package claude

import (
	"encoding/json"
	"path"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

const (
	name = "claude"

	apiHost     = "api.anthropic.com"
	consoleHost = "console.anthropic.com" // sign-in with an API account
	accountHost = "platform.claude.com"   // sign-in and refresh
	browserHost = "claude.ai"             // sign-in with a subscription

	keyEnv      = "ANTHROPIC_API_KEY"
	oauthEnv    = "CLAUDE_CODE_OAUTH_TOKEN"
	credentials = ".claude/.credentials.json" // below the host's home directory
	tokenPath   = "/claudeAiOauth/accessToken"
	refreshPath = "/claudeAiOauth/refreshToken"
	signInWords = "run `claude` and sign in on the host"
)

// maxCredentials bounds the host's credentials file in bytes.
const maxCredentials = 1 << 20

// Provider implements provider.Provider. The zero value is ready.
type Provider struct{}

// Name returns "claude".
func (Provider) Name() string { return name }

// Provision returns what Claude Code needs: in mode Inject the API host with
// the host's credential, in mode SignIn its hosts undecrypted. There is nothing
// to lend: the token's lifetime is not the gateway's to bound.
func (Provider) Provision(q provider.Request) (provider.Contribution, error) {
	// Without it the client also sends telemetry and looks for updates.
	c := provider.Contribution{Env: []provider.EnvVar{{Name: "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", Value: "1"}}}
	switch {
	case routes.HasProviderAuth(q.Manifest):
		return ownCredential(c, q), nil
	case q.Mode == provider.SignIn:
		for _, host := range []string{apiHost, accountHost, consoleHost, browserHost} {
			c.Routes = append(c.Routes, route(host, nil, nil, nil))
		}
		return c, nil
	case q.Mode == provider.Inject:
		return inject(c, q), nil
	}
	return provider.Contribution{}, &provider.ModeError{Provider: name, Mode: q.Mode, Remedy: "write true or false"}
}

// source is where the host keeps its credential, and how it is sent.
type source struct {
	ref  routes.SecretRef
	key  bool   // an API key, sent as x-api-key; else an OAuth token, sent as bearer
	note string // what is wrong with it
	// refresh is the token that gets a new one, which is never sent; nil if there is none.
	refresh *routes.SecretRef
}

// findSource takes the first of: the file that the manifest names, the API
// key's variable, the OAuth token's variable, the default file.
func findSource(q provider.Request) source {
	switch {
	case q.CredentialsFile != "":
		return fileSource(q.CredentialsFile, q.Host)
	case q.Host.Getenv(keyEnv) != "":
		return source{key: true, ref: routes.SecretRef{Env: keyEnv, Remedy: envRemedy(keyEnv)}}
	case q.Host.Getenv(oauthEnv) != "":
		return source{ref: routes.SecretRef{Env: oauthEnv, Remedy: envRemedy(oauthEnv)}}
	case path.IsAbs(q.Host.Home()):
		return fileSource(path.Join(q.Host.Home(), credentials), q.Host)
	}
	s := source{key: true, ref: routes.SecretRef{Env: keyEnv, Remedy: envRemedy(keyEnv)}}
	s.note = "the host has no credential (neither " + keyEnv + " nor " + oauthEnv + " is set, and the gateway's user has no home directory)"
	return s
}

func envRemedy(variable string) string {
	return "set " + variable + " in gatewayd's environment and restart it"
}

// fileSource judges the credentials file without keeping anything of it.
func fileSource(file string, h provider.Host) source {
	s := source{ref: routes.SecretRef{
		JSON:   &routes.JSONRef{Path: file, Pointer: tokenPath},
		Remedy: signInWords + " as the user who owns " + file,
	}}
	var f struct {
		OAuth struct {
			AccessToken  string `json:"accessToken"`
			RefreshToken string `json:"refreshToken"`
			ExpiresAt    int64  `json:"expiresAt"` // milliseconds since 1970
		} `json:"claudeAiOauth"`
	}
	data, err := h.ReadFile(file)
	switch {
	case err != nil:
		s.note = "the host's " + file + " cannot be read"
	case len(data) > maxCredentials || json.Unmarshal(data, &f) != nil || f.OAuth.AccessToken == "":
		s.note = "the host's " + file + " holds no access token at " + tokenPath
	case f.OAuth.ExpiresAt != 0 && !time.UnixMilli(f.OAuth.ExpiresAt).After(h.Now()):
		s.note = "the host's access token in " + file + " has expired"
	}
	if f.OAuth.RefreshToken != "" {
		s.refresh = &routes.SecretRef{JSON: &routes.JSONRef{Path: file, Pointer: refreshPath}, Remedy: s.ref.Remedy}
	}
	return s
}

// inject contributes the API host with the host's credential, and the dummy.
func inject(c provider.Contribution, q provider.Request) provider.Contribution {
	s := findSource(q)
	if s.ref.JSON != nil {
		c.Watch = []string{s.ref.JSON.Path}
	}
	if s.note != "" {
		c.Notes = append(c.Notes, s.note+": the agent will be answered 503 until you "+s.ref.Remedy)
	}
	auth := &routes.Auth{Scheme: routes.Bearer, Header: "Authorization", Secret: s.ref}
	variable, dummy := oauthEnv, "sk-ant-oat01-"+provider.Dummy(q.Bottle, "oauth token")
	if s.key {
		auth.Scheme, auth.Header = routes.HeaderScheme, "X-Api-Key"
		variable, dummy = keyEnv, "sk-ant-api03-"+provider.Dummy(q.Bottle, "api key")
	}
	auth.Dummies.Values = []string{dummy}
	c.Env = append(c.Env, provider.EnvVar{Name: variable, Value: dummy})
	c.Canaries = []provider.Canary{{Name: "dummy claude credential", Value: dummy, Homes: []string{apiHost}}}
	if s.refresh != nil {
		c.Secrets = []provider.HostSecret{{Secret: *s.refresh, Homes: []string{}}}
	}
	c.Routes = []routes.Route{route(apiHost, methods(), apiPaths(), auth)}
	return c
}

// ownCredential serves a manifest that brings the agent's credential itself:
// the provider adds no auth, and completes the manifest's route for its host.
func ownCredential(c provider.Contribution, q provider.Request) provider.Contribution {
	if q.Mode != provider.SignIn {
		c.Notes = append(c.Notes, "the manifest's own credential (auth.role: provider) takes precedence: the host's credentials are not used")
	}
	for _, r := range q.Manifest {
		if r.Host == apiHost && r.Auth != nil && r.Auth.Role == routes.RoleProvider {
			c.Routes = append(c.Routes, route(apiHost, methods(), apiPaths(), nil))
		}
	}
	return c
}

// route returns a route of the provider. tls_passthrough: with auth, what the
// gateway itself authenticates is not scanned; without, it is not decrypted.
func route(host string, methods, paths []string, auth *routes.Auth) routes.Route {
	return routes.Route{
		Host: host, Port: 443, Protocol: routes.HTTPS, Methods: methods, Paths: paths,
		Auth: auth, TLSPassthrough: true, Origin: routes.Origin{Provider: name},
	}
}

func methods() []string { return []string{"GET", "HEAD", "POST"} }

// apiPaths are the paths that the client uses; a token opens more on the same
// host. A manifest route for the host with paths of its own replaces the list.
func apiPaths() []string {
	return []string{
		"/",
		"/api/claude_cli/**",
		"/api/claude_code/**",
		"/api/claude_code_penguin_mode",
		"/api/eval/**",
		"/api/event_logging/**",
		"/api/oauth/profile",
		"/mcp-registry/**",
		"/v1/messages/**",
		"/v1/models/**",
	}
}
