package tls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// openCA makes or loads the authority of a bottle called "dev".
func openCA(t testing.TB, dir string) *CA {
	t.Helper()
	ca, err := OpenCA(dir, "dev", nil)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestOpenCAMakesOnceAndKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "dev")
	first := openCA(t, dir)
	second := openCA(t, dir)
	if !bytes.Equal(first.CertPEM(), second.CertPEM()) || !first.key.Equal(second.key) {
		t.Error("the second start has another authority")
	}
	for name, mode := range map[string]os.FileMode{keyFile: 0o600, certFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, info.Mode(), err, mode)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("directory has %v, %v", entries, err)
	}
	onDisk, err := os.ReadFile(filepath.Join(dir, certFile))
	if err != nil || !bytes.Equal(onDisk, first.CertPEM()) {
		t.Errorf("%s is not CertPEM (%v)", certFile, err)
	}
}

func TestOpenCACertificate(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ca, err := OpenCA(t.TempDir(), "dev", func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	c := ca.cert
	if !c.IsCA || !c.BasicConstraintsValid || c.MaxPathLen != 0 || !c.MaxPathLenZero {
		t.Errorf("basic constraints: %v %v %d %v", c.IsCA, c.BasicConstraintsValid, c.MaxPathLen, c.MaxPathLenZero)
	}
	if c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.ExtKeyUsage) != 0 {
		t.Errorf("key usage %b, extended %v", c.KeyUsage, c.ExtKeyUsage)
	}
	if pub, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		t.Errorf("public key %T", c.PublicKey)
	}
	if c.NotBefore.After(at.AddDate(-5, 0, 0)) || c.NotAfter.Before(at.AddDate(10, 0, 0)) {
		t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
	}
	if len(c.SubjectKeyId) == 0 {
		t.Error("no subject key id")
	}
	block, rest := pem.Decode(ca.CertPEM())
	if block == nil || len(rest) != 0 || !bytes.Equal(block.Bytes, c.Raw) {
		t.Error("CertPEM is not one block with the certificate")
	}
}

func TestOpenCASubjectIsUnique(t *testing.T) {
	seen := make(map[string]bool)
	for range 4 {
		ca := openCA(t, t.TempDir())
		subject := string(ca.cert.RawSubject)
		if seen[subject] || !strings.Contains(ca.cert.Subject.String(), "dev") {
			t.Fatalf("subject %s", ca.cert.Subject)
		}
		seen[subject] = true
	}
}

func TestOpenCAAtOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	got := make([][]byte, 8)
	for i := range got {
		wg.Go(func() {
			if ca, err := OpenCA(dir, "dev", nil); err == nil {
				got[i] = ca.CertPEM()
			}
		})
	}
	wg.Wait()
	for _, g := range got {
		if g == nil || !bytes.Equal(g, got[0]) {
			t.Fatal("authorities opened at once differ")
		}
	}
}

// A start that was cut short after the key was written gets its certificate; what was lost is not made anew in silence.
func TestOpenCAAfterCrash(t *testing.T) {
	dir := t.TempDir()
	first := openCA(t, dir)
	if err := os.Remove(filepath.Join(dir, certFile)); err != nil {
		t.Fatal(err)
	}
	second := openCA(t, dir)
	if !second.key.Equal(first.key) || bytes.Equal(second.cert.RawSubject, first.cert.RawSubject) {
		t.Error("the key is not kept, or its new certificate has the old subject")
	}
}

