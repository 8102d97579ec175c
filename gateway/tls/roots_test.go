package tls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// upstream makes a server configuration with a certificate of template's names and times, signed by ca or, with nil, by itself.
func upstream(t *testing.T, ca *CA, template x509.Certificate) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := &template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2", "http/1.1"}}
}

func TestUpstreamConfig(t *testing.T) {
	ca, stranger := openCA(t, t.TempDir()), openCA(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "corp.pem")
	write(t, file, ca.CertPEM())
	roots, err := loadRoots(nil, []string{file})
	if err != nil {
		t.Fatal(err)
	}
	const name = "api.example.test"
	good := upstream(t, ca, x509.Certificate{DNSNames: []string{name}})
	old := upstream(t, ca, x509.Certificate{DNSNames: []string{name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	future := upstream(t, ca, x509.Certificate{DNSNames: []string{name}, NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(48 * time.Hour)})
	wrong := upstream(t, ca, x509.Certificate{DNSNames: []string{"other.example.test", "*.api.example.test"}})
	commonName := upstream(t, ca, x509.Certificate{Subject: pkix.Name{CommonName: name}})
	self := upstream(t, nil, x509.Certificate{DNSNames: []string{name}})
	foreign := upstream(t, stranger, x509.Certificate{DNSNames: []string{name}})
	client := upstream(t, ca, x509.Certificate{DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})

	t.Run("verified", func(t *testing.T) {
		_, err, state := handshake(t, good, UpstreamConfig(roots, name, []string{"http/1.1"}))
		if err != nil || state.NegotiatedProtocol != "http/1.1" || state.Version != tls.VersionTLS13 {
			t.Errorf("got %v, %q, %x", err, state.NegotiatedProtocol, state.Version)
		}
	})
	for what, c := range map[string]struct {
		server *tls.Config
		roots  *Roots
		name   string
	}{
		"expired": {old, roots, name}, "not yet valid": {future, roots, name}, "wrong name": {wrong, roots, name},
		"common name only": {commonName, roots, name}, "self-signed": {self, roots, name}, "unknown authority": {foreign, roots, name},
		"client certificate": {client, roots, name}, "no roots": {good, nil, name}, "no name": {good, roots, ""},
	} {
		t.Run(what, func(t *testing.T) {
			if _, err, _ := handshake(t, c.server, UpstreamConfig(c.roots, c.name, nil)); err == nil {
				t.Error("accepted")
			}
			careless := UpstreamConfig(c.roots, c.name, nil)
			careless.InsecureSkipVerify = true
			if _, err, _ := handshake(t, c.server, careless); err == nil {
				t.Error("accepted with InsecureSkipVerify set")
			}
		})
	}
	t.Run("TLS 1.1", func(t *testing.T) {
		server := good.Clone()
		server.MinVersion, server.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if _, err, _ := handshake(t, server, UpstreamConfig(roots, name, nil)); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("nil roots are not the host's", func(t *testing.T) {
		if pool := UpstreamConfig(nil, name, nil).RootCAs; pool == nil || !pool.Equal(x509.NewCertPool()) {
			t.Error("without roots somebody is trusted")
		}
	})
	t.Run("typed", func(t *testing.T) {
		var verify *tls.CertificateVerificationError
		if _, err, _ := handshake(t, self, UpstreamConfig(roots, name, nil)); !errors.As(err, &verify) {
			t.Errorf("got %v", err)
		}
	})
}

func TestLoadRoots(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content ...[]byte) string {
		path := filepath.Join(dir, name)
		write(t, path, bytes.Join(content, []byte("\n# comment\n")))
		return path
	}
	a, b, c := openCA(t, t.TempDir()), openCA(t, t.TempDir()), openCA(t, t.TempDir())
	broken := bytes.Replace(a.CertPEM(), []byte("MII"), []byte("MI!"), 1)
	system := file("system.pem", a.CertPEM(), broken, pemBlock("CERTIFICATE", []byte{1, 2}))
	second := file("second.pem", b.CertPEM())
	extra := file("extra.pem", b.CertPEM(), c.CertPEM())
	absent := filepath.Join(dir, "absent")

	t.Run("system and extra", func(t *testing.T) {
		roots, err := loadRoots([]string{absent, system, second}, []string{extra})
		if err != nil {
			t.Fatal(err)
		}
		if want := bytes.Join([][]byte{a.CertPEM(), b.CertPEM(), c.CertPEM()}, nil); !bytes.Equal(roots.PEM(), want) {
			t.Errorf("PEM is\n%s", roots.PEM())
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(roots.PEM())
		if !roots.Pool().Equal(pool) {
			t.Error("Pool is not PEM")
		}
		roots.Pool().AddCert(openCA(t, t.TempDir()).cert)
		if !roots.Pool().Equal(pool) {
			t.Error("a caller changed the roots through Pool")
		}
		roots.PEM()[0] = 'x'
		if roots.PEM()[0] != '-' {
			t.Error("a caller changed the roots through PEM")
		}
	})
	t.Run("extra alone", func(t *testing.T) {
		if _, err := loadRoots([]string{absent}, []string{second}); err != nil {
			t.Error(err)
		}
	})
	for what, c := range map[string]struct {
		bundles, extra []string
		want           []string
	}{
		"nothing":        {[]string{absent}, nil, []string{absent, "ca-certificates"}},
		"absent":         {[]string{system}, []string{absent}, []string{absent, "no such file"}},
		"no certificate": {[]string{system}, []string{file("text.pem", []byte("hello"))}, []string{"text.pem", "no certificate"}},
		"broken":         {[]string{system}, []string{file("broken.pem", b.CertPEM(), broken, c.CertPEM())}, []string{"broken.pem", "3 PEM blocks begin and 2"}},
		"cut":            {[]string{system}, []string{file("cut.pem", b.CertPEM(), c.CertPEM()[:100])}, []string{"cut.pem", "2 PEM blocks begin and 1"}},
		"garbled":        {[]string{system}, []string{file("garbled.pem", b.CertPEM(), pemBlock("CERTIFICATE", []byte{1}))}, []string{"garbled.pem", "certificate 2"}},
		"key":            {[]string{system}, []string{file("key.pem", b.CertPEM(), ecKey(t, elliptic.P256()))}, []string{"key.pem", "block 2 is a PRIVATE KEY"}},
		"directory":      {[]string{system}, []string{dir}, []string{dir, "not a regular file"}},
		"empty system":   {[]string{file("empty.pem")}, []string{second}, []string{"empty.pem", "no certificate"}},
	} {
		t.Run(what, func(t *testing.T) {
			roots, err := loadRoots(c.bundles, c.extra)
			if err == nil {
				t.Fatalf("loaded %s", roots.PEM())
			}
			for _, w := range append(c.want, "load roots: ") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("message %q lacks %q", err, w)
				}
			}
		})
	}
	t.Run("nil trusts nobody", func(t *testing.T) {
		var none *Roots
		if none.PEM() != nil || !none.Pool().Equal(x509.NewCertPool()) {
			t.Error("a nil Roots has certificates")
		}
	})
}

func TestLoadRootsOfThisHost(t *testing.T) {
	var have bool
	for _, path := range systemBundles {
		_, err := os.Stat(path)
		have = have || err == nil
	}
	roots, err := LoadRoots(nil)
	if !have {
		if err == nil {
			t.Error("loaded roots that the host does not have")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rest := roots.PEM(); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
	}
	if n < 20 {
		t.Errorf("%d certificates", n)
	}
}
