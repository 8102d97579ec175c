package demo

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// clientTimeout bounds everything that the client does, unless it is told
// otherwise.
const clientTimeout = 15 * time.Second

// Seen is what the client in the bottle has to tell.
type Seen struct {
	// Status, Proto, Header and Body are the answer's; the body is cut at 64 KiB.
	Status int         `json:"status,omitempty"`
	Proto  string      `json:"proto,omitempty"`
	Header http.Header `json:"header,omitempty"`
	Body   string      `json:"body,omitempty"`
	// Issuer is who signed the server's certificate, Certificate the SHA-256
	// of the certificate itself.
	Issuer      string `json:"issuer,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	// Refused says that a datagram was answered with ICMP port unreachable.
	Refused bool `json:"refused,omitempty"`
	// Milliseconds is how long it took.
	Milliseconds int64 `json:"milliseconds"`
	// Error is what went wrong, if anything.
	Error string `json:"error,omitempty"`
}

// clientArgs are the arguments of the client.
type clientArgs struct {
	udp     bool
	connect string
	host    string
	ca      string
	headers []string
	timeout time.Duration
	url     string
}

// Client is what ClientCommand runs inside the bottle: args are the arguments
// after the subcommand's name. It is an ordinary program: it takes its
// resolver from resolv.conf and its authorities from SSL_CERT_FILE. It writes
// one Seen as JSON to out and returns the exit code: 2 for wrong arguments,
// else 0, whatever it saw.
func Client(args []string, out io.Writer) int {
	var a clientArgs
	flags := flag.NewFlagSet(ClientCommand, flag.ContinueOnError)
	flags.BoolVar(&a.udp, "udp", false, "send a QUIC Initial to HOST:PORT in place of a request")
	flags.StringVar(&a.connect, "connect", "", "connect to this `address` whatever the URL says")
	flags.StringVar(&a.host, "host", "", "send this Host `name`")
	flags.StringVar(&a.ca, "ca", "", "trust this PEM `file` as well")
	flags.DurationVar(&a.timeout, "timeout", clientTimeout, "give up after this `time`")
	flags.Func("header", "send this header `line`", func(s string) error {
		a.headers = append(a.headers, s)
		return nil
	})
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		return 2
	}
	a.url = flags.Arg(0)
	ctx, cancel := context.WithTimeout(context.Background(), a.timeout)
	defer cancel()
	start := time.Now()
	do := a.request
	if a.udp {
		do = a.datagram
	}
	seen, err := do(ctx)
	if err != nil {
		seen.Error = err.Error()
	}
	seen.Milliseconds = time.Since(start).Milliseconds()
	if err := json.NewEncoder(out).Encode(seen); err != nil {
		return 1
	}
	return 0
}

func (a clientArgs) request(ctx context.Context) (Seen, error) {
	var seen Seen
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		return seen, fmt.Errorf("make request: %w", err)
	}
	req.Host = a.host
	for _, line := range a.headers {
		k, v, _ := strings.Cut(line, ":")
		req.Header.Set(k, strings.TrimSpace(v))
	}
	pool, err := a.roots()
	if err != nil {
		return seen, err
	}
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if a.connect != "" {
				addr = a.connect
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		DisableKeepAlives: true,
		ForceAttemptHTTP2: true,
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return seen, fmt.Errorf("get %s: %w", a.url, err)
	}
	defer resp.Body.Close()
	seen.Status, seen.Proto, seen.Header = resp.StatusCode, resp.Proto, resp.Header
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		leaf := resp.TLS.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		seen.Issuer, seen.Certificate = leaf.Issuer.CommonName, hex.EncodeToString(sum[:])
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	seen.Body = string(body)
	if err != nil {
		return seen, fmt.Errorf("read answer of %s: %w", a.url, err)
	}
	return seen, nil
}

// roots returns what SSL_CERT_FILE names and the -ca file, or nil, which is
// the system's, when neither is set.
func (a clientArgs) roots() (*x509.CertPool, error) {
	if a.ca == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool() // honours SSL_CERT_FILE
	if err != nil {
		return nil, fmt.Errorf("read the system's authorities: %w", err)
	}
	pem, err := os.ReadFile(a.ca)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read authority %s: no certificate in it", a.ca)
	}
	return pool, nil
}

// datagram sends what looks like the start of a QUIC connection and waits for
// an answer or a refusal.
func (a clientArgs) datagram(ctx context.Context) (Seen, error) {
	var seen Seen
	c, err := new(net.Dialer).DialContext(ctx, "udp4", a.url)
	if err != nil {
		return seen, fmt.Errorf("open QUIC: %w", err)
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(at); err != nil {
			return seen, fmt.Errorf("open QUIC: %w", err)
		}
	}
	if _, err := c.Write(quicInitial()); err != nil {
		return seen, fmt.Errorf("send QUIC Initial: %w", err)
	}
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	seen.Body = hex.EncodeToString(buf[:n])
	if errors.Is(err, syscall.ECONNREFUSED) {
		seen.Refused = true
		return seen, nil
	}
	if err != nil {
		return seen, fmt.Errorf("wait for an answer to QUIC: %w", err)
	}
	return seen, nil
}

// quicInitial has the shape of a client's first datagram (RFC 9000 §17.2.2):
// a long header, version 1, padded to the 1,200 bytes of §14.1. What is
// encrypted in a real one is zero here; a gateway never gets that far.
func quicInitial() []byte {
	b := make([]byte, 1200)
	copy(b, []byte{0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x9e})
	return b
}
