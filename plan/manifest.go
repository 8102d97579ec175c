package plan

import (
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/goccy/go-yaml/ast"

	"gatewayd/plan/provider"
)

// Manifest is the operator's file, decoded and validated. Its exported fields
// mirror the YAML; the JSON Schema is generated from them.
type Manifest struct {
	Bottle        string        `json:"bottle" jsonschema:"required,pattern=^[a-z]([a-z0-9-]*[a-z0-9])?$,maxLength=32" jsonschema_description:"The bottle's name: lower-case letters, digits and hyphens."`
	Link          LinkManifest  `json:"link,omitempty" jsonschema_description:"The capture link. Default: a tap named gw- and the bottle's name."`
	AgentProvider AgentProvider `json:"agent_provider,omitempty" jsonschema_description:"The agent in the bottle, which brings routes, environment and files of its own."`
	Egress        Egress        `json:"egress,omitempty" jsonschema_description:"What may leave. Absent or empty: nothing."`
	DNS           DNSManifest   `json:"dns,omitempty" jsonschema_description:"How names are answered."`
	Pipelock      ScanManifest  `json:"pipelock,omitempty" jsonschema_description:"What the leak scanner does with the bottle as a whole."`

	file  string
	lines map[string]int
}

// LinkManifest is the link section: at most one of Tap, Netns and Interface.
type LinkManifest struct {
	Tap        string `json:"tap,omitempty" jsonschema:"pattern=^gw-[A-Za-z0-9_.-]{1\\,12}$" jsonschema_description:"A tap that gatewayd creates and keeps: gw- and up to 12 characters."`
	Netns      string `json:"netns,omitempty" jsonschema:"pattern=^/" jsonschema_description:"Path of a network namespace that gatewayd creates, with eth0 configured."`
	Adopt      bool   `json:"adopt,omitempty" jsonschema_description:"The namespace and its eth0, one end of a veth, are made by somebody else, such as a CNI plugin; address, MAC, MTU and default route are taken from eth0. Default false."`
	Interface  string `json:"interface,omitempty" jsonschema:"maxLength=15" jsonschema_description:"An interface that exists already."`
	Owner      string `json:"owner,omitempty" jsonschema_description:"User (name, or number in quotes) that may open the tap."`
	MultiQueue bool   `json:"multi_queue,omitempty" jsonschema_description:"The tap is opened once for each of several queues, and in no other way. Default false: one queue."`
	Guest      string `json:"guest,omitempty" jsonschema_description:"The guest's IPv4 address with the link's prefix length: 198.18.0.2/30."`
	MAC        string `json:"mac,omitempty" jsonschema_description:"The guest's MAC address."`
	MTU        int    `json:"mtu,omitempty" jsonschema:"minimum=576,maximum=9000" jsonschema_description:"Bytes; default 1500."`
}

// AgentProvider is the agent_provider section.
type AgentProvider struct {
	Template               string  `json:"template" jsonschema:"required" jsonschema_description:"Which agent the bottle runs."`
	ForwardHostCredentials Forward `json:"forward_host_credentials,omitempty" jsonschema_description:"true: the gateway injects the host's credentials, the guest holds dummies. false (default): the agent signs in itself. lend: the guest gets the host's short-lived access token."`
	CredentialsFile        string  `json:"credentials_file,omitempty" jsonschema:"pattern=^(/|~/)" jsonschema_description:"Where the host keeps the agent's credentials."`
}

// Forward is forward_host_credentials: true, false or the word lend.
type Forward provider.Mode

// Egress is the egress section.
type Egress struct {
	Routes []RouteManifest `json:"routes,omitempty" jsonschema_description:"Each names one host and port. Everything else is denied."`
}

// RouteManifest is one entry of egress.routes.
type RouteManifest struct {
	Host         string            `json:"host" jsonschema:"required,minLength=1,maxLength=255" jsonschema_description:"Exact host name, or *.suffix for every name below suffix."`
	Port         int               `json:"port,omitempty" jsonschema:"minimum=1,maximum=65535" jsonschema_description:"Default 443, or 80 with protocol http."`
	Protocol     string            `json:"protocol,omitempty" jsonschema:"enum=https,enum=http,enum=tcp" jsonschema_description:"Default https. tcp is passed by name and address, unseen."`
	Methods      []string          `json:"methods,omitempty" jsonschema:"minItems=1" jsonschema_description:"HTTP methods allowed; default all."`
	Paths        []string          `json:"paths,omitempty" jsonschema:"minItems=1" jsonschema_description:"Path patterns allowed; * within a segment, ** any depth; default all."`
	Auth         *AuthManifest     `json:"auth,omitempty" jsonschema_description:"The credential that the gateway puts in on the way out."`
	Pipelock     *PipelockManifest `json:"pipelock,omitempty" jsonschema_description:"What the leak scanner does with this host."`
	AllowPrivate bool              `json:"allow_private,omitempty" jsonschema_description:"The host may resolve to private addresses. Loopback and metadata addresses stay refused."`
}

// PipelockManifest is a route's pipelock section.
type PipelockManifest struct {
	TLSPassthrough bool     `json:"tls_passthrough,omitempty" jsonschema_description:"Without auth: pass TLS through undecrypted. With auth: inject, but do not scan."`
	Action         string   `json:"action,omitempty" jsonschema:"enum=block,enum=warn" jsonschema_description:"What a token that is known by its form leads to; default block. Known secrets and dummies are always blocked."`
	Disable        []string `json:"disable,omitempty" jsonschema:"minItems=1" jsonschema_description:"Ids of rules that are not used on this route, nor on names under a wildcard; gatewayd scan --rules lists them."`
}

