package codex

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxAuthBytes bounds the host's auth.json.
const maxAuthBytes = 1 << 20

// hostState says what the host's auth.json is good for. The zero value is
// good for nothing.
type hostState uint8

const (
	stateMalformed   hostState = iota // there, but not understood
	stateMissing                      // no such file
	stateUnreadable                   // there, but may not be read
	stateUnsupported                  // a kind of sign-in that cannot be forwarded
	stateAPIKey                       // an API key
	stateChatGPT                      // ChatGPT tokens
)

// hostAuth is what the plan and the answerer may know of the host's
// credentials: no token is in it.
type hostAuth struct {
	State       hostState
	Detail      string    // why, for the states that are good for nothing
	AccountID   string    // no secret: the guest needs it
	PlanType    string    // free, plus, pro, business, …
	FedRAMP     bool      // the account's claim, which adds a header
	Expires     time.Time // of the access token; zero if unknown
	LastRefresh time.Time // zero if unknown
	Refreshes   bool      // there is a refresh token
}

// forwardable tells whether there is something to inject.
func (a hostAuth) forwardable() bool { return a.State == stateAPIKey || a.State == stateChatGPT }

// authFile is the part of auth.json that is looked at. Tokens are decoded to
// be judged, and dropped.
type authFile struct {
	AuthMode string `json:"auth_mode"`
	APIKey   string `json:"OPENAI_API_KEY"`
	Tokens   *struct {
		IDToken     string `json:"id_token"`
		AccessToken string `json:"access_token"`
		Refresh     string `json:"refresh_token"`
		AccountID   string `json:"account_id"`
	} `json:"tokens"`
	LastRefresh         string          `json:"last_refresh"`
	PersonalAccessToken json.RawMessage `json:"personal_access_token"`
	BedrockAPIKey       json.RawMessage `json:"bedrock_api_key"`
	AgentIdentity       json.RawMessage `json:"agent_identity"`
}

// idClaims is the part of an id token that the agent reads.
type idClaims struct {
	Auth struct {
		AccountID string `json:"chatgpt_account_id"`
		PlanType  string `json:"chatgpt_plan_type"`
		FedRAMP   bool   `json:"chatgpt_account_is_fedramp"`
	} `json:"https://api.openai.com/auth"`
	jwt.RegisteredClaims
}

// plainWord is what an account id or a plan type may look like before it is
// copied into a guest's file.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,128}$`)

// readHostAuth reads and judges the file. It never fails: what cannot be used
// is a state.
func readHostAuth(read func(string) ([]byte, error), path string) hostAuth {
	data, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hostAuth{State: stateMissing, Detail: "there is no " + path}
	case err != nil:
		return hostAuth{State: stateUnreadable, Detail: path + " cannot be read"}
	}
	return parseHostAuth(data)
}

// parseHostAuth judges the content of an auth.json. It never panics, and its
// result holds no token.
func parseHostAuth(data []byte) hostAuth {
	if len(data) > maxAuthBytes {
		return hostAuth{Detail: fmt.Sprintf("it has more than %d bytes", maxAuthBytes)}
	}
	var f authFile
	if err := json.Unmarshal(data, &f); err != nil {
		// The error could quote the file, and with it a token.
		return hostAuth{Detail: "it is not the JSON that was expected"}
	}
	switch f.mode() {
	case "apikey":
		if f.APIKey == "" {
			return hostAuth{Detail: "it holds no OPENAI_API_KEY"}
		}
		return hostAuth{State: stateAPIKey}
	case "chatgpt", "chatgptAuthTokens":
		return f.tokens()
	}
	return hostAuth{State: stateUnsupported, Detail: "it holds a sign-in other than ChatGPT or an API key"}
}

// mode returns auth_mode, or what its absence means: the agent then takes a
// personal access token, a Bedrock key, an API key and ChatGPT tokens, in this
// order.
func (f authFile) mode() string {
	set := func(m json.RawMessage) bool { return len(m) > 0 && string(m) != "null" && string(m) != `""` }
	switch {
	case f.AuthMode != "":
		return f.AuthMode
	case set(f.PersonalAccessToken):
		return "personalAccessToken"
	case set(f.BedrockAPIKey):
		return "bedrock"
	case f.APIKey != "":
		return "apikey"
	case f.Tokens == nil && set(f.AgentIdentity):
		return "agentIdentity"
	}
	return "chatgpt"
}

// tokens judges ChatGPT tokens.
func (f authFile) tokens() hostAuth {
	if f.Tokens == nil || f.Tokens.AccessToken == "" {
		return hostAuth{Detail: "it holds no access token"}
	}
	a := hostAuth{State: stateChatGPT, Refreshes: f.Tokens.Refresh != ""}
	var id idClaims
	if readClaims(f.Tokens.IDToken, &id) {
		a.PlanType, a.FedRAMP = word(id.Auth.PlanType), id.Auth.FedRAMP
	}
	a.AccountID = word(f.Tokens.AccountID)
	if a.AccountID == "" {
		a.AccountID = word(id.Auth.AccountID)
	}
	var access jwt.RegisteredClaims
	if readClaims(f.Tokens.AccessToken, &access) && access.ExpiresAt != nil {
		a.Expires = bounded(access.ExpiresAt.Time)
	}
	if t, err := time.Parse(time.RFC3339Nano, f.LastRefresh); err == nil {
		a.LastRefresh = bounded(t)
	}
	return a
}

// readClaims decodes a JWT's claims without verifying it: the host's own file
// is trusted, and nothing is allowed because of what it says. A signing
// algorithm that this program does not know is no obstacle.
func readClaims(token string, into jwt.Claims) bool {
	_, _, err := jwt.NewParser().ParseUnverified(token, into)
	return err == nil || errors.Is(err, jwt.ErrTokenUnverifiable)
}

// word returns s if it is a plain word, else "".
func word(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return ""
}

// bounded returns t in UTC, cut to the second, or the zero time where its year
// has not four digits and so has no RFC 3339 form.
func bounded(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Second)
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
