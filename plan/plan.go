// Package plan turns a manifest, which the operator writes, into a provision
// plan: merged routes, guest environment and guest files. A plan is data: it is
// printable, deterministic, and holds references to secrets, never a secret.
//
// Dummies are no secrets. They are derived from the bottle's name so that the
// same manifest always gives the same plan; whoever knows the name can compute
// them, and gains nothing: they open no door, they only mark the place where
// the gateway puts the real credential.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"slices"

	"gatewayd/gateway/routes"
	"gatewayd/plan/provider"
)

// Host is what provisioning may ask of the machine; see provider.Host.
type Host = provider.Host

// EnvVar is one variable of the guest's environment; see provider.EnvVar.
type EnvVar = provider.EnvVar

// GuestFile is one file of the guest directory; see provider.GuestFile.
type GuestFile = provider.GuestFile

// Canary is a dummy and the hosts where it may go; see provider.Canary.
type Canary = provider.Canary

// HostSecret is a secret that is looked for; see provider.HostSecret.
type HostSecret = provider.HostSecret

// Plan is the provision plan of one bottle. It is immutable once made and safe
// to share.
type Plan struct {
	Bottle   string         `json:"bottle"`
	Provider string         `json:"provider"`
	Mode     provider.Mode  `json:"forward_host_credentials"`
	Link     LinkSpec       `json:"link"`
	DNS      DNSSpec        `json:"dns"`
	Routes   []routes.Route `json:"routes"` // manifest and provider, merged
	Env      []EnvVar       `json:"env"`    // sorted by name
	Files    []GuestFile    `json:"files"`  // sorted by path
	// Watch names the host files whose change means: provision again.
	Watch []string `json:"watch"`
	// Answers maps Route.Answer to the provider whose answerer serves it.
	Answers map[string]string `json:"answers"`
	// Canaries are all dummies of the bottle with the hosts where each may go.
	Canaries []Canary `json:"canaries"`
	// Secrets are those of the host that must not leave, besides the credentials of Routes.
	Secrets         []HostSecret `json:"secrets"`
	Notes           []string     `json:"notes"` // sentences for the operator; not part of the digest
	HasProviderAuth bool         `json:"has_provider_auth"`
}

// LinkSpec says which capture link the bottle has: exactly one of Tap, Netns
// and Interface is set.
type LinkSpec struct {
	Tap        string           `json:"tap,omitempty"`         // a tap that gatewayd creates, persistent
	Netns      string           `json:"netns,omitempty"`       // absolute path of a namespace that gatewayd creates
	Adopt      bool             `json:"adopt,omitempty"`       // the namespace and its eth0 are made by somebody else
	Interface  string           `json:"interface,omitempty"`   // an interface that exists already
	Owner      string           `json:"owner,omitempty"`       // user name or number that may open the tap; "" is root
	MultiQueue bool             `json:"multi_queue,omitempty"` // the tap has several queues
	Guest      netip.Prefix     `json:"guest,omitzero"`        // the guest's address with the link's prefix length; zero = from the pool
	MAC        net.HardwareAddr `json:"-"`                     // the guest's; nil = gatewayd chooses
	MTU        int              `json:"mtu,omitempty"`         // bytes; 0 = 1500
}

// DeniedDNS says how names outside the plan are answered.
type DeniedDNS string

const (
	// DeniedBlock answers with the link's block address, where the client meets
	// an explanation. The default.
	DeniedBlock DeniedDNS = "block"
	// DeniedNXDOMAIN answers that the name does not exist.
	DeniedNXDOMAIN DeniedDNS = "nxdomain"
)

// DNSSpec is the manifest's dns section, with defaults filled in.
type DNSSpec struct {
	Denied DeniedDNS `json:"denied"`
}

// Gateway returns the address of the link's host end that goes with Guest: the
// lowest usable address of the prefix that is not the guest's. It is the zero
// Addr where Guest is unset.
func (l LinkSpec) Gateway() netip.Addr {
	if !l.Guest.IsValid() {
		return netip.Addr{}
	}
	first := l.Guest.Masked().Addr().Next()
	if first == l.Guest.Addr() {
		return first.Next()
	}
	return first
}

// String names the link: "tap gw-dev", "netns /run/netns/dev", with " (adopted)"
// behind it, or "interface vnet0".
func (l LinkSpec) String() string {
	switch {
	case l.Tap != "":
		return "tap " + l.Tap
	case l.Adopt:
		return "netns " + l.Netns + " (adopted)"
	case l.Netns != "":
		return "netns " + l.Netns
	case l.Interface != "":
		return "interface " + l.Interface
	}
	return "none"
}

// MarshalJSON writes the MAC address in its usual form.
func (l LinkSpec) MarshalJSON() ([]byte, error) {
	type plain LinkSpec
	return json.Marshal(struct {
		plain
		MAC string `json:"mac,omitempty"`
	}{plain(l), l.MAC.String()})
}

// Digest returns "sha256:" and the hex digest of the plan's JSON without its
// notes and without where routes were written: equal digests mean equal
// behaviour, however the manifest is laid out.
func (p *Plan) Digest() string {
	q := *p
	q.Notes = nil
	q.Routes = slices.Clone(p.Routes)
	for i := range q.Routes {
		q.Routes[i].Origin = routes.Origin{}
	}
	data, err := json.Marshal(q)
	if err != nil {
		// Every field is of a type that marshals; see the tests.
		panic("marshal plan: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
