package e2e

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"testing"

	"gatewayd/lab/privileged"
)

// TestFastPathHelloRetry calls a server that takes nothing but P-384 with clients that offer shares of other groups first:
// it asks for a second hello (RFC 8446 section 4.1.4), and the kernel carries the connection to its end.
func TestFastPathHelloRetry(t *testing.T) {
	const host = "direct.example.org"
	privileged.Require(t, privileged.Root, privileged.Program("openssl"))
	b := newBench(t, nil)
	var retries atomic.Int64
	b.serveEcho(host, &tls.Config{
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.CurveP384},
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.HelloRetryRequest {
				retries.Add(1)
			}
			return nil
		},
	})
	b.start(fastManifest)
	trustInternet(b)
	if r := b.client("ping", host); r.Failed != nil {
		t.Errorf("Go: %v", r)
	}
	if r := b.run("openssl", "s_client", "-brief", "-verify_return_error", "-CAfile", b.guestEnv("SSL_CERT_FILE"),
		"-groups", "X25519:P-384", "-servername", host, "-connect", host+":443"); r.Failed != nil {
		t.Errorf("OpenSSL: %v", r)
	}
	if n := retries.Load(); n != 2 {
		t.Errorf("the server asked %d clients for a second hello, want 2", n)
	}
	eventually(t, func() error {
		if n := len(b.fastRecords(host)); n != 2 {
			return fmt.Errorf("%d records of the fast path", n)
		}
		return nil
	})
	b.mustHaveLane(host, "fastpath")
	for _, r := range b.fastRecords(host) {
		if r.Decision != "passthrough" {
			t.Errorf("the record is %+v", r)
		}
	}
}
