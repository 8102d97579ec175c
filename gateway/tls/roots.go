package tls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// systemBundles are where distributions keep the certificates that the host trusts; the first that exists is read.
// (Debian, Alpine, Arch; Fedora and its kin; older ones of these; openSUSE; Alpine without the ca-certificates package.)
var systemBundles = [...]string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// maxBundle bounds a file of certificates; distributions' bundles have about 230 KB.
const maxBundle = 16 << 20

// Roots are the certificates that upstream servers are verified against, and that a guest's bundle gets beside its own
// authority. Immutable. A nil *Roots trusts nobody.
type Roots struct {
	pool *x509.CertPool
	pem  []byte
}

// LoadRoots reads the host's certificate bundle and then the PEM files named in extra. A host without a bundle is an error
// only when extra is empty too. Certificates of the host's bundle that do not parse are left out, as crypto/x509 does; an
// extra file must hold certificates and nothing else, and the error names the file and the block.
func LoadRoots(extra []string) (*Roots, error) { return loadRoots(systemBundles[:], extra) }

func loadRoots(bundles, extra []string) (*Roots, error) {
	r := &Roots{pool: x509.NewCertPool()}
	found, err := r.addSystem(bundles)
	if err != nil {
		return nil, err
	}
	if !found && len(extra) == 0 {
		return nil, fmt.Errorf("load roots: the host has no certificate bundle (looked for %s); install the ca-certificates package "+
			"or name PEM files to trust", strings.Join(bundles, ", "))
	}
	for _, path := range extra {
		certs, err := readCerts(path, true)
		if err != nil {
			return nil, fmt.Errorf("load roots: %w", err)
		}
		r.add(certs)
	}
	return r, nil
}

// addSystem adds the first of bundles that exists.
func (r *Roots) addSystem(bundles []string) (found bool, err error) {
	for _, path := range bundles {
		certs, err := readCerts(path, false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("load roots: %w", err)
		}
		r.add(certs)
		return true, nil
	}
	return false, nil
}

func (r *Roots) add(certs []*x509.Certificate) {
	for _, c := range certs {
		r.pool.AddCert(c)
		r.pem = append(r.pem, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
}

// readCerts reads the certificates of a PEM file. Strict: every block that begins must be a certificate that parses.
func readCerts(path string, strict bool) ([]*x509.Certificate, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxBundle {
		return nil, fmt.Errorf("read %s: not a regular file of at most %d bytes", path, maxBundle)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rest := b
	var certs []*x509.Certificate
	for n := 1; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" && strict {
			return nil, fmt.Errorf("read %s: PEM block %d is a %s; only certificates belong there", path, n, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil && strict {
			return nil, fmt.Errorf("read %s: certificate %d: %w", path, n, err)
		}
		if err == nil {
			certs = append(certs, cert)
		}
	}
	if begun := bytes.Count(b, []byte("-----BEGIN ")); strict && begun != len(certs) {
		return nil, fmt.Errorf("read %s: %d PEM blocks begin and %d are whole", path, begun, len(certs))
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("read %s: no certificate in it; a file of PEM blocks is wanted", path)
	}
	return certs, nil
}

// Pool returns the roots as a pool of its own; the caller may change it.
func (r *Roots) Pool() *x509.CertPool {
	if r == nil {
		return x509.NewCertPool()
	}
	return r.pool.Clone()
}

// PEM returns all roots as PEM blocks without comments, in the order read; the caller owns the slice.
func (r *Roots) PEM() []byte {
	if r == nil {
		return nil
	}
	return slices.Clone(r.pem)
}

// UpstreamConfig returns the client configuration for connections to the upstream called name, which must be canonical, and
// with alpn as the protocols to offer, best first. The caller owns it. Chain and name are always verified against r: without
// roots or a name no handshake succeeds, and it still fails if somebody sets InsecureSkipVerify on it. TLS 1.2 and 1.3, no
// session cache, no renegotiation.
func UpstreamConfig(r *Roots, name string, alpn []string) *tls.Config {
	pool := x509.NewCertPool() // nil would mean the host's roots
	if r != nil {
		pool = r.pool
	}
	return &tls.Config{
		RootCAs:    pool,
		ServerName: name,
		NextProtos: slices.Clone(alpn),
		MinVersion: tls.VersionTLS12,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.VerifiedChains) == 0 || name == "" || s.PeerCertificates[0].VerifyHostname(name) != nil {
				return fmt.Errorf("verify %q: certificate was not verified for this name", name)
			}
			return nil
		},
	}
}
