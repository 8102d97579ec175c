package tls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

func TestLeaf(t *testing.T) {
	ca := openCA(t, t.TempDir())
	const name = "api_v1.example.test"
	cert, err := ca.Leaf(name)
	if err != nil {
		t.Fatal(err)
	}
	c := cert.Leaf
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	now := time.Now()
	for _, at := range []time.Time{now, now.AddDate(0, -11, 0), now.AddDate(0, 0, 20)} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: at}); err != nil {
			t.Errorf("at %v: %v", at, err)
		}
	}
	if !slices.Equal(c.DNSNames, []string{name}) || len(c.Subject.Names) != 0 || len(c.IPAddresses) != 0 {
		t.Errorf("identity: subject %q, names %q, addresses %v", c.Subject, c.DNSNames, c.IPAddresses)
	}
	if c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("CA %v, usage %b, extended %v", c.IsCA, c.KeyUsage, c.ExtKeyUsage)
	}
	other, err := ca.Leaf("other.example.test")
	if err != nil {
		t.Fatal(err)
	}
	if other.Leaf.SerialNumber.Cmp(c.SerialNumber) == 0 || other.PrivateKey != cert.PrivateKey {
		t.Error("leaves share a serial or do not share a key")
	}
}

func TestLeafRefusesNames(t *testing.T) {
	ca := openCA(t, t.TempDir())
	for _, name := range []string{
		"", "Api.example.test", "api.example.test.", "*.example.test", "192.0.2.1", "::1", "localhost", "a.test:443", "a\x00.test", "ü.test",
	} {
		var ne *routes.NameError
		if _, err := ca.Leaf(name); !errors.As(err, &ne) {
			t.Errorf("%q: %v", name, err)
		}
		if cfg, err := ca.ServerConfig(name, nil); cfg != nil || !errors.As(err, &ne) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if len(ca.leaves) != 0 {
		t.Errorf("%d leaves minted", len(ca.leaves))
	}
}

func TestLeafCache(t *testing.T) {
	now := time.Now()
	ca, err := OpenCA(t.TempDir(), "dev", func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	leafOf := func(name string) *tls.Certificate {
		t.Helper()
		cert, err := ca.Leaf(name)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	served := func() *x509.Certificate {
		t.Helper()
		cfg, err := ca.ServerConfig("a.example.test", nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Certificates[0].Leaf
	}
	first := leafOf("a.example.test")
	if leafOf("a.example.test") != first || served() != first.Leaf {
		t.Error("minted twice")
	}
	now = first.Leaf.NotAfter.Add(-leafRenew - time.Second)
	if leafOf("a.example.test") != first {
		t.Error("replaced too early")
	}
	now = first.Leaf.NotAfter.Add(-leafRenew)
	second := leafOf("a.example.test")
	if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) || served() != second.Leaf {
		t.Error("not replaced before its end")
	}
	for i := range maxLeaves {
		leafOf(fmt.Sprintf("n%d.example.test", i))
		leafOf("a.example.test") // stays recent
	}
	if ca.recent.Len() != maxLeaves || len(ca.leaves) != maxLeaves {
		t.Errorf("%d and %d leaves kept", ca.recent.Len(), len(ca.leaves))
	}
	if leafOf("a.example.test") != second {
		t.Error("the leaf in use went out of the cache")
	}
	if ca.leaves["n0.example.test"] != nil {
		t.Error("the leaf not used stayed in the cache")
	}
}

func TestLeafAtOnce(t *testing.T) {
	ca := openCA(t, t.TempDir())
	var wg sync.WaitGroup
	got := make([]*tls.Certificate, 16)
	for i := range got {
		wg.Go(func() { got[i], _ = ca.Leaf("a.example.test") })
	}
	wg.Wait()
	for _, g := range got {
		if g == nil || g != got[0] {
			t.Fatal("leaves minted at once for one name differ")
		}
	}
}

// handshake runs a handshake on loopback and returns both sides' errors and the client's state.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error, state tls.ConnectionState) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		s := tls.Server(c, server)
		if err = s.Handshake(); err == nil {
			_, err = s.Write([]byte("ok"))
		}
		done <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(c, client)
	if clientErr = tc.Handshake(); clientErr == nil {
		_, clientErr = tc.Read(make([]byte, 2))
	}
	state = tc.ConnectionState()
	_ = c.Close()
	return <-done, clientErr, state
}

func TestServerConfig(t *testing.T) {
	ca := openCA(t, t.TempDir())
	trust := x509.NewCertPool()
	trust.AddCert(ca.cert)
	server := func(alpn ...string) *tls.Config {
		cfg, err := ca.ServerConfig("a.example.test", alpn)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	client := func(set func(*tls.Config)) *tls.Config {
		cfg := &tls.Config{RootCAs: trust, ServerName: "a.example.test", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		if set != nil {
			set(cfg)
		}
		return cfg
	}
	for name, c := range map[string]struct {
		server, client *tls.Config
		alpn           string
		version        uint16
	}{
		"1.3":        {server("h2", "http/1.1"), client(func(c *tls.Config) { c.NextProtos = []string{"http/1.1", "h2"} }), "h2", tls.VersionTLS13},
		"1.2":        {server(), client(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), "", tls.VersionTLS12},
		"no ALPN":    {server(), client(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), "", tls.VersionTLS13},
		"upper case": {server(), client(func(c *tls.Config) { c.ServerName = "A.example.test" }), "", tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			serverErr, clientErr, state := handshake(t, c.server, c.client)
			if serverErr != nil || clientErr != nil {
				t.Fatalf("server %v, client %v", serverErr, clientErr)
			}
			if state.NegotiatedProtocol != c.alpn || state.Version != c.version {
				t.Errorf("got %q, version %x", state.NegotiatedProtocol, state.Version)
			}
			if state.CurveID != tls.X25519 || state.HelloRetryRequest {
				t.Errorf("key exchange %v, retried %v", state.CurveID, state.HelloRetryRequest)
			}
		})
	}
	t.Run("1.1 refused", func(t *testing.T) {
		old := client(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
		if serverErr, _, _ := handshake(t, server(), old); ClassifyHandshake(serverErr) != NoCommon {
			t.Errorf("got %v", serverErr)
		}
	})
	t.Run("another name refused", func(t *testing.T) {
		for _, sni := range []string{"b.example.test", "a.example.test.evil.test"} {
			other := client(func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = sni, true })
			if serverErr, clientErr, _ := handshake(t, server(), other); !errors.Is(serverErr, errHelloName) || clientErr == nil {
				t.Errorf("%s: server %v, client %v", sni, serverErr, clientErr)
			}
		}
	})
	t.Run("shared by offer", func(t *testing.T) {
		both, none := server("h2", "http/1.1"), server()
		if server("h2", "http/1.1") != both || server() != none {
			t.Error("connections with one offer have configurations of their own")
		}
		if both == none || server("http/1.1", "h2") == both || server("h2") == both {
			t.Error("another offer got the same configuration")
		}
	})
	t.Run("caller's ALPN is not kept", func(t *testing.T) {
		alpn := []string{"h2"}
		cfg := server(alpn...)
		if alpn[0] = "evil"; cfg.NextProtos[0] != "h2" {
			t.Error("the configuration changed with the caller's slice")
		}
	})
}

func BenchmarkLeafMint(b *testing.B) {
	ca := openCA(b, b.TempDir())
	for b.Loop() {
		if _, err := ca.mint("a.example.test"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkServerConfig(b *testing.B) {
	ca := openCA(b, b.TempDir())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ca.ServerConfig("a.example.test", nil); err != nil {
			b.Fatal(err)
		}
	}
}

// TestGuestClocks: a guest whose clock is off by a year and more, or ahead, takes an old leaf and a fresh one.
func TestGuestClocks(t *testing.T) {
	now := time.Now()
	ca, err := OpenCA(t.TempDir(), "dev", func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	const day = 24 * time.Hour
	for _, minted := range []time.Duration{0, leafLife - leafRenew - time.Minute} { // just now, and as long ago as may be
		cert, err := ca.mint("a.example.test")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			off  time.Duration
			want bool
		}{{0, true}, {-366 * day, true}, {-700 * day, true}, {-800 * day, false}, {day, true}, {9 * day, true}, {40 * day, false}} {
			_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "a.example.test", CurrentTime: now.Add(minted + c.off)})
			if (err == nil) != c.want {
				t.Errorf("minted %s ago, clock off by %s: %v", minted, c.off, err)
			}
		}
		if life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore); life > 825*day {
			t.Errorf("a leaf of %s: some clients accept no more than 825 days", life)
		}
	}
	if age := now.Sub(ca.cert.NotBefore); age < 5*365*day {
		t.Errorf("the authority begins only %s ago", age)
	}
}
