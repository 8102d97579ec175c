// Package vmimage makes from a provision plan the files that the guest must
// hold: certificates, environment, agent files and network set-up. What the
// agent's files say is the plan's business; this package knows no agent.
package vmimage

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"

	"gatewayd/gateway/routes"
	"gatewayd/plan"
)

// DefaultAt is where the guest finds its files unless told otherwise.
const DefaultAt = "/etc/gatewayd"

// File is one file of the guest directory.
type File struct {
	Path string      // relative to the directory, slash-separated
	Mode fs.FileMode // permission bits only
	Data []byte      // owned by the caller of GuestFiles
}

// Network is the guest's side of the capture link.
type Network struct {
	Guest   netip.Prefix     // the guest's IPv4 address and prefix length
	Gateway netip.Addr       // the link's host end
	DNS     netip.Addr       // where to ask for names; zero = Gateway
	MAC     net.HardwareAddr // the guest's; nil leaves it out
	MTU     int              // bytes; 0 = 1500
}

// Inputs is what the plan cannot know.
type Inputs struct {
	CAPEM          []byte // the bottle's CA certificate, PEM
	SystemRootsPEM []byte // the host's trusted roots, PEM
	At             string // absolute guest path of the directory; "" = DefaultAt
	Network        Network
	// Secret resolves a reference, for a plan that lends a credential; the
	// value goes into that one file. nil refuses such plans.
	Secret func(routes.SecretRef) (string, error)
}

// GuestFiles returns the files of the guest directory, sorted by path: ca.pem,
// ca-bundle.pem, ca-bundle.jks, env, network.json, Smolfile and the plan's own. It is pure
// but for Inputs.Secret. Errors name the input at fault; a LentError names the
// credential that could not be lent.
func GuestFiles(p *plan.Plan, in Inputs) ([]File, error) {
	in.At = cmp.Or(in.At, DefaultAt)
	if err := in.check(); err != nil {
		return nil, fmt.Errorf("make guest files of %s: %w", p.Bottle, err)
	}
	network, err := networkJSON(p, in.Network)
	if err != nil {
		return nil, fmt.Errorf("make guest files of %s: %w", p.Bottle, err)
	}
	bundle := append(withNewline(in.SystemRootsPEM), withNewline(in.CAPEM)...)
	files := []File{
		{Path: plan.CAFile, Mode: 0o644, Data: withNewline(in.CAPEM)},
		{Path: plan.BundleFile, Mode: 0o644, Data: bundle},
		{Path: plan.TrustStoreFile, Mode: 0o644, Data: trustStore(bundle)},
		{Path: "env", Mode: 0o600, Data: envFile(p.Env, in.At)},
		{Path: "network.json", Mode: 0o644, Data: network},
		{Path: "Smolfile", Mode: 0o644, Data: smolfile(p, in)},
	}
	for _, f := range p.Files {
		content, err := fill(f, in.Secret)
		if err != nil {
			return nil, fmt.Errorf("make guest files of %s: %w", p.Bottle, err)
		}
		files = append(files, File{Path: f.Path, Mode: fs.FileMode(f.Mode).Perm(), Data: []byte(content)})
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	if err := checkPaths(files); err != nil {
		return nil, fmt.Errorf("make guest files of %s: %w", p.Bottle, err)
	}
	return files, nil
}

// check refuses inputs that would make a guest that works half.
func (in Inputs) check() error {
	switch {
	case !path.IsAbs(in.At) || path.Clean(in.At) != in.At || !plainPath.MatchString(in.At):
		return fmt.Errorf("guest directory %q: write a clean absolute path of letters, digits and / . _ -", in.At)
	case !bytes.Contains(in.CAPEM, []byte("BEGIN CERTIFICATE")):
		return errors.New("no CA certificate")
	case bytes.Contains(in.CAPEM, []byte("PRIVATE KEY")):
		return errors.New("the CA certificate holds a private key")
	case !bytes.Contains(in.SystemRootsPEM, []byte("BEGIN CERTIFICATE")):
		return errors.New("no system roots: install the distribution's ca-certificates")
	}
	return nil
}

// plainPath is a path that needs no quoting in a shell, a TOML string or an
// environment file.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9._/-]+$`)

// checkPaths refuses names that would leave the directory, or meet twice.
func checkPaths(files []File) error {
	for i, f := range files {
		if !fs.ValidPath(f.Path) || f.Path == "." {
			return fmt.Errorf("%q is no path inside the directory", f.Path)
		}
		if i > 0 && files[i-1].Path == f.Path {
			return fmt.Errorf("%s is there twice", f.Path)
		}
	}
	return nil
}

func withNewline(pem []byte) []byte { return append(bytes.TrimRight(bytes.Clone(pem), "\n"), '\n') }
