package vmimage

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
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatewayd/lab/privileged"
)

// javaClient fetches a URL and prints the body.
const javaClient = `import java.net.*;
public class Get {
  public static void main(String[] a) throws Exception {
    System.out.println(new String(new URL(a[0]).openStream().readAllBytes()));
  }
}`

// TestJavaTrusts: Java, told of the store as the guest's environment tells it,
// takes a certificate that only the store knows.
func TestJavaTrusts(t *testing.T) {
	privileged.Require(t, privileged.Program("javac", "java", "keytool"))
	der, key := selfSigned(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("trusted")) }))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()

	dir := t.TempDir()
	file := func(name string, data []byte) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	added := func(name string, store []byte) string {
		t.Helper()
		more, err := AddTrusted(store, "gatewayd-dev", der)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again, err := AddTrusted(more, "other", der); err != nil || !bytes.Equal(again, more) {
			t.Errorf("%s: a second time it changes: %v", name, err)
		}
		return file(name, more)
	}
	source := file("Get.java", []byte(javaClient))
	other, _ := selfSigned(t)
	base := trustStore(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other}))
	plain := keytool(t, dir, other, "plain.p12", "-J-Dkeystore.pkcs12.macAlgorithm=NONE", "-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE")
	sealed := keytool(t, dir, other, "sealed.p12")
	if _, err := AddTrusted(sealed, "x", der); !errors.Is(err, ErrStorePassword) {
		t.Errorf("a sealed store: %v", err)
	}
	for name, c := range map[string]struct{ store, want string }{
		"the guest's own":   {file("ca-bundle.jks", trustStore(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), "trusted"},
		"JKS":               {added("jks", base), "trusted"},
		"PKCS #12":          {added("p12", plain), "trusted"},
		"without the store": {file("without", base), "SSLHandshakeException"},
	} {
		cmd := exec.CommandContext(t.Context(), "java", source, srv.URL)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=" + c.store}
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), c.want) { // the last exits with an error
			t.Errorf("%s: %s", name, out)
		}
		if c.store == filepath.Join(dir, "without") || name == "the guest's own" {
			continue
		}
		out, err := exec.CommandContext(t.Context(), "keytool", "-list", "-keystore", c.store, "-storepass", "changeit").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "contains 2 entries") || !strings.Contains(string(out), "gatewayd-dev,") {
			t.Errorf("%s: keytool: %v\n%s", name, err, out)
		}
	}
}

// TestJavaReadsTheSystemsStore adds to the store that the distribution's Java has.
func TestJavaReadsTheSystemsStore(t *testing.T) {
	const system = "/etc/ssl/certs/java/cacerts"
	privileged.Require(t, privileged.Program("keytool"), func() error { _, err := os.Stat(system); return err })
	list := func(store string) string {
		out, err := exec.CommandContext(t.Context(), "keytool", "-list", "-keystore", store, "-storepass", "changeit").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	data, err := os.ReadFile(system)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := selfSigned(t)
	more, err := AddTrusted(data, "gatewayd-dev", der)
	if err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(t.TempDir(), "cacerts")
	if err := os.WriteFile(store, more, 0o600); err != nil {
		t.Fatal(err)
	}
	before, after := list(system), list(store)
	if strings.Count(after, "trustedCertEntry") != strings.Count(before, "trustedCertEntry")+1 || !strings.Contains(after, "gatewayd-dev,") {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestAddTrustedRefuses(t *testing.T) {
	good := trustStore(certificate("a"))
	sealed := bytes.Clone(good)
	sealed[len(sealed)-1] ^= 1
	for name, c := range map[string]struct {
		store []byte
		alias string
		want  error
	}{
		"nothing":        {nil, "x", ErrStoreFormat},
		"text":           {[]byte("-----BEGIN"), "x", ErrStoreFormat},
		"only the magic": {good[:4], "x", ErrStoreFormat},
		"other password": {sealed, "x", ErrStorePassword},
		"JCEKS":          {append([]byte{0xce, 0xce, 0xce, 0xce}, good[4:]...), "x", ErrStoreFormat},
	} {
		if got, err := AddTrusted(c.store, c.alias, []byte("der")); got != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, alias := range []string{"Upper", "ümlaut", strings.Repeat("x", maxAlias+1)} {
		if _, err := AddTrusted(good, alias, []byte("der")); err == nil {
			t.Errorf("alias %q was taken", alias)
		}
	}
}

// FuzzAddTrusted: a store of whatever bytes gives an error, or a store that holds the certificate.
func FuzzAddTrusted(f *testing.F) {
	f.Add(trustStore(certificate("a")))
	f.Add([]byte("\x30\x1c\x02\x01\x03\x30\x17\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x0a\x04\x08\x30\x00"))
	f.Fuzz(func(t *testing.T, store []byte) {
		der := []byte("a certificate")
		more, err := AddTrusted(store, "x", der)
		if err != nil {
			return
		}
		if again, err := AddTrusted(more, "x", der); err != nil || !bytes.Contains(more, der) || !bytes.Equal(again, more) {
			t.Fatalf("%x became %x: %v", store, more, err)
		}
	})
}

// keytool makes a key store with one certificate that is trusted.
func keytool(t *testing.T, dir string, der []byte, name string, options ...string) []byte {
	t.Helper()
	cert, store := filepath.Join(dir, name+".pem"), filepath.Join(dir, name)
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(options, "-importcert", "-noprompt", "-alias", "first", "-file", cert, "-keystore", store, "-storetype", "PKCS12", "-storepass", "changeit")
	if out, err := exec.CommandContext(t.Context(), "keytool", args...).CombinedOutput(); err != nil {
		t.Fatalf("keytool: %v\n%s", err, out)
	}
	data, err := os.ReadFile(store)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// selfSigned makes a certificate for a server on this machine that is its own authority.
func selfSigned(t *testing.T) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test's own"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}
