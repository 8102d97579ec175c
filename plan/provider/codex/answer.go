package codex

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"gatewayd/plan/provider"
)

const (
	// maxAnswered bounds how much of a request's body is read, in bytes. A
	// refresh is a few hundred.
	maxAnswered = 64 << 10
	// minAnswered is how long a fresh dummy lives at least. The CLI refreshes
	// when less than 5 minutes are left; the longer life keeps it from asking
	// again at every step while the host's own token is about to expire or has.
	minAnswered = 15 * time.Minute
	// askedAgain is within what time a second refresh means that the guest takes the first answer's tokens for expired
	// already, which have minutes at least: its clock is ahead, and it would ask for ever. aheadAnswered is how long the
	// tokens live that it is given then; a guest whose clock is further ahead takes the bottle's certificates for expired too.
	askedAgain    = time.Minute
	aheadAnswered = 11 * 24 * time.Hour
)

// AnswererConfig is what NewAnswerer needs.
type AnswererConfig struct {
	Bottle          string        // canonical bottle name
	CredentialsFile string        // absolute path on the host, or "" for the default below Host.Home
	Host            provider.Host // asked anew for every request; must be safe for concurrent use
	Log             *slog.Logger  // nil discards
}

// answerer stands in for the sign-in host.
type answerer struct {
	bottle string
	file   string
	host   provider.Host
	log    *slog.Logger

	mu       sync.Mutex
	answered time.Time // when the last refresh was
	expires  time.Time // when the host's token ends by which it was answered
}

// NewAnswerer returns the handler that stands in for the sign-in host of one
// bottle; nothing that it is sent goes anywhere. It is safe for concurrent use
// and blocks only on reading the host's auth.json.
//
// POST /oauth/token is answered 200 with fresh dummies, whatever was sent, that
// expire with the host's current token or in 15 minutes, whichever is later,
// or in eleven days where the guest asks again at once, as one does whose clock
// is ahead:
// an answer of 400 or 401 would bring up the CLI's sign-in screen, and a host
// token that has expired is better reported by the 503 that names it on the
// model's own host. POST /oauth/revoke is answered 200 (RFC 7009 §2.2). All
// else is answered 404, which the CLI takes for a passing failure.
func NewAnswerer(c AnswererConfig) http.Handler {
	file, err := credentialsFile(c.CredentialsFile, c.Host)
	if err != nil {
		file = "" // reading it fails, and the dummies name no account
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &answerer{bottle: c.Bottle, file: file, host: c.Host, log: c.Log}
}

// refreshed is the answer to a refresh (RFC 6749 §5.1), as far as the CLI
// reads it.
type refreshed struct {
	IDToken      string `json:"id_token"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
}

// ServeHTTP answers one request.
func (a *answerer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Body != nil {
		// The body says nothing that is needed; reading it keeps the connection
		// usable. An error or a body that goes on means that the client is gone
		// or not the CLI: the answer stays the same.
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxAnswered))
	}
	switch {
	case r.Method == http.MethodPost && r.URL.Path == tokenPath:
		a.refresh(w)
	case r.Method == http.MethodPost && r.URL.Path == revokePath:
		a.log.Info("revocation kept from the sign-in host", "bottle", a.bottle)
		a.reply(w, http.StatusOK, struct{}{})
	default:
		a.reply(w, http.StatusNotFound, failure("the gateway answers only token refresh and revocation for this host"))
	}
}

// refresh answers with dummies.
func (a *answerer) refresh(w http.ResponseWriter) {
	now := a.host.Now()
	state := readHostAuth(a.host.ReadFile, a.file)
	expires := a.expiry(now, state.Expires)
	tokens, err := dummyTokens(a.bottle, state, expires)
	if err != nil {
		a.log.Error("answer token refresh", "bottle", a.bottle, "error", err)
		a.reply(w, http.StatusServiceUnavailable, failure("the gateway could not make a token"))
		return
	}
	a.log.Info("token refresh answered", "bottle", a.bottle, "expires", expires.UTC(), "host_expires", state.Expires, "usable", state.forwardable())
	if !state.forwardable() {
		a.log.Warn("host credentials cannot be used", "bottle", a.bottle, "file", a.file, "reason", state.Detail, "remedy", remedy(a.file))
	}
	a.reply(w, http.StatusOK, refreshed{
		IDToken: tokens.ID, AccessToken: tokens.Access, RefreshToken: dummyRefresh(a.bottle),
		TokenType: "Bearer", ExpiresIn: int64(expires.Sub(now).Seconds()),
	})
}

// expiry is when fresh dummies end, now that the host's token ends at host.
func (a *answerer) expiry(now, host time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	again := now.Sub(a.answered) < askedAgain && a.expires.Equal(host)
	a.answered, a.expires = now, host
	least := now.Add(minAnswered)
	if again {
		least = now.Add(aheadAnswered)
		a.log.Warn("the guest takes fresh tokens for expired: its clock may be ahead", "bottle", a.bottle)
	}
	if host.After(least) {
		return host
	}
	return least
}

// failure is an error body in the form that the CLI shows to its user.
func failure(message string) any {
	return map[string]any{"error": map[string]string{"message": message}}
}

// reply writes a JSON answer that nobody keeps (RFC 6749 §5.1).
func (a *answerer) reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		a.log.Debug("answer sign-in request", "bottle", a.bottle, "error", err)
	}
}