func TestOpenCARefuses(t *testing.T) {
	at := func(dir, name string) string { return filepath.Join(dir, name) }
	cases := map[string]struct {
		spoil func(t *testing.T, dir string)
		want  []string // in the message
	}{
		"key readable by group": {func(t *testing.T, dir string) { chmod(t, at(dir, keyFile), 0o640) }, []string{keyFile, "mode 0640", "chmod 0600"}},
		"key readable by all":   {func(t *testing.T, dir string) { chmod(t, at(dir, keyFile), 0o604) }, []string{keyFile, "mode 0604"}},
		"writable certificate":  {func(t *testing.T, dir string) { chmod(t, at(dir, certFile), 0o666) }, []string{certFile, "chmod 0644"}},
		"writable directory":    {func(t *testing.T, dir string) { chmod(t, dir, 0o777) }, []string{"chmod go-w"}},
		"key lost":              {func(t *testing.T, dir string) { remove(t, at(dir, keyFile)) }, []string{keyFile, "restore the key", certFile}},
		"key empty":             {func(t *testing.T, dir string) { write(t, at(dir, keyFile), nil) }, []string{keyFile, "PRIVATE KEY"}},
		"key is a link": {func(t *testing.T, dir string) {
			if err := os.Rename(at(dir, keyFile), at(dir, "elsewhere")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("elsewhere", at(dir, keyFile)); err != nil {
				t.Fatal(err)
			}
		}, []string{keyFile, "symbolic link"}},
		"key is a directory": {func(t *testing.T, dir string) {
			remove(t, at(dir, keyFile))
			if err := os.Mkdir(at(dir, keyFile), 0o700); err != nil {
				t.Fatal(err)
			}
		}, []string{keyFile, "not a regular file"}},
		"key too long":   {func(t *testing.T, dir string) { write(t, at(dir, keyFile), make([]byte, maxCAFile+1)) }, []string{keyFile, "longer"}},
		"key garbled":    {func(t *testing.T, dir string) { write(t, at(dir, keyFile), pemBlock("PRIVATE KEY", []byte{1})) }, []string{keyFile, "PKCS #8"}},
		"key on P-384":   {func(t *testing.T, dir string) { write(t, at(dir, keyFile), ecKey(t, elliptic.P384())) }, []string{keyFile, "P-256"}},
		"key of another": {func(t *testing.T, dir string) { write(t, at(dir, keyFile), ecKey(t, elliptic.P256())) }, []string{certFile, "does not belong to", keyFile}},
		"certificate of another": {func(t *testing.T, dir string) {
			write(t, at(dir, certFile), openCA(t, t.TempDir()).CertPEM())
		}, []string{certFile, "does not belong to"}},
		"certificate empty":   {func(t *testing.T, dir string) { write(t, at(dir, certFile), nil) }, []string{certFile, "CERTIFICATE"}},
		"certificate garbled": {func(t *testing.T, dir string) { write(t, at(dir, certFile), pemBlock("CERTIFICATE", []byte{1})) }, []string{certFile}},
		"two certificates": {func(t *testing.T, dir string) {
			write(t, at(dir, certFile), bytes.Repeat(openCA(t, dir).CertPEM(), 2))
		}, []string{certFile, "more than one"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			openCA(t, dir)
			c.spoil(t, dir)
			_, err := OpenCA(dir, "dev", nil)
			if err == nil {
				t.Fatal("opened")
			}
			for _, w := range append(c.want, `"dev"`, dir) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("message %q lacks %q", err, w)
				}
			}
		})
	}
	t.Run("another bottle's", func(t *testing.T) {
		dir := t.TempDir()
		openCA(t, dir)
		if _, err := OpenCA(dir, "other", nil); err == nil || !strings.Contains(err.Error(), `authority of ["dev"], not of "other"`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("expired", func(t *testing.T) {
		dir := t.TempDir()
		openCA(t, dir)
		later := func() time.Time { return time.Now().Add(caLife - leafLife + time.Hour) }
		if _, err := OpenCA(dir, "dev", later); err == nil || !strings.Contains(err.Error(), "expires on") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no name", func(t *testing.T) {
		if _, err := OpenCA(t.TempDir(), "", nil); err == nil {
			t.Error("opened")
		}
	})
	t.Run("no directory", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		write(t, file, nil)
		if _, err := OpenCA(filepath.Join(file, "ca"), "dev", nil); err == nil {
			t.Error("opened")
		}
	})
}

// A key in the message of an error would end up in a log.
func TestOpenCAErrorsHoldNoKey(t *testing.T) {
	dir := t.TempDir()
	openCA(t, dir)
	b, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Split(string(b), "\n")[1]
	write(t, filepath.Join(dir, keyFile), bytes.Replace(b, []byte("MIG"), []byte("MIH"), 1))
	if _, err = OpenCA(dir, "dev", nil); err == nil || strings.Contains(err.Error(), body[:16]) {
		t.Fatalf("got %v", err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func pemBlock(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

func ecKey(t *testing.T, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemBlock("PRIVATE KEY", der)
}
