// Package provider is the vocabulary between the provision plan and the agent
// providers: what a provider is told about the bottle and the host, and what it
// contributes to the plan. It holds no provider; package plan names them all in
// one map.
package provider

import (
	"fmt"
	"time"

	"gatewayd/gateway/routes"
)

// Mode says what becomes of the credentials that the host holds for an agent.
// The zero value forwards nothing.
type Mode uint8

const (
	// SignIn leaves the agent to sign in by itself; its hosts are passed through
	// undecrypted. This is `forward_host_credentials: false`, the default.
	SignIn Mode = iota
	// Inject gives the guest dummies, which the gateway replaces by the host's
	// credentials on the way out (`forward_host_credentials: true`).
	Inject
	// Lend writes the host's short-lived access token into the guest
	// (`forward_host_credentials: lend`), never the refresh token.
	Lend
)

// String returns the value of forward_host_credentials that selects m.
func (m Mode) String() string {
	switch m {
	case Inject:
		return "true"
	case Lend:
		return "lend"
	default:
		return "false"
	}
}

// MarshalText writes String's form into printed plans.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// Host is what a provider may ask of the machine that runs the gateway. All
// methods are called from one goroutine and may block on the file system.
type Host interface {
	// ReadFile returns the whole file, or an error that errors.Is can compare
	// with fs.ErrNotExist. Implementations bound the size.
	ReadFile(path string) ([]byte, error)
	// Getenv returns the variable's value in the gateway's own environment, or "".
	Getenv(name string) string
	// Home returns the home directory that a leading `~/` means, or "".
	Home() string
	// Now returns the host's time. A plan must not depend on it except for notes.
	Now() time.Time
}

// Request is what a provider contributes for.
type Request struct {
	Bottle          string // canonical bottle name; dummies are derived from it
	Mode            Mode
	CredentialsFile string // absolute path, or "" for the provider's default
	// Manifest is the manifest's own routes, canonical and validated. A provider
	// must not add auth when routes.HasProviderAuth is true of them.
	Manifest []routes.Route
	Host     Host
}

// Contribution is what a provider adds to the plan: data only, without secrets.
type Contribution struct {
	Routes []routes.Route
	Env    []EnvVar
	Files  []GuestFile
	// Watch names the host files whose change means that the plan must be made
	// again: absolute paths.
	Watch []string
	// Answers maps each Route.Answer in Routes to the provider that answers it.
	Answers map[string]string
	// Canaries are strings that the guest holds and that may go to Homes only.
	Canaries []Canary
	// Secrets are those of the host, besides the credentials of Routes, that must
	// not leave by a way that is scanned.
	Secrets []HostSecret
	// Notes are sentences for the operator: what is traded, what is missing.
	Notes []string
}

// Provider makes a Contribution. Implementations are stateless and safe for
// concurrent use; Provision is a pure function of its request and of what the
// request's Host answers.
type Provider interface {
	// Name is what agent_provider.template says.
	Name() string
	// Provision returns the contribution. A host credential that is missing,
	// expired or malformed is no error: the routes stay, so that the guest meets
	// a 503 that names it, and a note says what to run on the host. Errors are
	// for requests that the provider cannot honour, typed *ModeError where the
	// mode is at fault.
	Provision(Request) (Contribution, error)
}

// EnvVar is one variable of the guest's environment. Where Path is set, it is
// relative to the guest directory (`gatewayd guest --at`), and the value is
// Value followed by the absolute guest path.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	Path  string `json:"path,omitempty"`
}

// Resolve returns the variable's value for a guest directory at `at`.
func (e EnvVar) Resolve(at string) string {
	if e.Path == "" {
		return e.Value
	}
	return e.Value + at + "/" + e.Path
}

// GuestFile is a file that the guest needs. Path is relative to the guest
// directory, slash-separated. Mode holds permission bits only.
type GuestFile struct {
	Path    string `json:"path"`
	Mode    Perm   `json:"mode"`
	Content string `json:"content"`
	// Fill lists the secrets that replace marks in Content when the file is
	// written for the guest. The plan itself holds only the reference. Empty
	// except where the operator chose to lend a credential.
	Fill []Fill `json:"fill,omitempty"`
}

// Perm is a file's permission bits, printed in octal.
type Perm uint32

// MarshalText returns the bits as chmod takes them: "0600".
func (p Perm) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint32(p)), nil }

// Fill replaces Mark, which occurs once inside a JSON string of Content, by
// the secret's value.
type Fill struct {
	Mark   string           `json:"mark"`
	Secret routes.SecretRef `json:"secret"`
}

// Canary is a string that has no business anywhere but at Homes (canonical
// host names): a dummy seen on its way elsewhere is a leak. It is no secret.
type Canary struct {
	Name  string   `json:"name"`
	Value string   `json:"value"`
	Homes []string `json:"homes"`
}

// HostSecret is a secret of the host that is looked for in what leaves. The
// guest itself may send it to Homes (canonical host names), of which there are
// none unless it was lent to the guest.
type HostSecret struct {
	Secret routes.SecretRef `json:"secret"`
	Homes  []string         `json:"homes"`
}

// ModeError reports a forward_host_credentials value that a provider does not
// have.
type ModeError struct {
	Provider string
	Mode     Mode
	Remedy   string // what to write instead
}

// Error says which value is at fault and what to write instead.
func (e *ModeError) Error() string {
	return "provider " + e.Provider + ": forward_host_credentials: " + e.Mode.String() + " is not supported: " + e.Remedy
}
