package vmimage

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"gatewayd/plan"
)

// envFile returns KEY=VALUE lines, sorted as the plan has them. Values hold no
// white space or quotes, so that a shell, systemd's EnvironmentFile and an OCI
// runtime read the same.
func envFile(env []plan.EnvVar, at string) []byte {
	var b bytes.Buffer
	for _, e := range env {
		fmt.Fprintf(&b, "%s=%s\n", e.Name, e.Resolve(at))
	}
	return b.Bytes()
}

// networkFile is network.json: what the guest's init sets up on eth0.
type networkFile struct {
	Bottle    string `json:"bottle"`
	Interface string `json:"interface"`
	Address   string `json:"address"` // with prefix length
	Gateway   string `json:"gateway"`
	DNS       string `json:"dns"`
	MAC       string `json:"mac,omitempty"`
	MTU       int    `json:"mtu"` // bytes
	IPv6      bool   `json:"ipv6"`
}

// networkJSON renders network.json.
func networkJSON(p *plan.Plan, n Network) ([]byte, error) {
	if !n.Guest.IsValid() || !n.Guest.Addr().Is4() {
		return nil, errors.New("the guest has no IPv4 address")
	}
	// A host prefix has nobody in it: the gateway is on the link by a route.
	onLink := n.Guest.Bits() == 32 || n.Guest.Contains(n.Gateway)
	if !n.Gateway.Is4() || !onLink || n.Gateway == n.Guest.Addr() {
		return nil, fmt.Errorf("gateway %s is not a neighbour of the guest %s", n.Gateway, n.Guest)
	}
	data, err := json.MarshalIndent(networkFile{
		Bottle: p.Bottle, Interface: "eth0", Address: n.Guest.String(), Gateway: n.Gateway.String(),
		DNS: n.resolver().String(), MAC: n.MAC.String(), MTU: n.mtu(),
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// resolver returns where the guest asks for names.
func (n Network) resolver() netip.Addr {
	if n.DNS.IsValid() {
		return n.DNS
	}
	return n.Gateway
}

func (n Network) mtu() int { return cmp.Or(n.MTU, 1500) }

// tomlString returns s as a TOML basic string.
func tomlString(s string) string {
	// JSON's escapes are a subset of TOML's, but for \/ which Go does not write.
	q, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(q))
}
