package routes

import (
	"strconv"
	"strings"
)

// JSONRef points at one string inside a JSON file.
type JSONRef struct {
	// Path is the file's path on the host.
	Path string `json:"path"`
	// Pointer is an RFC 6901 JSON pointer, such as "/tokens/access_token".
	Pointer string `json:"pointer"`
}

// SecretRef says where on the host a secret is kept; it never holds one.
// Exactly one of Env, File, JSON and Command is set.
type SecretRef struct {
	// Env is the name of a variable in gatewayd's own environment.
	Env string `json:"env,omitempty"`
	// File is the path of a file whose whole content is the secret.
	File string `json:"file,omitempty"`
	// JSON points into a JSON file.
	JSON *JSONRef `json:"json,omitempty"`
	// Command is an argument vector (no shell) that prints the secret.
	Command []string `json:"command,omitempty"`
	// Remedy says what to run on the host when the secret is missing or has
	// expired, in words for a person. Empty means a generic sentence.
	Remedy string `json:"remedy,omitempty"`
}

// String names the source in one line without its value: "env:GITHUB_TOKEN",
// "file:PATH", "json:PATH#/pointer", "command:NAME" (the program alone, since
// arguments may be private) or "none".
func (r SecretRef) String() string {
	switch {
	case r.Env != "":
		return "env:" + r.Env
	case r.File != "":
		return "file:" + r.File
	case r.JSON != nil:
		return "json:" + r.JSON.Path + "#" + r.JSON.Pointer
	case len(r.Command) > 0:
		return "command:" + r.Command[0]
	default:
		return "none"
	}
}

// Sources counts how many of the four kinds of source are set. A valid
// reference has exactly one.
func (r SecretRef) Sources() int {
	n := 0
	for _, set := range []bool{r.Env != "", r.File != "", r.JSON != nil, len(r.Command) > 0} {
		if set {
			n++
		}
	}
	return n
}

// RoleProvider is the Auth.Role of a credential that stands in for the one an
// agent provider would inject.
const RoleProvider = "provider"

// Auth is a credential that the gateway puts on requests of a route, and what
// the guest may present in its place.
type Auth struct {
	Scheme Scheme `json:"scheme"`
	// Header is the canonical MIME name of the header that is set;
	// "Authorization" for Bearer and Basic.
	Header string `json:"header,omitempty"`
	// Query is the parameter's name, for QueryScheme.
	Query string `json:"query,omitempty"`
	// User is the user name, for Basic.
	User   string    `json:"user,omitempty"`
	Secret SecretRef `json:"secret"`
	// Role is "" or RoleProvider.
	Role    string  `json:"role,omitempty"`
	Dummies Dummies `json:"dummies"`
}

// Dummies is what the guest may present where the credential will go. A dummy
// is no secret: it is derived from the bottle's name and opens nothing.
type Dummies struct {
	// Values are accepted when presented exactly.
	Values []string `json:"values,omitempty"`
	// JWTKey, when not empty, makes every HS256 JWT that verifies with it a
	// dummy, expired or not.
	JWTKey []byte `json:"jwt_key,omitempty"`
}

// Origin says where a route was written, for messages to people.
type Origin struct {
	// File and Line locate a route of a manifest; Line counts from 1.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Provider names the agent provider that emitted the route.
	Provider string `json:"provider,omitempty"`
}

// String returns "dev.bottle.yaml:12", "provider NAME" or, when nothing is
// known, "unknown origin".
func (o Origin) String() string {
	switch {
	case o.File != "" && o.Line > 0:
		return o.File + ":" + strconv.Itoa(o.Line)
	case o.File != "":
		return o.File
	case o.Provider != "":
		return "provider " + o.Provider
	default:
		return "unknown origin"
	}
}

// Route is one egress rule. The zero value of each optional field means
// "unset": Merge fills it, and Canonical gives it its default.
type Route struct {
	// Host is a canonical name or "*." followed by one.
	Host string `json:"host"`
	// Port is 0 for the protocol's default.
	Port uint16 `json:"port,omitempty"`
	// Protocol is "" for HTTPS.
	Protocol Protocol `json:"protocol,omitempty"`
	// Methods lists the methods allowed; nil allows every method that is ever
	// forwarded. An empty list that is not nil is refused, never "all".
	Methods []string `json:"methods,omitempty"`
	// Paths lists path patterns (see ValidatePathPattern); nil allows every
	// path. An empty list that is not nil is refused, never "all".
	Paths []string `json:"paths,omitempty"`
	// Auth, when not nil, is injected: exact hosts only.
	Auth *Auth `json:"auth,omitempty"`
	// TLSPassthrough carries the flow undecrypted when there is no Auth, and
	// exempts it from scanning in any case.
	TLSPassthrough bool `json:"tls_passthrough,omitempty"`
	// AllowPrivate lets the host resolve to private addresses (see Guard).
	AllowPrivate bool `json:"allow_private,omitempty"`
	// Pipelock says what scanning does on this route, where it is scanned.
	Pipelock Pipelock `json:"pipelock,omitzero"`
	// Answer names an answerer that replies on the spot; nothing goes
	// upstream.
	Answer string `json:"answer,omitempty"`
	Origin Origin `json:"origin"`
}

// WarnAction is the Pipelock.Action that lets findings go with a note.
const WarnAction = "warn"

// Pipelock says what the leak scanner makes of tokens that it knows by their form. Known secrets and placeholders are
// blocked whatever it says. The zero value leaves everything to the rules.
type Pipelock struct {
	// Action is "" or WarnAction.
	Action string `json:"action,omitempty"`
	// Disable lists ids of rules that are not used, on the names under a wildcard neither.
	Disable []string `json:"disable,omitempty"`
}

// IsZero tells whether nothing is said.
func (p Pipelock) IsZero() bool { return p.Action == "" && p.Disable == nil }

// Rule returns the route's name in records and messages: "pattern:port",
// with the default port filled in.
func (r Route) Rule() string {
	return r.Host + ":" + strconv.Itoa(int(r.port()))
}

// Wildcard tells whether the host is a "*.suffix" pattern.
func (r Route) Wildcard() bool { return strings.HasPrefix(r.Host, "*.") }

// Decision returns what the route says of a flow that it matches: TCP routes
// and routes with TLSPassthrough but neither Auth nor Answer pass through,
// all others intercept.
func (r Route) Decision() Decision {
	if r.protocol() == TCP {
		return Passthrough
	}
	if r.TLSPassthrough && r.Auth == nil && r.Answer == "" {
		return Passthrough
	}
	return Intercept
}

// Scan tells whether requests of the route are scanned for leaks: those that
// are intercepted, not answered on the spot, and not exempted by
// TLSPassthrough. It never depends on Auth; scanning comes before injection.
func (r Route) Scan() bool {
	return r.Decision() == Intercept && !r.TLSPassthrough && r.Answer == ""
}

func (r Route) protocol() Protocol {
	if r.Protocol == "" {
		return HTTPS
	}
	return r.Protocol
}

func (r Route) port() uint16 {
	if r.Port == 0 {
		return r.protocol().DefaultPort()
	}
	return r.Port
}
