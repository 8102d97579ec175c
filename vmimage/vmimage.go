// Package vmimage makes from a provision plan the files that the guest must
// hold: certificates, environment, agent files and network set-up.
package vmimage

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"

	"gatewayd/gateway/routes"
	"gatewayd/plan"
)

// File is one file of the guest directory. Path is relative and
// slash-separated.
type File struct {
	Path string
	Mode fs.FileMode // permission bits only
	Data []byte
}

// Network is the guest's side of the capture link.
type Network struct {
	Guest   netip.Prefix     // the guest's address and prefix length
	Gateway netip.Addr       // the link's host end; also the resolver
	DNS     netip.Addr       // where to ask; zero = Gateway
	MAC     net.HardwareAddr // the guest's
	MTU     int              // bytes; 0 = 1500
}

// Inputs is what the plan cannot know.
type Inputs struct {
	CAPEM          []byte // the bottle's CA certificate
	SystemRootsPEM []byte // the host's trusted roots
	At             string // absolute guest path of the directory; "" = /etc/gatewayd
	Network        Network
	// Secret resolves a reference for files that lend a credential. nil refuses
	// such plans.
	Secret func(routes.SecretRef) (string, error)
}

// GuestFiles returns the files of the guest directory, sorted by path.
func GuestFiles(p *plan.Plan, in Inputs) ([]File, error) {
	return nil, errors.New("make guest files: not written yet")
}

// Write puts files below dir.
func Write(dir string, files []File) error {
	return errors.New("write guest files: not written yet")
}
