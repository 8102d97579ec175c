package tls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatewayd/lab/privileged"
)

// guestError runs one server-side handshake for a.example.test against whatever client does with the address, and returns the
// error of the handshake, or of the first read after it: in TLS 1.2 a client's alert may come later.
func guestError(t *testing.T, ca *CA, set func(*tls.Config), client func(addr string)) error {
	t.Helper()
	cfg, err := ca.ServerConfig("a.example.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(cfg)
	}
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
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		s := tls.Server(c, cfg)
		if err = s.Handshake(); err == nil {
			_, err = s.Read(make([]byte, 1))
		}
		done <- err
	}()
	client(l.Addr().String())
	return <-done
}

// Real clients that do not have the bottle's authority: each must be told from other failures, whatever its TLS stack says.
func TestClassifyDistrustOfRealClients(t *testing.T) {
	ca := openCA(t, t.TempDir())
	empty := filepath.Join(t.TempDir(), "other.pem")
	write(t, empty, openCA(t, t.TempDir()).CertPEM())
	dir := t.TempDir()
	clients := map[string]struct {
		program string
		args    func(host, port string) []string
		want    HandshakeFailure
	}{
		"curl": {"curl", func(_, port string) []string {
			return []string{"-sS", "--noproxy", "*", "--cacert", empty, "--connect-to", "::127.0.0.1:" + port, "https://a.example.test/"}
		}, GuestDistrustsCA},
		"curl 1.2": {"curl", func(_, port string) []string {
			return []string{"-sS", "--noproxy", "*", "--tls-max", "1.2", "--cacert", empty, "--connect-to", "::127.0.0.1:" + port, "https://a.example.test/"}
		}, GuestDistrustsCA},
		"openssl": {"openssl", func(host, port string) []string {
			return []string{"s_client", "-CAfile", empty, "-no-CApath", "-verify_return_error", "-servername", "a.example.test", "-connect", host + ":" + port}
		}, GuestDistrustsCA},
		"openssl 1.2": {"openssl", func(host, port string) []string {
			return []string{"s_client", "-tls1_2", "-CAfile", empty, "-no-CApath", "-verify_return_error", "-servername", "a.example.test", "-connect", host + ":" + port}
		}, GuestDistrustsCA},
		"python": {"python3", func(host, port string) []string {
			return []string{"-c", `import socket, ssl, sys
c = ssl.create_default_context(cafile=sys.argv[3])
c.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10), server_hostname="a.example.test")`, host, port, empty}
		}, GuestDistrustsCA},
		"git": {"git", func(_, port string) []string {
			return []string{"-c", "http.curloptResolve=a.example.test:" + port + ":127.0.0.1", "-c", "http.sslCAInfo=" + empty,
				"ls-remote", "https://a.example.test:" + port + "/x"}
		}, GuestClosed},
		// GnuTLS (git, above) and Node.js complete the handshake, look at the certificate and hang up: to a server no different
		// from a guest that changed its mind.
		"node": {"node", func(host, port string) []string {
			return []string{"-e", `require("tls").connect({host: process.argv[1], port: +process.argv[2], servername: "a.example.test"}).on("error", () => process.exit(1))`, host, port}
		}, GuestClosed},
	}
	for name, c := range clients {
		t.Run(name, func(t *testing.T) {
			privileged.Require(t, privileged.Program(c.program))
			path, err := exec.LookPath(c.program)
			if err != nil {
				t.Fatal(err)
			}
			got := guestError(t, ca, nil, func(addr string) {
				host, port, _ := net.SplitHostPort(addr)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				cmd := exec.CommandContext(ctx, path, c.args(host, port)...)
				cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
				if out, err := cmd.CombinedOutput(); err == nil {
					t.Errorf("the client was content: %s", out)
				}
			})
			t.Logf("crypto/tls says: %v", got)
			if f := ClassifyHandshake(got); f != c.want {
				t.Errorf("%v is classified %v, want %v", got, f, c.want)
			}
		})
	}
}

