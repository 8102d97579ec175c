package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gatewayd/lab"
)

const oneRoute = `
egress:
  routes:
    - host: files.example.org
`

// siege is a bench whose bottle tries without pause what is allowed and what
// is not.
type siege struct {
	*bench
	files, evil *lab.Site

	mu     sync.Mutex
	output strings.Builder
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	s := &siege{bench: newBench(t, nil)}
	s.files = s.serve(&lab.Site{Names: []string{"files.example.org"}})
	s.evil = s.serve(&lab.Site{Names: []string{"evil.example.org"}})
	s.serve(&lab.Site{Names: []string{"evil.example.org"}, Addr: s.evil.Addr, Plain: true})
	s.start(oneRoute)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := s.Bottle.Guest
	g.Env = append(append([]string{}, g.Env...), clientVariable+"=hammer")
	ctx, cancel := context.WithCancel(t.Context())
	p, err := g.Start(ctx, nil, s, s, self, "https://files.example.org/", "files.example.org", s.evil.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = p.Wait() // killed
		if t.Failed() {
			t.Logf("the bottle said:\n%s", tail(s.text(), 20))
		}
	})
	s.allowedWorks()
	return s
}

// Write takes the bottle's output.
func (s *siege) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.Write(p)
}

func (s *siege) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.String()
}

// rounds are the lines that the bottle has printed so far.
func (s *siege) rounds() []string {
	all := strings.Split(s.text(), "\n")
	return all[:len(all)-1]
}

// anotherRounds waits for n whole rounds that began after the call, and
// returns them.
func (s *siege) anotherRounds(n int) []string {
	s.t.Helper()
	before := len(s.rounds()) + 1 // one is under way
	eventually(s.t, func() error {
		if got := len(s.rounds()); got < before+n {
			return fmt.Errorf("%d rounds, want %d", got, before+n)
		}
		return nil
	})
	return s.rounds()[before:]
}

// allowedWorks waits until the allowed request succeeds.
func (s *siege) allowedWorks() {
	s.t.Helper()
	before := len(s.rounds()) + 1
	eventually(s.t, func() error {
		got := s.rounds()
		if len(got) <= before || !strings.HasSuffix(got[len(got)-1], " ok") {
			return fmt.Errorf("the allowed request does not work: %q", got[max(0, len(got)-1):])
		}
		return nil
	})
}

// allowedFails checks that in n rounds nothing got through at all.
func (s *siege) allowedFails(n int) {
	s.t.Helper()
	for _, r := range s.anotherRounds(n) {
		if strings.HasSuffix(r, " ok") {
			s.t.Errorf("%s, with nobody there to decide", r)
		}
	}
}

// nothingElse checks that every frame that crossed the uplink so far was to a
// host of the plan or to the resolver, and came from the gateway itself.
func (b *bench) nothingElse(allowed ...netip.Addr) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := b.Settle(ctx); err != nil {
		b.t.Fatal(err)
	}
	if lost, err := b.Internet.Counter.Lost(); err != nil || lost > 0 {
		b.t.Fatalf("the counter lost %d frames: %v", lost, err)
	}
	const ipv4, arp = 0x0800, 0x0806
	allowed = append(allowed, lab.Resolver.Addr(), lab.Far) // the latter for marks alone
	for k, n := range b.Internet.Counter.Counts() {
		ok := k.EtherType == arp
		for _, a := range allowed {
			ok = ok || k.EtherType == ipv4 && k.Dst == a && k.Src == lab.GatewayUplink
		}
		if !ok {
			b.t.Errorf("crossed the uplink and should not have: %v: %d packets, %d bytes", k, n.Packets, n.Bytes)
		}
	}
}

func (s *siege) nothingElse() {
	s.t.Helper()
	s.bench.nothingElse(s.files.Addr)
	if n := s.evil.Connections(); n > 0 {
		s.t.Errorf("%d connections reached the host that no plan names", n)
	}
}

// flushRules does what `nft flush ruleset` does in the gateway's namespace.
func (b *bench) flushRules() {
	b.t.Helper()
	err := b.World.Gateway.Do(func() error {
		var c nftables.Conn
		c.FlushRuleset()
		return c.Flush()
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// tables counts the nft tables in the gateway's namespace.
func (b *bench) tables() (n int, err error) {
	err = b.World.Gateway.Do(func() error {
		all, err := new(nftables.Conn).ListTables()
		n = len(all)
		return err
	})
	return n, err
}

// links opens every BPF link that is pinned in this world.
func (b *bench) links() map[string]link.Link {
	b.t.Helper()
	found := map[string]link.Link{}
	err := filepath.WalkDir(b.BPFDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if l, err := link.LoadPinnedLink(path, nil); err == nil { // maps and programs are none
			found[path] = l
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	if len(found) == 0 {
		b.t.Fatal("no BPF link is pinned")
	}
	return found
}

func (b *bench) linkIDs() string {
	b.t.Helper()
	ids := map[string]link.ID{}
	for path, l := range b.links() {
		info, err := l.Info()
		if err != nil {
			b.t.Fatal(err)
		}
		ids[path] = info.ID
		l.Close()
	}
	return fmt.Sprint(ids)
}

// detach takes the programs off the links, as an operator's mistake would.
func (b *bench) detach() {
	b.t.Helper()
	for path, l := range b.links() {
		if err := l.Detach(); err != nil {
			b.t.Fatalf("detach %s: %v", path, err)
		}
		l.Close()
	}
	// Without tcx (before Linux 6.6) the bottle's programs are filters of a qdisc.
	l := b.hostLink()
	err := b.World.Gateway.Do(func() error {
		return netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)}})
	})
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // there is none
		b.t.Fatal(err)
	}
}

