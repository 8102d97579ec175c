package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/pool"
	"gatewayd/gateway/redirect"
	gwtls "gatewayd/gateway/tls"
	"gatewayd/plan"
	"gatewayd/vmimage"
)

// Ports of the listeners on each link's gateway address. The guest never addresses the first; the second is where it is
// told to send its questions, and where all others of them are sent.
const (
	interceptPort = 15001
	dnsPort       = 53
)

// defaultMTU is that of Ethernet (RFC 894).
const defaultMTU = 1500

// CA opens the certificate authority of a bottle, and makes it the first time, below the state directory.
func CA(c config.Config, bottle string) (*gwtls.CA, error) {
	dir := filepath.Join(c.StateDir, "bottles", bottle)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return gwtls.OpenCA(dir, bottle, time.Now)
}

// Link gives the capture link of a plan, with an address from the pool unless the manifest fixes one. The allocation is
// remembered in the state directory, so that `gatewayd run` and `gatewayd guest` agree.
//
// The link of an adopted namespace is read from there, and nothing is remembered.
func Link(c config.Config, p *plan.Plan) (redirect.Link, error) {
	if p.Link.Adopt {
		return adopted(p)
	}
	l := redirect.Link{
		Bottle: p.Bottle, Owner: -1, MAC: p.Link.MAC, MTU: p.Link.MTU,
		InterceptPort: interceptPort, DNSPort: dnsPort,
	}
	if l.MTU == 0 {
		l.MTU = defaultMTU
	}
	if l.MAC == nil {
		l.MAC = hardwareAddr(c.Instance, p.Bottle)
	}
	switch {
	case p.Link.Tap != "":
		l.Kind, l.Name, l.MultiQueue = redirect.Tap, p.Link.Tap, p.Link.MultiQueue
		uid, err := owner(p.Link.Owner)
		if err != nil {
			return redirect.Link{}, fmt.Errorf("bottle %s: link.owner: %w", p.Bottle, err)
		}
		l.Owner = uid
	case p.Link.Netns != "":
		l.Kind, l.Netns, l.Name = redirect.Netns, p.Link.Netns, vethName(c.Instance, p.Bottle)
	case p.Link.Interface != "":
		l.Kind, l.Name = redirect.Existing, p.Link.Interface
	default:
		return redirect.Link{}, fmt.Errorf("bottle %s: its plan names no link", p.Bottle)
	}
	n, err := number(c, p, l.Name)
	if err != nil {
		return redirect.Link{}, err
	}
	l.Guest, l.Gateway, l.Bits = n.Guest, n.Gateway, n.Prefix.Bits()
	return l, nil
}

// adopted gives the capture link of a namespace that somebody else made.
func adopted(p *plan.Plan) (redirect.Link, error) {
	l, err := redirect.Adopt(p.Link.Netns)
	if err != nil {
		return redirect.Link{}, fmt.Errorf("bottle %s: %w", p.Bottle, err)
	}
	l.Bottle, l.InterceptPort, l.DNSPort = p.Bottle, interceptPort, dnsPort
	return l, nil
}

// number allocates the link's addresses.
func number(c config.Config, p *plan.Plan, link string) (pool.Link, error) {
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return pool.Link{}, err
	}
	use, err := pool.HostPrefixes(link)
	if err != nil {
		return pool.Link{}, err
	}
	return pool.Allocate(c.StateDir, c.Pool, pool.Request{Bottle: p.Bottle, Fixed: p.Link.Guest, InUse: use})
}

// Network is the guest's side of a link.
func Network(l redirect.Link) vmimage.Network {
	return vmimage.Network{Guest: guestPrefix(l), Gateway: l.Gateway, DNS: l.Gateway, MAC: l.MAC, MTU: l.MTU}
}

// owner resolves the user that may open a tap; "" is nobody but root.
func owner(s string) (int, error) {
	if s == "" {
		return -1, nil
	}
	if uid, err := strconv.ParseUint(s, 10, 31); err == nil {
		return int(uid), nil
	}
	u, err := user.Lookup(s)
	if err != nil {
		return 0, fmt.Errorf("no user %q on this host; write a user that exists, or a number in quotes", s)
	}
	return strconv.Atoi(u.Uid)
}

// hardwareAddr derives a locally administered unicast address (IEEE 802, 02:…) from the bottle's name, so that a guest
// that keeps its address table finds it again.
func hardwareAddr(instance, bottle string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("mac\x00" + instance + "\x00" + bottle))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// vethName names the host end of a namespace's link: gw- and the bottle's name where that fits in the 15 bytes of an
// interface name and no other instance could have it, else gw-, the name's beginning, and a digest.
func vethName(instance, bottle string) string {
	name := "gw-" + bottle
	if instance == config.DefaultInstance && len(name) <= 15 {
		return name
	}
	sum := sha256.Sum256([]byte("link\x00" + instance + "\x00" + bottle))
	return "gw-" + bottle[:min(5, len(bottle))] + "-" + hex.EncodeToString(sum[:3])
}
