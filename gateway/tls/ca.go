package tls

import (
	"crypto/tls"
	"errors"
	"time"
)

// CA is the certificate authority of one bottle. Its methods may be called from many goroutines.
type CA struct{}

// OpenCA loads the authority kept in dir (ca-key.pem, ca.pem), or makes it there when dir has none.
func OpenCA(dir, bottle string, now func() time.Time) (*CA, error) {
	return nil, errors.New("open ca: not written")
}

// CertPEM returns the authority's certificate as one PEM block: what the bottle must trust. The caller owns the slice.
func (c *CA) CertPEM() []byte { return nil }

// Leaf returns a server certificate for name, which must be canonical (routes.CanonicalHost); otherwise *NameError.
func (c *CA) Leaf(name string) (*tls.Certificate, error) {
	return nil, errors.New("mint leaf: not written")
}

// ServerConfig returns the configuration of one terminated connection to name.
func (c *CA) ServerConfig(name string, alpn []string) (*tls.Config, error) {
	return nil, errors.New("mint leaf: not written")
}
