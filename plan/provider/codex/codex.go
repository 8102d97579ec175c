// Package codex provisions bottles that run the Codex CLI: which hosts it
// needs, what its files hold, and the answers that stand in for its sign-in
// host.
//
// In the guest's auth.json the account id, the plan type and the expiry are
// the host's: the CLI sends the first, behaves by the second and refreshes by
// the third. The tokens, the e-mail address and the user id are made up.
package codex

import (
	"errors"
	"path"
	"time"

	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

// name is the provider's name in manifests and messages.
const name = "codex"

// AnswerName is the Route.Answer of the sign-in host: the key under which the
// handler from NewAnswerer is to be wired.
const AnswerName = "codex-token"

// Provider implements provider.Provider. The zero value is ready.
type Provider struct{}

// Name returns "codex".
func (Provider) Name() string { return name }

// Provision returns what the Codex CLI needs in the given mode. It reads the
// host's auth.json in modes Inject and Lend; what is wrong with it becomes a
// note, and the routes stay as narrow as ever.
func (Provider) Provision(q provider.Request) (provider.Contribution, error) {
	c := provider.Contribution{
		Env: []provider.EnvVar{
			{Name: "CODEX_CA_CERTIFICATE", Path: bundlePath},
			{Name: "CODEX_HOME", Path: guestDir},
		},
		Files: []provider.GuestFile{{Path: configPath, Mode: 0o600, Content: configTOML}},
	}
	if routes.HasProviderAuth(q.Manifest) {
		return ownCredential(c, q)
	}
	if q.Mode == provider.SignIn {
		for _, host := range []string{modelHost, apiHost, signInHost, telemetryHost} {
			c.Routes = append(c.Routes, passThrough(host))
		}
		return c, nil
	}
	file, err := credentialsFile(q.CredentialsFile, q.Host)
	if err != nil {
		return provider.Contribution{}, err
	}
	c.Watch = []string{file}
	a := readHostAuth(q.Host.ReadFile, file)
	c.Notes = hostNotes(a, file, q.Host.Now())
	switch q.Mode {
	case provider.Inject:
		return inject(c, q.Bottle, file, a)
	case provider.Lend:
		return lend(c, q.Bottle, file, a)
	default:
		return provider.Contribution{}, &provider.ModeError{Provider: name, Mode: q.Mode, Remedy: "write true, false or lend"}
	}
}

// credentialsFile returns the host's auth.json: the given one, or the default
// below the home directory.
func credentialsFile(given string, h provider.Host) (string, error) {
	if given != "" {
		return given, nil
	}
	if !path.IsAbs(h.Home()) {
		return "", errors.New("find credentials of codex: the gateway's user has no home directory: write agent_provider.credentials_file: /PATH/auth.json")
	}
	return path.Join(h.Home(), credentials), nil
}

// inject contributes dummies for the guest and auth for the API hosts.
func inject(c provider.Contribution, bottle, file string, a hostAuth) (provider.Contribution, error) {
	c.Answers = map[string]string{AnswerName: name}
	if a.State == stateAPIKey {
		return injectAPIKey(c, bottle, file)
	}
	dummies := guestDummies(bottle)
	c.Routes = []routes.Route{
		api(modelHost, modelPaths(), bearer(file, tokenPointer, dummies)),
		api(apiHost, apiPaths(), bearer(file, tokenPointer, dummies)),
		signIn(),
	}
	tokens, err := dummyTokens(bottle, a, orTime(a.Expires, noExpiry))
	if err != nil {
		return provider.Contribution{}, err
	}
	if c.Canaries, err = tokenCanaries(bottle); err != nil {
		return provider.Contribution{}, err
	}
	c.Secrets = refreshToken(file, a)
	return withAuth(c, guestAuth{
		AuthMode: "chatgpt",
		Tokens: &guestTokens{
			IDToken: tokens.ID, AccessToken: tokens.Access,
			RefreshToken: dummyRefresh(bottle), AccountID: a.AccountID,
		},
		LastRefresh: lastRefresh(a),
	})
}

// injectAPIKey is inject for a host that signs in with an API key, which the
// CLI also sends to the model host, to list models.
func injectAPIKey(c provider.Contribution, bottle, file string) (provider.Contribution, error) {
	key, dummies := dummyAPIKey(bottle), guestDummies(bottle)
	c.Routes = []routes.Route{
		api(apiHost, apiPaths(), bearer(file, apiKeyPointer, dummies)),
		api(modelHost, []string{modelsPath}, bearer(file, apiKeyPointer, dummies)),
		signIn(),
	}
	var err error
	if c.Canaries, err = tokenCanaries(bottle); err != nil {
		return provider.Contribution{}, err
	}
	return withAuth(c, guestAuth{AuthMode: "apikey", APIKey: &key})
}

// lend contributes the host's access token itself, by reference, in a form
// that the CLI never refreshes, and passes its hosts through undecrypted.
func lend(c provider.Contribution, bottle, file string, a hostAuth) (provider.Contribution, error) {
	c.Routes = []routes.Route{passThrough(modelHost), passThrough(apiHost)}
	if a.State == stateAPIKey {
		c.Notes = append(c.Notes, "an API key does not expire, so it is not lent: write forward_host_credentials: true")
		return c, nil
	}
	c.Notes = append(c.Notes, lendNote)
	tokens, err := dummyTokens(bottle, a, orTime(a.Expires, noExpiry))
	if err != nil {
		return provider.Contribution{}, err
	}
	c, err = withAuth(c, guestAuth{
		AuthMode:    "chatgptAuthTokens",
		Tokens:      &guestTokens{IDToken: tokens.ID, AccessToken: lentMark, AccountID: a.AccountID},
		LastRefresh: lastRefresh(a),
	})
	if err != nil {
		return provider.Contribution{}, err
	}
	ref := secretAt(file, tokenPointer)
	c.Secrets = append(refreshToken(file, a), provider.HostSecret{Secret: ref, Homes: []string{modelHost, apiHost}})
	c.Files[len(c.Files)-1].Fill = []provider.Fill{{Mark: lentMark, Secret: ref}}
	return c, nil
}

// refreshToken returns the host's refresh token, if it has one: it crosses in no mode.
func refreshToken(file string, a hostAuth) []provider.HostSecret {
	if !a.Refreshes {
		return nil
	}
	return []provider.HostSecret{{Secret: secretAt(file, refreshPointer), Homes: []string{}}}
}

// secretAt refers to a secret in the host's auth.json.
func secretAt(file, pointer string) routes.SecretRef {
	return routes.SecretRef{JSON: &routes.JSONRef{Path: file, Pointer: pointer}, Remedy: remedy(file)}
}

// lentMark stands in the plan's auth.json where the lent token is written.
const lentMark = "@gatewayd-lent-access-token@"

const lendNote = "lend: the guest holds the host's real access token until it expires, and whatever runs there can read and use it, " +
	"also against parts of the account that forward_host_credentials: true keeps shut; in exchange nothing is decrypted. " +
	"The refresh token stays on the host: run `gatewayd guest` again when the token has expired"

// ownCredential serves a manifest that brings the agent's credential itself, by
// a route with auth.role: provider. The provider then adds no auth anywhere; it
// opens its hosts only as far as such a route names them, and gives the guest
// the route's dummy.
func ownCredential(c provider.Contribution, q provider.Request) (provider.Contribution, error) {
	if q.Mode != provider.SignIn {
		c.Notes = append(c.Notes, "the manifest's own credential (auth.role: provider) takes precedence: the host's auth.json is not used")
	}
	c.Routes = append(c.Routes, signIn())
	c.Answers = map[string]string{AnswerName: name}
	var guest guestAuth
	for _, r := range q.Manifest {
		if r.Auth == nil || r.Auth.Role != routes.RoleProvider || len(r.Auth.Dummies.Values) == 0 {
			continue
		}
		dummy := r.Auth.Dummies.Values[0]
		switch r.Host {
		case apiHost:
			c.Routes = append(c.Routes, api(apiHost, apiPaths(), nil))
			guest = guestAuth{AuthMode: "apikey", APIKey: &dummy}
		case modelHost:
			c.Routes = append(c.Routes, api(modelHost, modelPaths(), nil))
			if guest.APIKey == nil {
				guest = guestAuth{
					AuthMode:    "chatgptAuthTokens",
					Tokens:      &guestTokens{AccessToken: dummy},
					LastRefresh: lastRefresh(hostAuth{}),
				}
			}
		}
	}
	if guest.AuthMode == "" {
		return c, nil
	}
	if guest.Tokens != nil {
		tokens, err := dummyTokens(q.Bottle, hostAuth{}, noExpiry)
		if err != nil {
			return provider.Contribution{}, err
		}
		guest.Tokens.IDToken = tokens.ID
	}
	return withAuth(c, guest)
}

// withAuth adds the guest's auth.json.
func withAuth(c provider.Contribution, g guestAuth) (provider.Contribution, error) {
	text, err := g.render()
	if err != nil {
		return provider.Contribution{}, err
	}
	c.Files = append(c.Files, provider.GuestFile{Path: authPath, Mode: 0o600, Content: text})
	return c, nil
}

// hostNotes says what is wrong with the host's credentials, and what to do.
func hostNotes(a hostAuth, file string, now time.Time) []string {
	switch {
	case !a.forwardable():
		return []string{"the host's credentials in " + file + " cannot be used (" + a.Detail + "): the agent will be answered 503 until you " + remedy(file)}
	case !a.Expires.IsZero() && !a.Expires.After(now):
		return []string{"the host's access token in " + file + " expired at " + a.Expires.Format(time.RFC3339) + ": the agent will be answered 503 until you " + remedy(file)}
	case a.State == stateChatGPT && a.AccountID == "":
		return []string{"the host's " + file + " names no account: workspace routing will not work in the guest"}
	}
	return nil
}

// lastRefresh returns the time that auth.json must hold: without one, the CLI
// sends no token at all.
func lastRefresh(a hostAuth) string { return orTime(a.LastRefresh, noExpiry).Format(time.RFC3339) }

func orTime(t, other time.Time) time.Time {
	if t.IsZero() {
		return other
	}
	return t
}

// configTOML is the guest's config.toml: credentials in the file that the plan
// provides, and none of what an idle agent would otherwise send.
const configTOML = `# Written by gatewayd. An idle agent stays quiet.
check_for_update_on_startup = false
cli_auth_credentials_store = "file"

[analytics]
enabled = false

[features]
daemon_auto_start = false
`
