package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"gatewayd/lab/privileged"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newWorld(t *testing.T) *World {
	t.Helper()
	privileged.Require(t)
	parent := t.TempDir()
	w, err := New(t.Context(), Options{Parent: parent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if left := Leftovers(w.ID, parent); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	return w
}

// client is an HTTP client whose connections start in the given namespace.
func client(t *testing.T, from *Namespace, w *World, to netip.AddrPort) *http.Client {
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: w.Internet.CA.Pool()},
		ForceAttemptHTTP2: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			var c net.Conn
			err := from.Do(func() (err error) {
				c, err = net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
				return err
			})
			return c, err
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func TestWorldServesAndCounts(t *testing.T) {
	w := newWorld(t)
	site := &Site{Names: []string{"api.example.org"}}
	if err := w.Internet.Serve(site); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(site.Addr, 443)
	resp, err := client(t, w.Gateway, w, to).Post("https://api.example.org/x?y=1", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	var echoed Echoed
	if err := json.NewDecoder(resp.Body).Decode(&echoed); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if echoed.Proto != "HTTP/2.0" || echoed.Body != "hello" || echoed.URI != "/x?y=1" {
		t.Errorf("echoed %+v", echoed)
	}
	seen := site.Requests()
	if len(seen) != 1 || seen[0].SNI != "api.example.org" || string(seen[0].Body) != "hello" || seen[0].BodyBytes != 5 {
		t.Errorf("site saw %+v", seen)
	}
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := w.Internet.Counter.Sum(func(k FlowKey) bool { return k.Dst == site.Addr && k.DstPort == 443 && k.Src == GatewayUplink })
	if got.Packets < 5 || got.Bytes < 1000 {
		t.Errorf("counted %+v to the site, want a TLS connection's worth", got)
	}
	if n := w.Internet.Counter.Sum(func(k FlowKey) bool { return k.Src == site.Addr }); n.Packets != 0 {
		t.Errorf("counted %+v going the other way", n)
	}
	if lost, err := w.Internet.Counter.Lost(); err != nil || lost != 0 {
		t.Errorf("lost %d frames, %v", lost, err)
	}
}

func TestWorldsSideBySide(t *testing.T) {
	a, b := newWorld(t), newWorld(t)
	for _, w := range []*World{a, b} {
		if err := w.Internet.Serve(&Site{Names: []string{"one.example"}, Addr: netip.MustParseAddr("198.19.7.7"), Plain: true}); err != nil {
			t.Fatal(err)
		}
		to := netip.MustParseAddrPort("198.19.7.7:80")
		resp, err := client(t, w.Gateway, w, to).Get("http://one.example/" + w.ID)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
}

func TestNamesAnswers(t *testing.T) {
	w := newWorld(t)
	w.Internet.Names.SetTTL("two.example", 5*time.Second, netip.MustParseAddr("198.19.2.1"), netip.MustParseAddr("198.19.2.2"))
	for _, network := range []string{"udp", "tcp"} {
		ask := func(name string) *dns.Msg {
			t.Helper()
			var reply *dns.Msg
			err := w.Gateway.Do(func() error {
				c, err := dns.Dial(network, Resolver.String())
				if err != nil {
					return err
				}
				defer c.Close()
				reply, _, err = new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeA), c)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return reply
		}
		if got := ask("TWO.example."); len(got.Answer) != 2 || got.Answer[0].Header().Ttl != 5 {
			t.Errorf("%s: two.example: %v", network, got)
		}
		if got := ask("none.example."); got.Rcode != dns.RcodeNameError {
			t.Errorf("%s: none.example: %v", network, got)
		}
	}
	if !w.Internet.Names.Asked("none.example") || w.Internet.Names.Asked("three.example") {
		t.Errorf("questions: %+v", w.Internet.Names.Questions())
	}
}

func TestTCPServerSpeaksFirst(t *testing.T) {
	w := newWorld(t)
	at := netip.MustParseAddrPort("198.19.3.1:22")
	err := w.Internet.ServeTCP(at, func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, "SSH-2.0-lab\r\n")
		<-ctx.Done()
	})
	if err != nil {
		t.Fatal(err)
	}
	err = w.Gateway.Do(func() error {
		c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		if line != "SSH-2.0-lab\r\n" {
			t.Errorf("banner %q", line)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGuestSeesItsOwnFilesAndNetwork(t *testing.T) {
	w := newWorld(t)
	ns, err := NewNamespace(w.ID + "-bottle")
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(w.Dir, "secrets")
	if err := os.MkdirAll(secret, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secret, "token"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	g := Guest{Netns: ns.Path, Resolver: "198.18.0.1", Env: []string{"A=b"}, Hide: []string{secret}}
	var out bytes.Buffer
	p, err := g.Start(t.Context(), nil, &out, &out, "/bin/sh", "-c",
		"cat /etc/resolv.conf; env; ls "+secret+"; stat -L -c %i /proc/self/ns/net "+ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if lines[0] != "nameserver 198.18.0.1" || !slices.Contains(lines, "A=b") || slices.Contains(lines, "token") {
		t.Errorf("guest saw %q", lines)
	}
	if n := len(lines); lines[n-1] != lines[n-2] {
		t.Errorf("guest ran in namespace %s, not in %s", lines[n-2], lines[n-1])
	}
	host, err := os.ReadFile("/etc/resolv.conf")
	if err == nil && bytes.Contains(host, []byte("198.18.0.1")) {
		t.Error("the host's resolv.conf was changed")
	}
}

func TestGuestEndsWithContextAndWorld(t *testing.T) {
	w := newWorld(t)
	ns, err := NewNamespace(w.ID + "-bottle")
	if err != nil {
		t.Fatal(err)
	}
	g := Guest{Netns: ns.Path}
	ctx, cancel := context.WithCancel(t.Context())
	p, err := g.Start(ctx, nil, nil, nil, "/bin/sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := p.Wait(); err == nil {
		t.Error("the program ended well, want killed")
	}
	q, err := g.Start(t.Context(), nil, nil, nil, "/bin/sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := ProcessesIn(ns.Path); err != nil || !slices.Equal(pids, []int{q.Pid()}) {
		t.Errorf("processes %v, %v, want %d", pids, err, q.Pid())
	}
	if err := removeNamespace(ns.Name); err != nil {
		t.Fatal(err)
	}
	if err := q.Wait(); err == nil {
		t.Error("the program outlived its namespace")
	}
}

func TestRemoveStale(t *testing.T) {
	privileged.Require(t)
	parent := t.TempDir()
	for name, gone := range map[string]bool{
		prefix + "1x1n1":       true,  // process 1 started at another time
		prefix + "4194305x1n1": true,  // above the highest possible pid
		prefix + "x":           false, // not one of ours
		"other4194305x1n1":     false, // not one of ours
		mustID(t):              false, // this very process
		prefix + "1" + "n1x1":  false, // not one of ours
	} {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		removed := RemoveStale(parent)
		_, err := os.Stat(dir)
		if got := errors.Is(err, os.ErrNotExist); got != gone || slices.Contains(removed, dir) != gone {
			t.Errorf("%s: removed %v, reported %q, want %v", name, got, removed, gone)
		}
	}
}

func mustID(t *testing.T) string {
	t.Helper()
	id, err := newID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestParseFrame(t *testing.T) {
	frame := func(etherType string, rest ...byte) []byte {
		return append([]byte("ddddddssssss"+etherType), rest...)
	}
	ip := func(vihl, proto byte, frag uint16, after ...byte) []byte {
		head := []byte{vihl, 0, 0x01, 0x02, 0, 0, byte(frag >> 8), byte(frag), 64, proto, 0, 0, 198, 18, 0, 2, 198, 19, 1, 1}
		return append(head, after...)
	}
	src, dst := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.19.1.1")
	for _, c := range []struct {
		name  string
		frame []byte
		want  FlowKey
		size  uint64
	}{
		{"tcp", frame("\x08\x00", ip(0x45, 6, 0, 0x80, 0, 0x01, 0xbb)...), FlowKey{0x0800, src, dst, 6, 443}, 0x102},
		{"options", frame("\x08\x00", ip(0x46, 17, 0, 1, 1, 1, 1, 0, 9, 0, 53)...), FlowKey{0x0800, src, dst, 17, 53}, 0x102},
		{"later fragment", frame("\x08\x00", ip(0x45, 6, 7, 0x80, 0, 0x01, 0xbb)...), FlowKey{0x0800, src, dst, 6, 0}, 0x102},
		{"ports cut off", frame("\x08\x00", ip(0x45, 6, 0, 0x80)...), FlowKey{0x0800, src, dst, 6, 0}, 0x102},
		{"ip cut off", frame("\x08\x00", 0x45), FlowKey{EtherType: 0x0800}, 15},
		{"arp", frame("\x08\x06", 1, 2, 3), FlowKey{EtherType: 0x0806}, 17},
	} {
		got, size := parseFrame(c.frame)
		if got != c.want || size != c.size {
			t.Errorf("%s: %v, %d, want %v, %d", c.name, got, size, c.want, c.size)
		}
	}
}

func TestParseEnv(t *testing.T) {
	got, err := ParseEnv([]byte("# comment\n\nA=b c\nB=x=y\nC=\n"))
	if err != nil || !slices.Equal(got, []string{"A=b c", "B=x=y", "C="}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"A", "=b"} {
		if _, err := ParseEnv([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
