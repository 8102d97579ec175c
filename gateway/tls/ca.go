package tls

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// keyFile and certFile are the names that an authority has in its directory.
	keyFile  = "ca-key.pem"
	certFile = "ca.pem"

	// caAge is how far in the past an authority begins. A guest without a clock chip may boot years behind.
	caAge = 10 * 365 * 24 * time.Hour
	// caLife is how long an authority is good for; it outlives the bottle.
	caLife = 20 * 365 * 24 * time.Hour
)

// CA is the certificate authority of one bottle. It signs leaves for the names that the gateway terminates there, and nothing
// but that bottle trusts it. Safe for use by many goroutines.
type CA struct {
	cert    *x509.Certificate
	certPEM []byte
	key     *ecdsa.PrivateKey
	leafKey *ecdsa.PrivateKey // of every leaf: a key for each name would double the cost and protect nothing
	now     func() time.Time
	tickets ticketKeys

	minting singleflight.Group
	mu      sync.Mutex               // guards the two below
	leaves  map[string]*list.Element // of *leaf, by name
	recent  *list.List               // the same, most recently used first
}

// OpenCA loads the authority of a bottle from dir, or makes it there the first time: ca-key.pem (mode 0600) and ca.pem. It is
// kept from then on, since guests hold its certificate. dir is made (0700) when missing. Two processes may call it at once;
// both get the same authority. now is the clock for validity; nil means time.Now.
//
// The subject holds the bottle's name and a random serial: authorities that shared a subject but not a key would make clients
// report a broken signature instead of an unknown authority.
//
// It returns an error, and never makes a new authority in place of an old one, when a file is there and is not right: a key
// that others may read, a key and a certificate that do not belong together, another bottle's authority, an expired one, a
// certificate without its key. The error names the file and says what to do.
func OpenCA(dir, bottle string, now func() time.Time) (*CA, error) {
	if bottle == "" {
		return nil, errors.New("open certificate authority: empty bottle name")
	}
	if now == nil {
		now = time.Now
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority of %q: %w", bottle, err)
	}
	defer unlock()
	key, cert, err := loadOrMakeCA(dir, bottle, now())
	if err != nil {
		return nil, fmt.Errorf("open certificate authority of %q: %w", bottle, err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make leaf key: %w", err)
	}
	return &CA{
		cert: cert, key: key, leafKey: leafKey, now: now, tickets: newTicketKeys(),
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		leaves:  make(map[string]*list.Element), recent: list.New(),
	}, nil
}

// CertPEM returns the authority's certificate as one PEM block: what the bottle must trust. The caller owns the slice.
func (c *CA) CertPEM() []byte { return slices.Clone(c.certPEM) }

// loadOrMakeCA does OpenCA's work on a locked directory. The key is written first, so that a key alone is a first start that
// was cut short, and gets its certificate; a certificate alone is a key that was lost.
func loadOrMakeCA(dir, bottle string, now time.Time) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, keyErr := loadKey(dir)
	if keyErr != nil && !errors.Is(keyErr, os.ErrNotExist) {
		return nil, nil, keyErr
	}
	cert, certErr := loadCert(dir)
	if certErr != nil && !errors.Is(certErr, os.ErrNotExist) {
		return nil, nil, certErr
	}
	switch {
	case key != nil && cert != nil:
		return key, cert, checkCA(dir, bottle, key, cert, now)
	case cert != nil:
		return nil, nil, fmt.Errorf("%w; restore the key, or remove %s to make a new authority, and give its certificate to the guest",
			keyErr, filepath.Join(dir, certFile))
	case key == nil:
		var err error
		if key, err = makeKey(dir); err != nil {
			return nil, nil, err
		}
	}
	cert, err := makeCert(dir, bottle, key, now)
	return key, cert, err
}

// makeKey makes and keeps the authority's key.
func makeKey(dir string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return key, writeFile(dir, keyFile, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// makeCert makes and keeps the authority's certificate (RFC 5280 §4.2.1.3 and §4.2.1.9: it signs leaves and nothing below).
func makeCert(dir, bottle string, key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails since Go 1.24
	serial[0] &= 0x7f
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject: pkix.Name{
			Organization:       []string{"gatewayd"},
			OrganizationalUnit: []string{bottle},
			CommonName:         "gatewayd " + hex.EncodeToString(serial),
		},
		NotBefore:             now.Add(-caAge),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back certificate: %w", err)
	}
	return cert, writeFile(dir, certFile, 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// checkCA tells whether a key and a certificate found on disk are the bottle's authority.
func checkCA(dir, bottle string, key *ecdsa.PrivateKey, cert *x509.Certificate, now time.Time) error {
	file := filepath.Join(dir, certFile)
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || !pub.Equal(key.Public()):
		return fmt.Errorf("check %s: it does not belong to %s; restore the pair, or remove both to make a new authority", file, keyFile)
	case !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0 || cert.CheckSignatureFrom(cert) != nil:
		return fmt.Errorf("check %s: it is no self-signed certificate authority; remove it and %s to make a new one", file, keyFile)
	case !slices.Equal(cert.Subject.OrganizationalUnit, []string{bottle}):
		return fmt.Errorf("check %s: it is the authority of %q, not of %q; each bottle has its own, so remove it and %s",
			file, cert.Subject.OrganizationalUnit, bottle, keyFile)
	case now.Add(leafLife).After(cert.NotAfter):
		return fmt.Errorf("check %s: it expires on %s; remove it and %s to make a new authority, and give its certificate to the guest",
			file, cert.NotAfter.Format(time.DateOnly), keyFile)
	}
	return nil
}
