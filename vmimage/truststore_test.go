package vmimage

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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
	privileged.Require(t, privileged.Program("javac", "java"))
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
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("trusted")) }))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()

	dir := t.TempDir()
	store, source := filepath.Join(dir, "ca-bundle.jks"), filepath.Join(dir, "Get.java")
	if err := os.WriteFile(store, trustStore(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(source, []byte(javaClient), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"with the store":    {[]string{"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=" + store}, "trusted"},
		"without the store": {nil, "SSLHandshakeException"},
	} {
		cmd := exec.CommandContext(t.Context(), "java", source, srv.URL)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, c.env...)
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), c.want) { // the second exits with an error
			t.Errorf("%s: %s", name, out)
		}
	}
}
