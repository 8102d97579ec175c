package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"gatewayd/lab"
)

// TestUpstreamIdentity: a credential goes to nobody who is not the host.
func TestUpstreamIdentity(t *testing.T) {
	b, _ := clientsBench(t)
	other, err := lab.NewCA("Some Other CA")
	if err != nil {
		t.Fatal(err)
	}
	impostors := map[string]func(string) (*tls.Certificate, error){
		"another authority": other.Leaf,
		"another name":      func(string) (*tls.Certificate, error) { return b.Internet.CA.Leaf("evil.example.org") },
	}
	b.start(clientsManifest)
	for name, leaf := range impostors {
		at := netip.AddrPortFrom(b.Internet.NewAddress(), 443)
		got := make(chan []byte, 8)
		err := b.Internet.ServeTCP(at, func(ctx context.Context, c net.Conn) {
			s := tls.Server(c, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return leaf(h.ServerName) }})
			_ = s.HandshakeContext(ctx) // refused, if all is well
			head := make([]byte, 4096)
			n, _ := s.Read(head) // nothing, if all is well
			got <- head[:n]
		})
		if err != nil {
			t.Fatal(err)
		}
		b.Internet.Names.SetTTL("api.example.org", 0, at.Addr())
		// The gateway may remember the last answer for as long as it said.
		seen := b.get("https://api.example.org/thing")
		eventually(t, func() error {
			if seen = b.get("https://api.example.org/thing"); seen.Status == 200 {
				return fmt.Errorf("still the old address")
			}
			return nil
		})
		if seen.Status != 502 || !strings.Contains(seen.Body, "certificate") {
			t.Errorf("%s: %+v, want 502 and why", name, seen)
		}
		select {
		case head := <-got:
			if len(head) > 0 {
				t.Errorf("%s: the impostor got %q", name, head)
			}
		case <-time.After(patience):
			t.Errorf("%s: the impostor was not tried, so nothing was shown", name)
		}
	}
}

// TestGuestThatDoesNotTrust: the record says what is wrong with the guest.
func TestGuestThatDoesNotTrust(t *testing.T) {
	b, _ := clientsBench(t)
	b.start(clientsManifest)
	var env []string
	for _, kv := range b.Bottle.Env {
		if !strings.HasPrefix(kv, "SSL_CERT_FILE=") {
			env = append(env, kv)
		}
	}
	b.Bottle.Env = env
	if seen := b.get("https://api.example.org/thing"); seen.Status != 0 {
		t.Fatalf("the guest trusts without being told to: %+v", seen)
	}
	eventually(t, func() error {
		audit, err := os.ReadFile(b.Gateway.AuditFile)
		if err != nil || !bytes.Contains(audit, []byte("trust")) {
			return fmt.Errorf("no record says that the guest does not trust the CA (%w)", err)
		}
		return nil
	})
}

// TestTruncatedAnswersStayTruncated: an answer that the server breaks off must
// not look whole to the guest.
func TestTruncatedAnswersStayTruncated(t *testing.T) {
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{"files.example.org"}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", "100000")
		}
		_, _ = io.WriteString(w, "part") // then the end
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})})
	b.start(oneRoute)
	for _, path := range []string{"/chunked", "/length"} {
		seen := b.get("https://files.example.org" + path)
		if seen.Error == "" {
			t.Errorf("%s HTTP/2: %+v, want an error", path, seen)
		}
		r := b.client("raw", "files.example.org:443", `GET `+path+` HTTP/1.1\r\nHost: files.example.org\r\n\r\n`)
		if strings.Contains(r.Out, "\r\n0\r\n\r\n") || !strings.Contains(r.Out, "part") {
			t.Errorf("%s HTTP/1.1: %v", path, r)
		}
	}
}

