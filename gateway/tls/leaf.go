package tls

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"gatewayd/gateway/routes"
)

const (
	// leafAge is how far in the past a leaf begins: the clock of a guest that was suspended or restored from a snapshot lags,
	// by a year and more.
	leafAge = 2 * 365 * 24 * time.Hour
	// leafLife is how long a leaf is good for. With leafAge it stays under 825 days, the longest that any client accepts of an
	// authority which its owner has added; the 398 days of browsers are for authorities that they come with.
	leafLife = 31 * 24 * time.Hour
	// leafRenew is how long before its end a leaf is replaced: a guest's clock may also run ahead.
	leafRenew = 10 * 24 * time.Hour
	// maxLeaves bounds the leaves that one authority keeps. A leaf has about 5 KB, and 1 KB for each offer of protocols.
	maxLeaves = 512
)

// leaf is a certificate in the cache.
type leaf struct {
	name    string
	cert    *tls.Certificate
	renew   time.Time
	configs serverConfigs // guarded by the authority's lock
}

// Leaf returns a server certificate for name, which must be canonical (routes.CanonicalHost); otherwise the error holds a
// *routes.NameError. It is minted the first time, at the cost of one ECDSA signature, and then kept among the 512 names last
// used; calls for one name at one time share the work. Its only identity is a subjectAltName, it began two years ago, and it is
// replaced ten days before it ends. The certificate is shared: do not change it.
//
// Leaf asks no policy: call it only for names that the plan has, or, at a limited rate, to explain a denial.
func (c *CA) Leaf(name string) (*tls.Certificate, error) {
	l, err := c.leaf(name)
	if err != nil {
		return nil, err
	}
	return l.cert, nil
}

// leaf is Leaf, as it is kept.
func (c *CA) leaf(name string) (*leaf, error) {
	if err := checkCanonical(name); err != nil {
		return nil, fmt.Errorf("mint leaf: %w", err)
	}
	if l := c.cached(name); l != nil {
		return l, nil
	}
	v, err, _ := c.minting.Do(name, func() (any, error) {
		if l := c.cached(name); l != nil {
			return l, nil
		}
		cert, err := c.mint(name)
		if err != nil {
			return nil, fmt.Errorf("mint leaf for %s: %w", name, err)
		}
		return c.keep(name, cert), nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*leaf), nil
}

// checkCanonical returns a *routes.NameError unless name is what the canonicaliser makes of it.
func checkCanonical(name string) error {
	canonical, err := routes.CanonicalHost(name)
	if err == nil && canonical != name {
		err = &routes.NameError{Name: name, Reason: "it is not in canonical form, " + canonical}
	}
	return err
}

// mint signs a new leaf.
func (c *CA) mint(name string) (*tls.Certificate, error) {
	now := c.now()
	template := &x509.Certificate{ // SerialNumber: random, RFC 5280 §4.1.2.2, by CreateCertificate
		DNSNames:              []string{name},
		NotBefore:             now.Add(-leafAge),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, c.leafKey.Public(), c.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The authority is not sent along: the guest has it or does not trust it, and the flight stays small.
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: c.leafKey, Leaf: parsed}, nil
}

// cached returns the leaf kept for name unless it is due for renewal.
func (c *CA) cached(name string) *leaf {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.leaves[name]
	if !ok {
		return nil
	}
	l := e.Value.(*leaf)
	if !c.now().Before(l.renew) {
		return nil
	}
	c.recent.MoveToFront(e)
	return l
}

// keep puts a leaf into the cache, and the least recently used one out when there are too many.
func (c *CA) keep(name string, cert *tls.Certificate) *leaf {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &leaf{name: name, cert: cert, renew: cert.Leaf.NotAfter.Add(-leafRenew)}
	if e, ok := c.leaves[name]; ok {
		e.Value = l
		c.recent.MoveToFront(e)
		return l
	}
	c.leaves[name] = c.recent.PushFront(l)
	if c.recent.Len() > maxLeaves {
		oldest := c.recent.Back()
		c.recent.Remove(oldest)
		delete(c.leaves, oldest.Value.(*leaf).name)
	}
	return l
}
