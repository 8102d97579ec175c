package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"gatewayd/lab"
)

// lookup asks the gateway from inside the bottle.
func (b *bench) lookup(name string, qtype uint16) *dns.Msg {
	b.t.Helper()
	var reply *dns.Msg
	ns, err := lab.OpenNamespace(b.BottleNetns(bottleName))
	if err != nil {
		b.t.Fatal(err)
	}
	err = ns.Do(func() error {
		c, err := dns.Dial("udp4", net.JoinHostPort(b.Bottle.Gateway.String(), "53"))
		if err != nil {
			return err
		}
		defer c.Close()
		reply, _, err = new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype), c)
		return err
	})
	if err != nil {
		b.t.Fatalf("look up %s: %v", name, err)
	}
	return reply
}

func addresses(m *dns.Msg) (list []string) {
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			list = append(list, a.A.String())
		}
	}
	return list
}

// problem is the body of a refusal.
type problem struct {
	Status int
	Rule   string
	Reason string
	Remedy string
	ID     string `json:"request_id"`
	Error  struct{ Message string }
}

func TestDeniedNamesStayInside(t *testing.T) {
	b := newBench(t, nil)
	evil := b.serve(&lab.Site{Names: []string{"evil.example.org"}})
	b.serve(&lab.Site{Names: []string{"evil.example.org"}, Addr: evil.Addr, Plain: true})
	files := b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.start(oneRoute)
	for _, name := range []string{"evil.example.org", "aGVsbG8.data.evil.example.org", "example.org"} {
		m := b.lookup(name, dns.TypeA)
		got := addresses(m)
		if len(got) != 1 || got[0] == evil.Addr.String() {
			t.Errorf("%s: %v, want the block address alone", name, m)
		}
		if b.Internet.Names.Asked(name) {
			t.Errorf("%s was asked for on the internet", name)
		}
	}
	if m := b.lookup("files.example.org", dns.TypeTXT); len(m.Answer) != 0 {
		t.Errorf("TXT: %v, want nothing", m)
	}
	for _, qtype := range []uint16{dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB} {
		if m := b.lookup("files.example.org", qtype); len(m.Answer) != 0 || m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %v, want no data", dns.TypeToString[qtype], m)
		}
	}
	for _, url := range []string{"https://evil.example.org/x", "http://evil.example.org/x"} {
		seen := b.get(url)
		var p problem
		if err := json.Unmarshal([]byte(seen.Body), &p); err != nil || seen.Status != 403 {
			t.Errorf("%s: %+v, %v", url, seen, err)
		}
		if p.Reason == "" || !strings.Contains(p.Remedy, "evil.example.org") || p.Error.Message == "" || !strings.Contains(seen.Header.Get("Content-Type"), "problem+json") {
			t.Errorf("%s: the refusal does not explain itself: %s", url, seen.Body)
		}
	}
	b.nothingElse(files.Addr)
}

func TestDeniedNamesAsNXDOMAIN(t *testing.T) {
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.start(oneRoute + "dns: { denied: nxdomain }\n")
	if m := b.lookup("evil.example.org", dns.TypeA); m.Rcode != dns.RcodeNameError || len(m.Answer) != 0 {
		t.Errorf("%v, want NXDOMAIN", m)
	}
	if got := addresses(b.lookup("files.example.org", dns.TypeA)); len(got) != 1 {
		t.Errorf("files.example.org: %v", got)
	}
}

// TestPrivateAnswers: a name of the plan that points inwards leads nowhere,
// though the address would answer.
func TestPrivateAnswers(t *testing.T) {
	b := newBench(t, nil)
	for _, a := range []netip.Addr{lab.Private, lab.Metadata} {
		b.serve(&lab.Site{Addr: a})
	}
	files := b.serve(&lab.Site{Names: []string{"files.example.org"}})
	names := map[string]netip.Addr{
		"files.example.org": lab.Private, "meta.example.org": lab.Metadata,
		"loop.example.org": netip.MustParseAddr("127.0.0.1"), "inside.example.org": lab.Private,
		"gateway.example.org": lab.GatewayUplink, "insidemeta.example.org": lab.Metadata,
	}
	for name, a := range names {
		b.Internet.Names.Set(name, a)
	}
	b.start(`
egress:
  routes:
    - { host: files.example.org }
    - { host: meta.example.org, pipelock: { tls_passthrough: true } }
    - { host: loop.example.org }
    - { host: gateway.example.org }
    - { host: inside.example.org, allow_private: true }
    - { host: insidemeta.example.org, allow_private: true }
`)
	for name := range names {
		if name == "inside.example.org" {
			continue
		}
		if err := b.denies("https://" + name + "/"); err != nil {
			t.Error(err)
		}
		if got := addresses(b.lookup(name, dns.TypeA)); len(got) > 0 && got[0] == names[name].String() {
			t.Errorf("%s: the guest was told %v", name, got)
		}
	}
	b.nothingElse(files.Addr)
	if err := b.allows("https://inside.example.org/"); err != nil {
		t.Errorf("allow_private: %v", err)
	}
	b.nothingElse(files.Addr, lab.Private)
}

