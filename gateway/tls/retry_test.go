package tls

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	ctls "crypto/tls"
)

// hello13 builds a TLS 1.3 ClientHello for name with a share of X25519, or with none, which makes a server ask again.
func hello13(name string, share bool) []byte {
	shares := vec16(nil)
	if share {
		key := make([]byte, 32)
		_, _ = rand.Read(key)
		shares = vec16(append([]byte{0, 29}, vec16(key)...))
	}
	return hello{exts: [][]byte{
		sni(name), ext(extSupportedVersions, []byte{2, 3, 4}), ext(10, []byte{0, 2, 0, 29}), ext(13, []byte{0, 2, 4, 3}), ext(51, shares),
	}}.bytes()
}

// The flow is judged by its first hello. A HelloRetryRequest (RFC 8446 §4.1.4) gives the guest a second one, which must not
// name another host.
func TestSecondHelloKeepsTheName(t *testing.T) {
	ca := openCA(t, t.TempDir())
	for second, same := range map[string]bool{"a.example.test": true, "b.example.test": false} {
		cfg, err := ca.ServerConfig("a.example.test", nil)
		if err != nil {
			t.Fatal(err)
		}
		guest, gateway := net.Pipe()
		_ = guest.SetDeadline(time.Now().Add(10 * time.Second))
		done := make(chan error, 1)
		go func() {
			err := ctls.Server(gateway, cfg).Handshake()
			gateway.Close()
			done <- err
		}()
		if _, err := guest.Write(record(hello13("a.example.test", false))); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 4096)
		n, err := guest.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		magic := sha256.Sum256([]byte("HelloRetryRequest")) // RFC 8446 §4.1.3
		if !bytes.Contains(answer[:n], magic[:]) {
			t.Fatalf("the server did not ask again: %x", answer[:n])
		}
		again := record(hello13(second, true))
		again[2] = 3 // RFC 8446 §5.1: 0x0303 in all records but the first hello's
		go func() { _, _ = guest.Write(again) }()
		rest, _ := io.ReadAll(io.LimitReader(guest, 200))
		guest.Close()
		err = <-done
		// A ServerHello is a long handshake record; a refusal is an alert, at most behind a change_cipher_spec.
		if served := len(rest) > 100; served != same {
			t.Errorf("second hello for %s: %d bytes, %v", second, len(rest), err)
		}
		if !same && (err == nil || errors.Is(err, io.EOF)) {
			t.Errorf("second hello for %s: %v", second, err)
		}
	}
}