// ScanManifest is the manifest's own pipelock section.
type ScanManifest struct {
	Canaries []string `json:"canaries,omitempty" jsonschema:"minItems=1,maxItems=100,minLength=12,maxLength=512" jsonschema_description:"Values of 12 to 512 bytes that may not leave by any scanned route, in any of their usual encodings. They are no secrets: a plan shows them."`
	Trip     *int     `json:"trip,omitempty" jsonschema:"minimum=0,maximum=1000000" jsonschema_description:"How many requests, WebSocket connections and names may be blocked for a leak before the bottle is cut off; 0: no number is. Default: the configuration's pipelock.trip."`
}

// AuthManifest is a route's auth section.
type AuthManifest struct {
	Scheme string         `json:"scheme" jsonschema:"required,enum=bearer,enum=basic,enum=header,enum=query" jsonschema_description:"Where the credential goes: Authorization Bearer or Basic, a header, or a query parameter."`
	Header string         `json:"header,omitempty" jsonschema_description:"Scheme header: the header's name."`
	Query  string         `json:"query,omitempty" jsonschema_description:"Scheme query: the parameter's name."`
	User   string         `json:"user,omitempty" jsonschema_description:"Scheme basic: the user name."`
	Secret SecretManifest `json:"secret" jsonschema:"required" jsonschema_description:"Where the host keeps the credential."`
	Dummy  string         `json:"dummy,omitempty" jsonschema:"minLength=16,maxLength=512,pattern=^[A-Za-z0-9._~@:+/=-]+$" jsonschema_description:"What the guest holds in its place; default gatewayd-dummy- and letters. Not a secret."`
	Env    string         `json:"env,omitempty" jsonschema:"pattern=^[A-Za-z_][A-Za-z0-9_]*$" jsonschema_description:"The guest's variable that holds the dummy; default the secret's own env name."`
	Role   string         `json:"role,omitempty" jsonschema:"enum=provider" jsonschema_description:"provider: this is the agent provider's credential, so the provider adds none."`
}

// SecretManifest names exactly one source of a secret.
type SecretManifest struct {
	Env     string        `json:"env,omitempty" jsonschema:"pattern=^[A-Za-z_][A-Za-z0-9_]*$" jsonschema_description:"A variable of the gateway's environment."`
	File    string        `json:"file,omitempty" jsonschema:"pattern=^(/|~/)" jsonschema_description:"A file that holds the secret and nothing else."`
	JSON    *JSONManifest `json:"json,omitempty" jsonschema_description:"A string inside a JSON file."`
	Command []string      `json:"command,omitempty" jsonschema:"minItems=1" jsonschema_description:"A command, absolute, and its arguments; it prints the secret."`
}

// JSONManifest points into a JSON file.
type JSONManifest struct {
	Path    string `json:"path" jsonschema:"required,pattern=^(/|~/)" jsonschema_description:"The file."`
	Pointer string `json:"pointer" jsonschema:"required,pattern=^/" jsonschema_description:"JSON pointer (RFC 6901) to a string: /tokens/access_token."`
}

// DNSManifest is the dns section.
type DNSManifest struct {
	Denied string `json:"denied,omitempty" jsonschema:"enum=block,enum=nxdomain" jsonschema_description:"Names outside the plan: block (default) leads to an explanation, nxdomain says that there is no such name."`
}

// decodeNode reads true, false or lend.
func (f *Forward) decodeNode(d *decoder, path string, n ast.Node) {
	switch n := n.(type) {
	case *ast.BoolNode:
		*f = Forward(provider.SignIn)
		if n.Value {
			*f = Forward(provider.Inject)
		}
		return
	case *ast.StringNode:
		if n.Value == "lend" {
			*f = Forward(provider.Lend)
			return
		}
	}
	d.refuse(path, "is "+kindOf(n)+" of no known meaning", "write true (inject), false (the agent signs in itself) or lend")
}

// decodeNode reads the mapping, and refuses a plain string without repeating
// it: it may be the secret.
func (s *SecretManifest) decodeNode(d *decoder, path string, n ast.Node) {
	if asMapping(n) == nil {
		d.refuse(path, "is "+kindOf(n)+", not a reference", "a manifest holds no secrets: write secret: {env: NAME}, {file: PATH}, {json: {path: PATH, pointer: /a/b}} or {command: [/path, argument]}")
		return
	}
	type plain SecretManifest
	d.decodeStruct(path, n, reflect.ValueOf((*plain)(s)).Elem())
}

// ParseManifest decodes and validates one manifest. file is used in messages
// only. On error the manifest is nil, and the error is one *ManifestError or
// several joined, each with line, field and remedy: errors.As finds the first.
// It neither blocks nor looks at the machine, and never panics.
func ParseManifest(file string, data []byte) (*Manifest, error) {
	r := &refusals{file: file}
	root := parseSource(data, r)
	if root == nil || len(r.list) > 0 {
		return nil, r.orFail()
	}
	m := &Manifest{file: file, lines: map[string]int{}}
	d := &decoder{refusals: r, lines: m.lines}
	d.decodeStruct("", root, reflect.ValueOf(m).Elem())
	d.validate(m)
	if err := r.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// orFail is err, but never nil.
func (r *refusals) orFail() error {
	if len(r.list) == 0 {
		r.add(0, "", "no manifest could be read from the file", "see the examples")
	}
	return r.err()
}

// LoadManifest reads the manifest at path, at most MaxManifestBytes, and parses
// it. A file that cannot be read is an error of package os, wrapped.
func LoadManifest(path string) (*Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load manifest: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxManifestBytes+1))
	if err != nil {
		return nil, fmt.Errorf("load manifest: %w", err)
	}
	return ParseManifest(path, data)
}

// File returns the name under which the manifest was parsed.
func (m *Manifest) File() string { return m.file }