// TestSmuggling sends what two parsers could read in two ways.
func TestSmuggling(t *testing.T) {
	b, api := clientsBench(t)
	b.start(clientsManifest)
	const to = "api.example.org:443"
	second := `GET /second HTTP/1.1\r\nHost: api.example.org\r\n\r\n`
	for name, words := range map[string]string{
		"CL and TE":           `POST /a HTTP/1.1\r\nHost: api.example.org\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n` + second,
		"two CL":              `POST /a HTTP/1.1\r\nHost: api.example.org\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n` + second,
		"odd TE":              `POST /a HTTP/1.1\r\nHost: api.example.org\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n` + second,
		"bare LF":             `GET /a HTTP/1.1\nHost: api.example.org\n\n`,
		"folded":              `GET /a HTTP/1.1\r\nHost: api.example.org\r\nX: a\r\n b\r\n\r\n`,
		"space before colon":  `GET /a HTTP/1.1\r\nHost: api.example.org\r\nX : a\r\n\r\n`,
		"no Host":             `GET /a HTTP/1.1\r\n\r\n`,
		"two Hosts":           `GET /a HTTP/1.1\r\nHost: api.example.org\r\nHost: evil.example.org\r\n\r\n`,
		"another Host":        `GET /a HTTP/1.1\r\nHost: evil.example.org\r\n\r\n`,
		"another in the form": `GET https://evil.example.org/a HTTP/1.1\r\nHost: api.example.org\r\n\r\n`,
		"TRACE":               `TRACE /a HTTP/1.1\r\nHost: api.example.org\r\n\r\n`,
		"CONNECT":             `CONNECT evil.example.org:443 HTTP/1.1\r\nHost: evil.example.org:443\r\n\r\n`,
		"HTTP/2 by surprise":  `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
		"NUL in the path":     `GET /a\x00b HTTP/1.1\r\nHost: api.example.org\r\n\r\n`,
		"hop-by-hop token":    `GET /a HTTP/1.1\r\nHost: api.example.org\r\nConnection: authorization\r\n\r\n`,
		"h2c":                 `GET /a HTTP/1.1\r\nHost: api.example.org\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n`,
	} {
		api.Forget()
		r := b.client("raw", to, words)
		for _, seen := range api.Requests() {
			if name != "h2c" || seen.Header.Get("Upgrade") != "" {
				t.Errorf("%s: the server saw %s %s %v", name, seen.Method, seen.URI, seen.Header)
			}
		}
		if name != "h2c" && !strings.Contains(r.Out, "HTTP/1.1 4") && !strings.Contains(r.Out, "HTTP/1.1 5") {
			t.Errorf("%s: want a refusal: %v", name, r)
		}
		if strings.Count(r.Out, "HTTP/1.1 ") > 1 {
			t.Errorf("%s: more than one answer: %v", name, r)
		}
	}
	// The second request of a connection is judged like the first.
	api.Forget()
	r := b.client("raw", to, `GET /one HTTP/1.1\r\nHost: api.example.org\r\n\r\nGET /two HTTP/1.1\r\nHost: evil.example.org\r\n\r\n`)
	if seen := api.Requests(); len(seen) != 1 || seen[0].URI != "/one" || !strings.Contains(r.Out, "HTTP/1.1 200") || !strings.Contains(r.Out, "HTTP/1.1 421") {
		t.Errorf("the server saw %d requests: %v", len(seen), r)
	}
}

// TestLeaks sends the bottle's dummy to a host that it is not for, in every
// place.
func TestLeaks(t *testing.T) {
	b, api := clientsBench(t)
	packages := b.serve(&lab.Site{Names: []string{"packages.example.org"}})
	b.start(clientsManifest)
	dummy := b.guestEnv("API_TOKEN")
	post := func(body string) string {
		return fmt.Sprintf(`POST /a HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s`, len(body), body)
	}
	for name, words := range map[string]string{
		"header":  `GET /a HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\nX-Note: about ` + dummy + ` here\r\n\r\n`,
		"path":    `GET /a/` + dummy + ` HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\n\r\n`,
		"query":   `GET /a?t=` + dummy + ` HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\n\r\n`,
		"bearer":  `GET /a HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\nAuthorization: Bearer ` + dummy + `\r\n\r\n`,
		"body":    post("token=" + dummy),
		"chunked": fmt.Sprintf(`POST /a HTTP/1.1\r\nHost: packages.example.org\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n`, 10, dummy[:10], len(dummy)-10, dummy[10:]),
	} {
		packages.Forget()
		r := b.client("raw", "packages.example.org:443", words)
		for _, seen := range packages.Requests() {
			if strings.Contains(seen.URI+fmt.Sprint(seen.Header)+string(seen.Body), dummy) {
				t.Errorf("%s: the server saw the dummy: %+v", name, seen)
			}
		}
		if !strings.Contains(r.Out, "HTTP/1.1 403") {
			t.Errorf("%s: want 403: %v", name, r)
		}
	}
	if seen := b.get("-header", "Authorization: Bearer "+dummy, "https://api.example.org/"); seen.Status != 200 {
		t.Errorf("towards its own host: %+v", seen)
	}
	if n := len(api.Requests()); n != 1 {
		t.Errorf("its own host saw %d requests", n)
	}
}

// TestAnyResolverIsTheGateways: whatever resolver a guest asks, the gateway
// answers, and the question goes nowhere else.
func TestAnyResolverIsTheGateways(t *testing.T) {
	b := newBench(t, nil)
	files := b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.start(oneRoute)
	ns, err := lab.OpenNamespace(b.BottleNetns(bottleName))
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		var reply *dns.Msg
		err := ns.Do(func() error {
			c, err := dns.DialTimeout(network+"4", "198.19.200.200:53", 2*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			reply, _, err = new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("files.example.org.", dns.TypeA), c)
			return err
		})
		if err != nil || len(addresses(reply)) != 1 || addresses(reply)[0] != files.Addr.String() {
			t.Errorf("%s: %v %v", network, reply, err)
		}
	}
	b.nothingElse(files.Addr)
}

// TestWildcards: one label's worth of names, and not a channel.
func TestWildcards(t *testing.T) {
	b := newBench(t, nil)
	site := b.serve(&lab.Site{Names: []string{"one.files.example.org", "deep.er.files.example.org", "files.example.org"}})
	b.start("egress:\n  routes:\n    - host: \"*.files.example.org\"\n")
	if err := b.allows("https://one.files.example.org/"); err != nil {
		t.Error(err)
	}
	if err := b.denies("https://files.example.org/"); err != nil {
		t.Errorf("the suffix itself: %v", err)
	}
	const encoded = "nbswy3dpeblw64tmmqqhi2djomqgs4zamfxca3dpnztsa3lfonzwcz3feba.files.example.org"
	b.lookup(encoded, dns.TypeA)
	if b.Internet.Names.Asked(encoded) {
		t.Error("a label that is data was asked for on the internet")
	}
	b.nothingElse(site.Addr)
}

// TestCrowdedBottle: one bottle that takes all it can get takes nothing from
// another.
func TestCrowdedBottle(t *testing.T) {
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{"files.example.org"}})
	if err := b.Gateway.WriteManifest("other", strings.NewReplacer("bottle: dev", "bottle: other", b.BottleNetns(bottleName), b.BottleNetns("other")).Replace(b.manifest(oneRoute))); err != nil {
		t.Fatal(err)
	}
	b.start(oneRoute)
	crowd := b.secondBottle("other")
	base, err := b.Gateway.ResidentBytes()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := crowd.Guest
	g.Env = append(append([]string{}, g.Env...), clientVariable+"=crowd")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := make(lines, 16)
	p, err := g.Start(ctx, nil, said, nil, self, "198.19.200.200:443", "3000")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-said:
		t.Logf("the crowd: %s", strings.TrimSpace(line))
	case <-time.After(2 * time.Minute):
		t.Fatal("the crowd has not formed")
	}
	for range 5 {
		if err := b.allows("https://files.example.org/"); err != nil {
			t.Error(err)
		}
	}
	most, err := b.Gateway.ResidentBytes()
	if err != nil || most > base+96<<20 {
		t.Errorf("memory grew from %d to %d MiB (%v)", base>>20, most>>20, err)
	}
	cancel()
	_ = p.Wait() // killed
}

// lines passes on what is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// TestNothingPilesUp makes many requests, some of them given up half way, and
// counts what gatewayd holds after each batch.
func TestNothingPilesUp(t *testing.T) {
	b, _ := streamsBench(t)
	batch := func() {
		t.Helper()
		for _, host := range []string{"plain.example.org", "api.example.org", "direct.example.org"} {
			if r := b.client("batch", "https://"+host+"/bulk", "120", "12"); r.Failed != nil {
				t.Errorf("%s: %v", host, r)
			}
		}
	}
	descriptors := func() int {
		t.Helper()
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.Gateway.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	batch()
	first := descriptors()
	for range 3 {
		batch()
	}
	const slack = 30 // connections in pools, and some that are just ending
	eventually(t, func() error {
		if n := descriptors(); n > first+slack {
			return fmt.Errorf("%d descriptors after one batch, %d after four", first, n)
		}
		return nil
	})
}