// The same clients with the authority in the trust store that they read: a leaf with an empty subject and a critical
// subjectAltName (RFC 5280 §4.2.1.6) is fine with all of them.
func TestRealClientsTrust(t *testing.T) {
	ca := openCA(t, t.TempDir())
	trust := filepath.Join(t.TempDir(), "trust.pem")
	write(t, trust, ca.CertPEM())
	dir := t.TempDir()
	for name, c := range map[string]struct {
		program string
		args    func(host, port string) []string
	}{
		"curl": {"curl", func(_, port string) []string {
			return []string{"-sS", "--noproxy", "*", "--cacert", trust, "--connect-to", "::127.0.0.1:" + port, "https://a.example.test/"}
		}},
		"openssl": {"openssl", func(host, port string) []string {
			return []string{"s_client", "-CAfile", trust, "-no-CApath", "-verify_return_error", "-verify_hostname", "a.example.test",
				"-servername", "a.example.test", "-connect", host + ":" + port}
		}},
		"python": {"python3", func(host, port string) []string {
			return []string{"-c", `import socket, ssl, sys
c = ssl.create_default_context(cafile=sys.argv[3])
s = c.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10), server_hostname="a.example.test")
s.send(b"x")
s.recv(1) # a socket that is closed with session tickets unread is reset, and what it sent is lost`, host, port, trust}
		}},
		"node": {"node", func(host, port string) []string {
			return []string{"-e", `const c = require("tls").connect({host: process.argv[1], port: +process.argv[2], servername: "a.example.test",
ca: require("fs").readFileSync(process.argv[3])}, () => c.write("x")).on("error", () => {})`, host, port, trust}
		}},
		"git": {"git", func(_, port string) []string {
			return []string{"-c", "http.curloptResolve=a.example.test:" + port + ":127.0.0.1", "-c", "http.sslCAInfo=" + trust,
				"ls-remote", "https://a.example.test:" + port + "/x"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			privileged.Require(t, privileged.Program(c.program))
			path, err := exec.LookPath(c.program)
			if err != nil {
				t.Fatal(err)
			}
			got := guestError(t, ca, nil, func(addr string) {
				host, port, _ := net.SplitHostPort(addr)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				cmd := exec.CommandContext(ctx, path, c.args(host, port)...)
				cmd.Dir, cmd.Env, cmd.Stdin = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, strings.NewReader("x\n")
				_ = cmd.Run() // nobody answers its request; what counts is that one comes
			})
			if got != nil {
				t.Errorf("no byte after the handshake: %v", got)
			}
		})
	}
}

func TestClassifyDistrustOfGo(t *testing.T) {
	ca := openCA(t, t.TempDir())
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		err := guestError(t, ca, nil, func(addr string) {
			c, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "a.example.test", RootCAs: x509.NewCertPool(), MaxVersion: version})
			if err == nil {
				t.Error("the client was content")
				c.Close()
			}
		})
		if f := ClassifyHandshake(err); f != GuestDistrustsCA {
			t.Errorf("version %x: %v is classified %v", version, err, f)
		}
	}
}

// Alerts as other stacks send them: rustls unknown_ca, or decrypt_error for an authority of the same subject; Java
// certificate_unknown; GnuTLS bad_certificate. They are put on the wire behind a TLS 1.2 hello, where alerts are in plaintext.
func TestClassifyAlerts(t *testing.T) {
	ca := openCA(t, t.TempDir())
	flight := recorded(t)["curl-tls12"]
	for code, want := range map[byte]HandshakeFailure{
		42: GuestDistrustsCA, 43: GuestDistrustsCA, 44: GuestDistrustsCA, 45: GuestClock, 46: GuestDistrustsCA,
		48: GuestDistrustsCA, 49: GuestDistrustsCA, 51: GuestDistrustsCA,
		40: NoCommon, 70: NoCommon, 71: NoCommon, 120: NoCommon,
		0: GuestClosed, 90: GuestClosed,
		10: Other, 20: Other, 22: Other, 47: Other, 50: Other, 80: Other, 109: Other, 112: Other, 200: Other,
	} {
		// The recorded hello asks for another name, so the check of the name is taken out.
		err := guestError(t, ca, func(cfg *tls.Config) { cfg.GetConfigForClient = nil }, func(addr string) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = c.Write(flight)
			_, _ = c.Read(make([]byte, 1<<14)) // the server's first flight has begun
			_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, code})
			_, _ = io.Copy(io.Discard, c)
		})
		if f := ClassifyHandshake(err); f != want {
			t.Errorf("alert %d: %v is classified %v, want %v", code, err, f, want)
		}
	}
}

// A plaintext alert in TLS 1.3, after the server has switched to reading ciphertext: what OpenSSL sends when it refuses.
func TestClassifyBadRecordMAC(t *testing.T) {
	ca := openCA(t, t.TempDir())
	flight := recorded(t)["go-classic"]
	err := guestError(t, ca, func(cfg *tls.Config) { cfg.GetConfigForClient = nil }, func(addr string) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = c.Write(flight)
		_, _ = c.Read(make([]byte, 1<<14))
		_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 48})
		_, _ = io.Copy(io.Discard, c)
	})
	if err == nil || !strings.Contains(err.Error(), "bad record MAC") || ClassifyHandshake(err) != GuestDistrustsCA {
		t.Errorf("%v is classified %v", err, ClassifyHandshake(err))
	}
}