// TestRebinding: the name's address turns inwards after the first answer.
func TestRebinding(t *testing.T) {
	b := newBench(t, nil)
	b.serve(&lab.Site{Addr: lab.Private})
	files := b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.Internet.Names.SetTTL("files.example.org", 0, files.Addr)
	b.start(oneRoute)
	if err := b.allows("https://files.example.org/"); err != nil {
		t.Fatal(err)
	}
	b.Internet.Names.SetTTL("files.example.org", 0, lab.Private)
	// Until the gateway has asked and dialled again, nothing is shown.
	eventually(t, func() error {
		files.CloseConnections() // or the gateway keeps to the one it has
		return b.denies("https://files.example.org/")
	})
	for _, at := range []netip.Addr{files.Addr, lab.Private} {
		if err := wantStatus(b.get("-connect", at.String()+":443", "https://files.example.org/"), 502); err != nil {
			t.Error(err)
		}
	}
	b.nothingElse(files.Addr)
}

func TestQUICIsRefusedAtOnce(t *testing.T) {
	b := newBench(t, nil)
	files := b.serve(&lab.Site{Names: []string{"files.example.org"}})
	b.start(oneRoute)
	for range 3 {
		seen := b.get("-udp", "files.example.org:443")
		if !seen.Refused || seen.Milliseconds > 1000 {
			t.Errorf("%+v, want refused within a second", seen)
		}
	}
	if err := b.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	udp := b.Internet.Counter.Sum(func(k lab.FlowKey) bool { return k.IPProtocol == unix.IPPROTO_UDP && k.Dst == files.Addr })
	if udp.Packets != 0 {
		t.Errorf("%d datagrams reached the server", udp.Packets)
	}
}

// TestServerSpeaksFirst: protocol tcp connects without waiting for the client.
func TestServerSpeaksFirst(t *testing.T) {
	b := newBench(t, nil)
	at := netip.AddrPortFrom(b.Internet.NewAddress(), 22)
	b.Internet.Names.Set("shell.example.org", at.Addr())
	err := b.Internet.ServeTCP(at, func(_ context.Context, c net.Conn) {
		_, _ = io.WriteString(c, "SSH-2.0-standin\n") // the client has gone
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			fmt.Fprintf(c, "echo %s\n", lines.Text())
		}
		_, _ = io.WriteString(c, "bye\n") // as above
	})
	if err != nil {
		t.Fatal(err)
	}
	b.start(`
egress:
  routes:
    - { host: shell.example.org, port: 22, protocol: tcp }
`)
	r := b.client("banner", "shell.example.org:22")
	if r.Failed != nil || r.Out != "SSH-2.0-standin\necho one\necho two\n" {
		t.Errorf("%v", r)
	}
	// The same port of an address that no name of the plan led to.
	other := netip.AddrPortFrom(b.Internet.NewAddress(), 22)
	if err := b.Internet.ServeTCP(other, func(_ context.Context, c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-evil\n") }); err != nil {
		t.Fatal(err)
	}
	if r := b.client("banner", other.String()); strings.Contains(r.Out, "SSH") {
		t.Errorf("an address that was not resolved: %v", r)
	}
	b.nothingElse(at.Addr())
}

func TestPlainHTTP(t *testing.T) {
	b := newBench(t, nil)
	b.Gateway.Env = append(b.Gateway.Env, "API_TOKEN="+apiToken)
	plain := b.serve(&lab.Site{Names: []string{"plain.example.org"}, Plain: true})
	tls := b.serve(&lab.Site{Names: []string{"plain.example.org"}, Addr: plain.Addr})
	b.start(`
egress:
  routes:
    - { host: plain.example.org, protocol: http, paths: ["/open/**"] }
`)
	seen := b.get("http://plain.example.org/open/x")
	if seen.Status != 200 || len(plain.Requests()) != 1 {
		t.Errorf("%+v", seen)
	}
	for _, args := range [][]string{
		{"http://plain.example.org/shut"},
		{"-host", "evil.example.org", "http://plain.example.org/open/x"},
		{"https://plain.example.org/open/x"},
	} {
		if seen := b.get(args...); seen.Status != 403 && seen.Status != 421 {
			t.Errorf("%q: %+v, want refused", args, seen)
		}
	}
	if len(plain.Requests()) != 1 || tls.Connections() != 0 {
		t.Errorf("what was refused reached the server")
	}
}

// TestWrongNamesAndAddresses: the name in the hello decides, and where the
// bottle wanted to connect does not matter.
func TestWrongNamesAndAddresses(t *testing.T) {
	b := newBench(t, nil)
	files := b.serve(&lab.Site{Names: []string{"files.example.org"}})
	direct := b.serve(&lab.Site{Names: []string{"direct.example.org"}})
	evil := b.serve(&lab.Site{Names: []string{"evil.example.org"}})
	b.start(oneRoute + "    - { host: direct.example.org, pipelock: { tls_passthrough: true } }\n")
	trustInternet(b)
	for _, name := range []string{"files.example.org", "direct.example.org"} {
		if seen := b.get("-connect", evil.Addr.String()+":443", "https://"+name+"/"); seen.Status != 200 {
			t.Errorf("%s by way of a wrong address: %+v", name, seen)
		}
	}
	if seen := b.get("-connect", files.Addr.String()+":443", "https://evil.example.org/"); seen.Status == 200 {
		t.Errorf("a name that no plan has, at an address that it has: %+v", seen)
	}
	if seen := b.get("-host", "evil.example.org", "https://files.example.org/"); seen.Status != 421 {
		t.Errorf("a Host that is not the TLS name: %+v, want 421", seen)
	}
	if seen := b.get("https://" + evil.Addr.String() + "/"); seen.Status == 200 {
		t.Errorf("an address without a name: %+v", seen)
	}
	if files.Connections() == 0 || direct.Connections() == 0 {
		t.Error("the named hosts saw no connection")
	}
	b.nothingElse(files.Addr, direct.Addr)
}
