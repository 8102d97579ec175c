package tls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// Roots are the certificates that upstream servers are verified against. Immutable.
type Roots struct{ pool *x509.CertPool }

// LoadRoots reads the host's certificate bundle and the PEM files named in extra.
func LoadRoots(extra []string) (*Roots, error) { return nil, errors.New("load roots: not written") }

// Pool returns a copy of the roots as a pool; the caller owns it.
func (r *Roots) Pool() *x509.CertPool { return r.pool.Clone() }

// PEM returns all roots as PEM blocks; the caller owns the slice.
func (r *Roots) PEM() []byte { return nil }

// UpstreamConfig returns the client configuration for a connection to the upstream called name: chain and name are always
// verified against r, and a nil r trusts nobody.
func UpstreamConfig(r *Roots, name string, alpn []string) *tls.Config {
	return &tls.Config{RootCAs: x509.NewCertPool(), ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: alpn}
}
