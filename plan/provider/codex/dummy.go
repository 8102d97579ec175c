package codex

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gatewayd/plan/provider"
)

// The person that dummies speak of. The agent shows the address in its status
// line and sends neither anywhere that the gateway does not answer itself; the
// host's own are not needed in the guest.
const (
	dummyEmail = "dummy@gatewayd.invalid"
	dummyUser  = "user-gatewayd-dummy"
)

// noExpiry is the expiry of dummies that no host token stands behind: long
// past, so that the agent asks for a fresh one, and fixed, so that the plan
// does not depend on the time of day.
var noExpiry = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)

// tokenPair is an access token and an id token for the guest, both dummies.
type tokenPair struct{ Access, ID string }

// dummyTokens makes the bottle's dummies after the shape of the host's: the
// same claims, as far as the agent reads them, with the account id and the
// plan of the host, since the agent sends the one and behaves by the other.
// The e-mail address, the user id, scopes and whatever else the real tokens
// hold are not copied.
func dummyTokens(bottle string, a hostAuth, expires time.Time) (tokenPair, error) {
	access, err := signDummy(bottle, jwt.MapClaims{
		"aud":                            []string{"https://api.openai.com/v1"},
		"exp":                            expires.Unix(),
		"iss":                            "https://auth.openai.com",
		"jti":                            "gatewayd-dummy",
		"sub":                            "gatewayd-dummy",
		"https://api.openai.com/auth":    accountClaims(a),
		"https://api.openai.com/profile": map[string]any{"email": dummyEmail, "email_verified": true},
	})
	if err != nil {
		return tokenPair{}, err
	}
	id, err := signDummy(bottle, jwt.MapClaims{
		"aud":                         []string{"gatewayd-dummy"},
		"email":                       dummyEmail,
		"email_verified":              true,
		"exp":                         expires.Unix(),
		"iss":                         "https://auth.openai.com",
		"sub":                         "gatewayd-dummy",
		"https://api.openai.com/auth": accountClaims(a),
	})
	return tokenPair{Access: access, ID: id}, err
}

// accountClaims is what both tokens say of the account.
func accountClaims(a hostAuth) map[string]any {
	claims := map[string]any{"chatgpt_user_id": dummyUser, "user_id": dummyUser}
	if a.AccountID != "" {
		claims["chatgpt_account_id"] = a.AccountID
	}
	if a.PlanType != "" {
		claims["chatgpt_plan_type"] = a.PlanType
	}
	if a.FedRAMP {
		claims["chatgpt_account_is_fedramp"] = true
	}
	return claims
}

// signDummy signs with the bottle's dummy key. The header names the bottle, so
// that all dummies of one bottle begin with the same text: its canary.
func signDummy(bottle string, claims jwt.MapClaims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	t.Header["kid"] = provider.Dummy(bottle, "jwt")
	s, err := t.SignedString(provider.DummyKey(bottle))
	if err != nil {
		return "", fmt.Errorf("sign dummy token: %w", err)
	}
	return s, nil
}

// dummyHeader returns the text with which every dummy JWT of the bottle begins.
func dummyHeader(bottle string) (string, error) {
	s, err := signDummy(bottle, jwt.MapClaims{})
	if err != nil {
		return "", err
	}
	header, _, _ := strings.Cut(s, ".")
	return header, nil
}

// dummyRefresh is the refresh token in the guest. It refreshes nothing: the
// gateway answers the call itself.
func dummyRefresh(bottle string) string { return "rt_" + provider.Dummy(bottle, "refresh token") }

// dummyAPIKey is the API key in the guest.
func dummyAPIKey(bottle string) string { return "sk-" + provider.Dummy(bottle, "api key") }

// guestAuth is the guest's auth.json.
type guestAuth struct {
	AuthMode    string       `json:"auth_mode"`
	APIKey      *string      `json:"OPENAI_API_KEY"`
	Tokens      *guestTokens `json:"tokens,omitempty"`
	LastRefresh string       `json:"last_refresh,omitempty"`
}

type guestTokens struct {
	IDToken      string `json:"id_token"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	AccountID    string `json:"account_id,omitempty"`
}

// render returns the file's text.
func (g guestAuth) render() (string, error) {
	data, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write auth.json: %w", err)
	}
	return string(data) + "\n", nil
}
