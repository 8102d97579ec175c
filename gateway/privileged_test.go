package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	"gatewayd/lab/privileged"
)

// insideVariable tells the test binary that it runs in namespaces of its own; guestVariable makes it a guest.
const (
	insideVariable = "GATEWAYD_GATEWAY_INSIDE"
	guestVariable  = "GATEWAYD_GATEWAY_GUEST"
)

// realUpstream is the address of the internet in TestRealLinks: one of the namespace's own, which the guard is told of.
const realUpstream = "198.19.0.1"

// TestRealLinks runs a gateway with the kernel's redirect and transparent sockets, in a network and a mount namespace
// of its own, and a guest behind a link that the redirect made.
func TestRealLinks(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF, privileged.Program("ip", "nsenter"))
	if os.Getenv(insideVariable) == "" {
		cmd := exec.Command(executable(t), "-test.run=^TestRealLinks$", "-test.v")
		cmd.Env = append(os.Environ(), insideVariable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("inside: %v\n%s", err, out)
		}
		return
	}
	netns := filepath.Join(t.TempDir(), "ns") // before the cleanup below, since the directory must outlive the link
	arrangeNamespaces(t)
	opt := redirect.Options{Instance: "gatewaytest"}
	r, err := redirect.Open(t.Context(), opt)
	if err != nil {
		t.Fatalf("open redirect: %v", err)
	}
	t.Cleanup(func() {
		r.Close()
		if _, err := redirect.Uninstall(context.Background(), opt); err != nil {
			t.Errorf("uninstall: %v", err)
		}
	})
	w := newWorld(t, func(o *Options) {
		o.Redirect, o.Sockets = r, nil
		o.Guard = routes.Guard{AllowRanges: []netip.Prefix{netip.MustParsePrefix(realUpstream + "/32")}}
	})
	w.names.set("pass.test", realUpstream)
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "pass.test")
	port := serveEach(t, realUpstream, func(c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	b := testBottle(t, routes.Route{Host: "pass.test", Port: port, TLSPassthrough: true}, routes.Route{Host: "icept.test"})
	b.Link.Kind, b.Link.Netns = redirect.Netns, netns
	w.apply(t, b)
	if i := w.g.Bottles(); len(i) != 1 || !i[0].Up {
		t.Fatalf("bottles %+v: want the link up", i)
	}
	guestTests(t, w, b, port)
	w.apply(t)
	if out := callAs(t, b, w.roots.file, fmt.Sprintf("203.0.113.9:%d", port), "pass.test"); strings.HasPrefix(out, "ok") {
		t.Errorf("the bottle was removed, and its guest got %q", out)
	}
}

// guestTests calls out of the bottle in each way.
func guestTests(t *testing.T, w *world, b Bottle, port uint16) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, b.CA.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, addr, sni, roots string
		out                    string // beginning of what the guest sees
		reason                 routes.Reason
		lane                   Lane
	}{
		{"passed through", fmt.Sprintf("203.0.113.9:%d", port), "pass.test", w.roots.file, "ok", routes.RouteMatched, LaneRelay},
		{"denied and told so", "192.0.2.1:443", "denied.test", ca, "ok", routes.NoRoute, LaneNone},
		{"intercepted by a client that does not trust the CA", "203.0.113.9:443", "icept.test", w.roots.file, "tls: failed to verify", ReasonDistrustsCA, LaneNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := callAs(t, b, c.roots, c.addr, c.sni)
			if !strings.HasPrefix(out, c.out) {
				t.Errorf("the guest saw %q; want %q", out, c.out)
			}
			dst := netip.MustParseAddrPort(c.addr)
			r := w.records.wait(t, func(r Record) bool { return r.Type == RecordFlow && r.Host == c.sni })
			if r.Reason != c.reason || r.Lane != c.lane || r.Dst != dst || r.Src.Addr() != b.Link.Guest {
				t.Errorf("record %+v; want %s by %s to %v", r, c.reason, c.lane, dst)
			}
		})
	}
	t.Run("the listener itself", func(t *testing.T) {
		if out := callAs(t, b, ca, netip.AddrPortFrom(b.Link.Gateway, b.Link.InterceptPort).String(), "icept.test"); strings.HasPrefix(out, "ok") {
			t.Errorf("the guest saw %q", out)
		}
	})
	t.Run("a name", func(t *testing.T) {
		if out := callAs(t, b, "", "203.0.113.53:53", "denied.test"); out != "resolves to [192.0.2.1]\n" {
			t.Errorf("the guest saw %q; want the block address", out)
		}
	})
}

// arrangeNamespaces gives this process mounts that nobody else sees, a BPF file system and an address for the internet.
func arrangeNamespaces(t *testing.T) {
	t.Helper()
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", realUpstream + "/32", "dev", "lo"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
}

// callAs runs this binary as a guest in the bottle's namespace, and returns what it prints.
func callAs(t *testing.T, b Bottle, roots, addr, sni string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--net="+b.Link.Netns, executable(t))
	cmd.Env = append(os.Environ(), guestVariable+"="+strings.Join([]string{roots, addr, sni}, ","))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Logf("guest: %v", err)
	}
	return out.String()
}

func executable(t *testing.T) string {
	t.Helper()
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// guest is what the test binary does inside a bottle: one TLS connection, or one question for a name. It prints what
// came of it.
func guest(spec string) {
	roots, rest, _ := strings.Cut(spec, ",")
	addr, sni, _ := strings.Cut(rest, ",")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if roots == "" {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		}}
		ips, err := r.LookupHost(ctx, sni+".")
		fmt.Printf("resolves to %v\n", ips)
		if err != nil {
			fmt.Println(err)
		}
		return
	}
	pem, err := os.ReadFile(roots)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		fmt.Println("roots:", err)
		return
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: sni, RootCAs: pool}}
	c, err := d.DialContext(ctx, "tcp", addr)
	switch {
	case err == nil:
		fmt.Println("ok")
		c.Close()
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		fmt.Println("timeout:", err)
	default:
		fmt.Println(err)
	}
}