func TestClassifyNoCommon(t *testing.T) {
	ca := openCA(t, t.TempDir())
	dial := func(cfg *tls.Config) func(string) {
		return func(addr string) {
			cfg.ServerName, cfg.InsecureSkipVerify = "a.example.test", true
			if c, err := tls.Dial("tcp", addr, cfg); err == nil {
				t.Error("the handshake succeeded")
				c.Close()
			}
		}
	}
	for what, c := range map[string]struct {
		set    func(*tls.Config)
		client *tls.Config
	}{
		"version": {nil, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}},
		"cipher":  {nil, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}},
		"group":   {nil, &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.CurveP521}}},
		"alpn":    {func(s *tls.Config) { s.NextProtos = []string{"h2"} }, &tls.Config{NextProtos: []string{"acme"}}},
	} {
		err := guestError(t, ca, c.set, dial(c.client))
		if f := ClassifyHandshake(err); f != NoCommon {
			t.Errorf("%s: %v is classified %v", what, err, f)
		}
	}
}

func TestClassifyClosedAndTimeout(t *testing.T) {
	ca := openCA(t, t.TempDir())
	flight := recorded(t)["curl"]
	gone := guestError(t, ca, nil, func(addr string) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = c.Write(flight[:100])
		c.Close()
	})
	if f := ClassifyHandshake(gone); f != GuestClosed {
		t.Errorf("%v is classified %v", gone, f)
	}
	guest, gateway := net.Pipe()
	defer guest.Close()
	defer gateway.Close()
	cfg, err := ca.ServerConfig("a.example.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := tls.Server(gateway, cfg).HandshakeContext(ctx); ClassifyHandshake(err) != HandshakeTimeout {
		t.Errorf("%v is classified %v", err, ClassifyHandshake(err))
	}
	for err, want := range map[error]HandshakeFailure{
		nil:                     Other,
		errors.New("something"): Other,
		errHelloName:            Other,
		os.ErrDeadlineExceeded:  HandshakeTimeout,
		net.ErrClosed:           GuestClosed,
		io.ErrUnexpectedEOF:     GuestClosed,
		&net.OpError{Op: "remote error", Err: errors.New("x")}: Other,
	} {
		if got := ClassifyHandshake(err); got != want {
			t.Errorf("%v is classified %v, want %v", err, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for k := NotTLS; k <= Closed; k++ {
		if k.String() == "unknown" {
			t.Errorf("kind %d has no word", k)
		}
	}
	if HelloKind(0).String() != "unknown" || HelloKind(99).String() != "unknown" {
		t.Error("a kind that is none has a word")
	}
	seen := make(map[string]bool)
	for f := Other; f <= NoCommon; f++ {
		seen[f.String()] = true
	}
	if len(seen) != int(NoCommon)+1 || HandshakeFailure(99).String() != "other" {
		t.Errorf("words %v", seen)
	}
}

// TestClassifyClock: a client at whose time the leaf is not valid says so if it is OpenSSL's and the leaf is past its end;
// what says less is taken for distrust.
func TestClassifyClock(t *testing.T) {
	privileged.Require(t, privileged.Program("openssl"))
	ca := openCA(t, t.TempDir())
	trust := filepath.Join(t.TempDir(), "trust.pem")
	write(t, trust, ca.CertPEM())
	for _, c := range []struct {
		name string
		at   time.Duration
		args []string
		want HandshakeFailure
	}{
		{"years ahead, TLS 1.2", 10 * 365 * 24 * time.Hour, []string{"-tls1_2"}, GuestClock},
		{"years behind, TLS 1.2", -5 * 365 * 24 * time.Hour, []string{"-tls1_2"}, GuestDistrustsCA},
		{"years ahead", 10 * 365 * 24 * time.Hour, nil, GuestDistrustsCA},
	} {
		got := guestError(t, ca, nil, func(addr string) {
			at := strconv.FormatInt(time.Now().Add(c.at).Unix(), 10)
			args := append([]string{"s_client", "-CAfile", trust, "-no-CApath", "-verify_return_error", "-attime", at,
				"-servername", "a.example.test", "-connect", addr}, c.args...)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if out, err := exec.CommandContext(ctx, "openssl", args...).CombinedOutput(); err == nil {
				t.Errorf("%s: the client was content: %s", c.name, out)
			}
		})
		if f := ClassifyHandshake(got); f != c.want {
			t.Errorf("%s: %v is classified %v, want %v", c.name, got, f, c.want)
		}
	}
}
