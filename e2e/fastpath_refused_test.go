package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// TestFastPathHonestRetry has the kernel refuse a hello at an address that it carries: its name passes through but lives
// elsewhere, no plan names it, or it is not in the form that the pin has. The client gets a RST, the server no byte of the
// hello; and the next try at that address, with the right name, is the relay's.
func TestFastPathHonestRetry(t *testing.T) {
	hosts := []string{"a.example.org", "b.example.org", "c.example.org", "elsewhere.example.org"}
	b := newBench(t, nil)
	var called calledNames
	for _, h := range hosts {
		b.serveEcho(h, &tls.Config{GetConfigForClient: called.note})
	}
	b.start(`
egress:
  routes:
    - { host: a.example.org, pipelock: { tls_passthrough: true } }
    - { host: b.example.org, pipelock: { tls_passthrough: true } }
    - { host: c.example.org, pipelock: { tls_passthrough: true } }
    - { host: elsewhere.example.org, pipelock: { tls_passthrough: true } }
`)
	trustInternet(b)
	for i, name := range []string{"elsewhere.example.org", "evil.example.org", "C.Example.org"} {
		host := hosts[i]
		t.Run(name, func(t *testing.T) {
			if r := b.client("refused", host, name); r.Failed != nil {
				t.Fatal(r)
			}
			eventually(t, func() error { return b.retried(host) })
			if got := called.all(); slices.Contains(got, name) || !slices.Contains(got, host) {
				t.Errorf("the servers were called by %q", got)
			}
		})
	}
}

// retried reports as an error that the records of the connections to host's address are not yet those of a refusal and of one
// by the relay. Which address that is, the second says.
func (b *bench) retried(host string) error {
	all := b.records()
	at := slices.IndexFunc(all, func(r record) bool { return r.Type == "flow" && r.Host == host })
	if at < 0 {
		return errors.New("no record of the second connection")
	}
	second := all[at]
	if second.Lane != "relay" || second.Decision != "passthrough" || second.Reason != "route" {
		b.t.Fatalf("the record of the second connection is %+v", second)
	}
	to := slices.DeleteFunc(all, func(r record) bool { return r.Type != "flow" || r.Dst != second.Dst || r.ID == second.ID })
	if len(to) == 0 {
		return errors.New("no record of the refusal")
	}
	if r := to[0]; len(to) != 1 || r.Lane != "fastpath" || r.Decision != "deny" || r.Reason != "fast_name" {
		b.t.Fatalf("the records of the first connection are %+v", to)
	}
	return nil
}

// calledNames are the names that servers were called by.
type calledNames struct {
	mu    sync.Mutex
	names []string
}

func (n *calledNames) note(h *tls.ClientHelloInfo) (*tls.Config, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names = append(n.names, h.ServerName)
	return nil, nil
}

func (n *calledNames) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.names)
}

// refusedClient resolves HOST once, calls it by NAME and wants a RST, and then by its own name at the same address.
func refusedClient(ctx context.Context, args []string) error {
	host, name := args[0], args[1]
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return err
	}
	addr := netip.AddrPortFrom(addrs[0], 443).String()
	c, err := (&steady{host: name, addr: addr}).dial(ctx)
	if err == nil {
		c.Close()
		return fmt.Errorf("%s was reached at the address of %s", name, host)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("the refusal: %w", err)
	}
	c, err = (&steady{host: host, addr: addr}).dial(ctx)
	if err != nil {
		return fmt.Errorf("the retry: %w", err)
	}
	defer c.Close()
	if lost, err := ping(c, 50_000); err != nil || lost > 0 {
		return fmt.Errorf("the retry: %d bytes are lost: %w", lost, err)
	}
	return nil
}