// hostLink is the interface in the gateway's namespace that leads to the
// bottle.
func (b *bench) hostLink() netlink.Link {
	b.t.Helper()
	var found netlink.Link
	err := b.World.Gateway.Do(func() error {
		all, err := netlink.LinkList()
		for _, l := range all {
			if strings.HasPrefix(l.Attrs().Name, "gw-") {
				found = l
			}
		}
		return err
	})
	if err != nil || found == nil {
		b.t.Fatalf("find the bottle's link: %v", err)
	}
	return found
}

func (b *bench) deleteLink() {
	b.t.Helper()
	l := b.hostLink()
	if err := b.World.Gateway.Do(func() error { return netlink.LinkDel(l) }); err != nil {
		b.t.Fatal(err)
	}
}

func TestKilledAndAdopted(t *testing.T) {
	s := newSiege(t)
	before := s.linkIDs()
	s.kill()
	s.allowedFails(5)
	s.nothingElse()
	if err := s.Gateway.Start(); err != nil {
		t.Fatal(err)
	}
	s.allowedWorks()
	if after := s.linkIDs(); after != before {
		t.Errorf("the BPF links were made anew, not adopted: %s, then %s", before, after)
	}
	s.anotherRounds(3)
	s.nothingElse()
}

func TestRulesFlushed(t *testing.T) {
	s := newSiege(t)
	s.flushRules()
	s.anotherRounds(3)
	s.nothingElse()
	eventually(t, func() error {
		if n, err := s.tables(); err != nil || n == 0 {
			return fmt.Errorf("%d nft tables: %w", n, err)
		}
		return nil
	})
	s.allowedWorks()
	s.nothingElse()
}

func TestProgramDetached(t *testing.T) {
	s := newSiege(t)
	s.detach()
	s.anotherRounds(3)
	s.nothingElse()
	s.allowedWorks()
	s.nothingElse()
}

func TestLinkDeletedAndMadeAgain(t *testing.T) {
	s := newSiege(t)
	s.deleteLink()
	s.anotherRounds(3)
	s.nothingElse()
	s.allowedWorks()
	s.nothingElse()
}

// TestDeadAndOneLayerGone takes one layer away while nobody is there to put it
// back: the others must hold.
func TestDeadAndOneLayerGone(t *testing.T) {
	for _, c := range []struct {
		name string
		take func(*siege)
	}{
		{"rules flushed", func(s *siege) { s.flushRules() }},
		{"program detached", func(s *siege) { s.detach() }},
		{"ip rules removed", func(s *siege) { s.removeIPRules() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSiege(t)
			s.kill()
			c.take(s)
			s.allowedFails(5)
			s.nothingElse()
			if err := s.Gateway.Start(); err != nil {
				t.Fatal(err)
			}
			s.allowedWorks()
			s.nothingElse()
		})
	}
}

// removeIPRules removes every rule of the gateway's namespace that the kernel
// has not made itself.
func (b *bench) removeIPRules() {
	b.t.Helper()
	err := b.World.Gateway.Do(func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Priority > 0 && r.Priority < 32766 {
				if err := netlink.RuleDel(&r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestIPRulesRemoved: without the rule, intercepted packets have nowhere to
// go, and it is put back.
func TestIPRulesRemoved(t *testing.T) {
	s := newSiege(t)
	s.removeIPRules()
	s.anotherRounds(3)
	s.nothingElse()
	s.allowedWorks()
	s.nothingElse()
}

// TestStoppedProcess: gatewayd that hangs decides nothing, so nothing passes.
func TestStoppedProcess(t *testing.T) {
	s := newSiege(t)
	s.signal(syscall.SIGSTOP)
	s.allowedFails(4)
	s.nothingElse()
	s.signal(syscall.SIGCONT)
	s.allowedWorks()
	s.nothingElse()
}

// TestTheSiegeWouldSeeALeak takes every layer away by hand: what the other
// tests count must then arrive, or their zeros mean nothing.
func TestTheSiegeWouldSeeALeak(t *testing.T) {
	s := newSiege(t)
	name := s.hostLink().Attrs().Name
	s.kill()
	s.flushRules()
	s.detach()
	s.removeIPRules()
	err := s.World.Gateway.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/forwarding", []byte("1"), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint8]bool{}
	eventually(t, func() error {
		for k := range s.Internet.Counter.Counts() {
			if k.Dst == s.evil.Addr {
				seen[k.IPProtocol] = true
			}
		}
		if !seen[unix.IPPROTO_TCP] || !seen[unix.IPPROTO_UDP] || !seen[unix.IPPROTO_ICMP] {
			return fmt.Errorf("of TCP, UDP and ICMP only %v arrived", seen)
		}
		if s.evil.Connections() == 0 {
			return errors.New("no connection was made")
		}
		return nil
	})
}
