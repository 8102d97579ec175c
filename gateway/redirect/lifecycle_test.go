package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"

	"gatewayd/lab/privileged"
)

// TestRestartAdopts closes the instance in the middle of a connection and opens
// it again: the same programs run, nothing was set up anew, counters went on,
// and the connection never noticed.
func TestRestartAdopts(t *testing.T) {
	for _, mode := range []AttachMode{AttachTCX, AttachClsact} {
		t.Run(string(mode), func(t *testing.T) {
			s := newStage(t, func(o *Options) { o.Attach = mode })
			l := s.link(1)
			talk := s.conversation(l)
			before, err := programID(s.r.objects.CaptureIngress)
			must(t, err)
			counted := counters(t, s.r, l)
			must(t, s.r.Close())
			talk("while no process is there")
			s.open()
			after, err := programID(s.r.objects.CaptureIngress)
			must(t, err)
			if before != after {
				t.Errorf("program %d was replaced by %d", before, after)
			}
			talk("before the first Set")
			s.set(l)
			talk("after it")
			changes, err := s.r.ensureLink(&LinkStatus{Link: l})
			if err != nil || len(changes) > 0 {
				t.Errorf("a second Set changes %v, %v", changes, err)
			}
			if now := counters(t, s.r, l); now.Assigned <= counted.Assigned {
				t.Errorf("counted %d before and %d after the restart", counted.Assigned, now.Assigned)
			}
		})
	}
}

// conversation sets the link up and opens a connection through it. The function
// returned sends a line and fails the test unless it comes back.
func (s *stage) conversation(l Link) func(line string) {
	t := s.t
	t.Helper()
	listener, err := ListenTCP(t.Context(), netip.AddrPortFrom(l.Gateway, l.InterceptPort))
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	s.set(l)
	conn, err := s.enter(l).dial(netip.AddrPortFrom(called, 443), patience)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	served, err := listener.Accept()
	must(t, err)
	must(t, served.(*net.TCPConn).SetLinger(0)) // what is left of it must not outlive the link
	t.Cleanup(func() { served.Close() })
	return func(line string) {
		t.Helper()
		for _, c := range []net.Conn{conn, served} {
			must(t, c.SetDeadline(time.Now().Add(patience)))
		}
		_, err := io.WriteString(conn, line)
		must(t, err)
		buf := make([]byte, len(line))
		if _, err = io.ReadFull(served, buf); err != nil || string(buf) != line {
			t.Fatalf("%q arrived as %q, %v", line, buf, err)
		}
	}
}

// TestUpgradeReplacesPrograms pins and attaches an older program, which drops
// everything, and opens the instance over it: every program is replaced in
// place, and the maps are kept.
func TestUpgradeReplacesPrograms(t *testing.T) {
	for _, mode := range []AttachMode{AttachTCX, AttachClsact} {
		t.Run(string(mode), func(t *testing.T) {
			s := newStage(t, func(o *Options) { o.Attach = mode })
			l := s.link(1)
			talk := s.conversation(l)
			talk("new program")
			counted := counters(t, s.r, l)
			index := s.r.Status().Links[0].Ifindex
			old := olderObjects(t, s.r.objects)
			must(t, s.r.dir.replaceObjects(old))
			hooks, err := pickHooks(mode, s.r.dir, old, onCapture(old))
			must(t, err)
			if ok, err := hooks.update(index); err != nil || !ok {
				t.Fatalf("attach the older program: %t, %v", ok, err)
			}
			oldID, err := programID(old.CaptureIngress)
			must(t, err)
			must(t, s.r.Close())
			s.open()
			id, err := programID(s.r.objects.CaptureIngress)
			must(t, err)
			if id == oldID {
				t.Fatal("the older program was adopted")
			}
			s.set(l)
			talk("after the upgrade")
			if now := counters(t, s.r, l); now.Assigned <= counted.Assigned {
				t.Errorf("the counters were lost: %d, then %d", counted.Assigned, now.Assigned)
			}
		})
	}
}

// olderObjects loads a program of another tag over the maps of now.
func olderObjects(t *testing.T, now *gatewayObjects) *gatewayObjects {
	t.Helper()
	spec, err := loadGateway()
	must(t, err)
	p := spec.Programs[gatewayProgCaptureIngress]
	entry := p.Instructions[0].Metadata
	p.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, tcActShot), asm.Return()}
	p.Instructions[0].Metadata = entry
	var old gatewayObjects
	maps := make(map[string]*ebpf.Map)
	for name, object := range pinnables(now) {
		if m, ok := object.(*ebpf.Map); ok {
			maps[name] = m
		}
	}
	must(t, spec.LoadAndAssign(&old, &ebpf.CollectionOptions{MapReplacements: maps}))
	t.Cleanup(func() { old.Close() })
	return &old
}

// TestMapsOfAnotherLayoutAreReplaced pins a map that an older version may have
// had, and expects a new one in its place, filled by Set.
func TestMapsOfAnotherLayoutAreReplaced(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	talk := s.conversation(l)
	must(t, s.r.Close())
	pin := filepath.Join(s.options.BPFFS, objectsDir, gatewayMapBottles)
	must(t, os.Remove(pin))
	older, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	must(t, err)
	defer older.Close()
	must(t, older.Pin(pin))
	s.open()
	talk("with the old program and its map")
	s.set(l)
	talk("with the new")
}

func TestSecondProcessIsRefused(t *testing.T) {
	s := newStage(t)
	if _, err := Open(t.Context(), s.options); !errors.Is(err, ErrLocked) {
		t.Errorf("open twice: %v", err)
	}
	if _, err := Uninstall(t.Context(), s.options); !errors.Is(err, ErrLocked) {
		t.Errorf("uninstall while open: %v", err)
	}
}

// TestPinsOfAnotherNamespaceAreLeftAlone pretends that the pins were made in
// another namespace, whose links are alive.
func TestPinsOfAnotherNamespaceAreLeftAlone(t *testing.T) {
	s := newStage(t)
	talk := s.conversation(s.link(1))
	cookie, err := netnsCookie()
	must(t, err)
	for _, c := range []uint64{cookie + 1, cookie} {
		must(t, s.r.objects.Instances.Put(uint32(0), gatewayInstance{NetnsCookie: c}))
		must(t, s.r.Close())
		var state *StateError
		if c == cookie {
			s.open()
		} else if _, err := Open(t.Context(), s.options); !errors.As(err, &state) || state.Remedy == "" {
			t.Errorf("open: %v", err)
		} else {
			s.r.objects = reopen(t, s.options.BPFFS)
		}
		talk("on and on")
	}
}

// reopen opens the pinned objects without any of the checks.
func reopen(t *testing.T, path string) *gatewayObjects {
	t.Helper()
	dir, err := openPinDir(path)
	must(t, err)
	defer dir.Close()
	o, _, err := loadObjects(dir, Options{})
	must(t, err)
	return o
}

// TestRemovedLinkIsShut takes a link out of the configuration and puts it back.
func TestRemovedLinkIsShut(t *testing.T) {
	s := newStage(t)
	one, two := s.link(1), s.link(2)
	s.listeners(one)
	s.listeners(two)
	s.set(one, two)
	g := s.enter(one)
	to := netip.AddrPortFrom(called, 443)
	g.ask(to)
	s.set(two)
	dev, err := netlink.LinkByName(one.Name)
	must(t, err)
	if isUp(dev) {
		t.Error("the link is still up")
	}
	must(t, netlink.LinkSetUp(dev))       // as somebody else might
	eventually(t, "a drop", func() bool { // the guest's end is slow to see that it has a carrier again
		if conn, err := g.dial(to, 200*time.Millisecond); err == nil {
			conn.Close()
			t.Error("the removed bottle was answered")
		}
		return counters(t, s.r, one).Drops[Reason(gatewayDropReasonDROP_SHUT)] > 0
	})
	if got := s.enter(two).ask(to); got == "" {
		t.Error("the other bottle was not answered")
	}
	s.set(one, two)
	if got := g.ask(to); got == "" {
		t.Error("the bottle was not answered when it was back")
	}
}

// TestLinkChangesItsNumbers gives a bottle another subnet, MAC, MTU and port.
func TestLinkChangesItsNumbers(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.listeners(l)
	s.set(l)
	to := netip.AddrPortFrom(called, 443)
	s.enter(l).ask(to)
	other := s.link(7)
	changed := l
	changed.Guest, changed.Gateway, changed.MAC = other.Guest, other.Gateway, other.MAC
	changed.MTU, changed.InterceptPort = 1400, 15999
	s.listeners(changed)
	s.set(changed)
	if got, want := s.enter(changed).ask(to), "15999 198.19.77.9:443\n"; got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
	if d := counters(t, s.r, changed).Drops[Reason(gatewayDropReasonDROP_SOURCE_IP)]; d != 0 {
		t.Errorf("%d packets came from the address of before", d)
	}
	if changes, err := s.r.ensureLink(&LinkStatus{Link: changed}); err != nil || len(changes) > 0 {
		t.Errorf("a second Set changes %v, %v", changes, err)
	}
}

// TestInvalidConfigChangesNothing keeps what was set before.
func TestInvalidConfigChangesNothing(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	talk := s.conversation(l)
	bad := l
	bad.MTU = 1
	status, err := s.r.Set(t.Context(), Config{Links: []Link{bad}})
	var link *LinkError
	if !errors.As(err, &link) || link.Bottle != l.Bottle {
		t.Errorf("set: %v", err)
	}
	if len(status.Links) != 1 || status.Links[0].Link.MTU == 1 || !status.Links[0].Up {
		t.Errorf("status is %+v", status)
	}
	talk("still here")
}

// TestForeignInterfaceIsNotTaken has an interface of the wanted name that
// somebody else made, for each kind that creates.
func TestForeignInterfaceIsNotTaken(t *testing.T) {
	for _, kind := range []LinkKind{Tap, Netns} {
		t.Run(kind.String(), func(t *testing.T) {
			s := newStage(t)
			l := s.link(1)
			l.Kind = kind
			if kind == Tap {
				l.Netns = ""
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name = l.Name
			other := netlink.NewVeth(attrs)
			other.PeerName = "other0"
			must(t, netlink.LinkAdd(other))
			t.Cleanup(func() { netlink.LinkDel(other) })
			status, err := s.r.Set(t.Context(), Config{Links: []Link{l}})
			must(t, err)
			var state *StateError
			if err := status.Err(); !errors.As(err, &state) || !strings.Contains(err.Error(), "ip link delete gw-b1") {
				t.Errorf("status: %v", err)
			}
			if status.Links[0].Up || status.Links[0].Attached != "" {
				t.Errorf("status is %+v", status.Links[0])
			}
		})
	}
}

// TestUninstallLeavesNothing compares the machine before and after, and finds
// another instance's table where it was.
func TestUninstallLeavesNothing(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.BPF)
	before := inventory(t)
	s := newStage(t)
	withUplink := inventory(t)
	l := s.link(1)
	s.set(l)
	must(t, s.r.Close())
	removed, err := Uninstall(t.Context(), s.options)
	must(t, err)
	t.Logf("removed %q", removed)
	after := inventory(t)
	for _, what := range after {
		if !slices.Contains(before, what) && !slices.Contains(withUplink, what) {
			t.Errorf("left behind: %s", what)
		}
	}
	if _, err := os.Stat(l.Netns); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace is left: %v", err)
	}
	if _, err := os.Stat(s.options.BPFFS); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
	if removed, err := Uninstall(t.Context(), s.options); err != nil || len(removed) != 0 {
		t.Errorf("uninstall again: %q, %v", removed, err)
	}
	s.open() // for the stage's own end
}

func inventory(t *testing.T) []string {
	t.Helper()
	var all []string
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		all = append(all, "link "+l.Attrs().Name)
	}
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	must(t, err)
	for _, r := range rules {
		if isInterceptRule(&r) {
			all = append(all, "rule")
		}
	}
	if there, err := haveRoute(); err != nil || there {
		all = append(all, "route")
	}
	return all
}

// TestOneWayOut: the programs at the capture link have one place where a frame goes on to the stack; whatever is forgotten is a drop.
func TestOneWayOut(t *testing.T) {
	files, err := filepath.Glob("../../bpf/*.[ch]")
	must(t, err)
	n := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(t, err)
		n += bytes.Count(text, []byte("return TC_ACT_OK;"))
		for _, other := range []string{"TCX_PASS", "TCX_NEXT", "TC_ACT_PIPE"} {
			if bytes.Contains(text, []byte(other)) {
				t.Errorf("%s has %s", f, other)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d places return TC_ACT_OK", n)
	}
}

// TestLinkSettings: what the third layer sets on a link, whatever the link had before.
func TestLinkSettings(t *testing.T) {
	s := newStage(t)
	l := s.link(1)
	s.listeners(l)
	s.set(l)
	for key, want := range map[string]string{
		"ipv4/conf/%s/forwarding": "0", "ipv4/conf/%s/rp_filter": "1", "ipv4/conf/%s/route_localnet": "0", "ipv4/conf/%s/accept_local": "0",
		"ipv4/conf/%s/accept_redirects": "0", "ipv4/conf/%s/accept_source_route": "0", "ipv4/conf/%s/proxy_arp": "0",
		"ipv6/conf/%s/disable_ipv6": "1",
	} {
		path := filepath.Join(procSysNet, fmt.Sprintf(key, l.Name))
		other := map[string]string{"0": "1", "1": "0"}[want]
		must(t, os.WriteFile(path, []byte(other), 0o600))
		s.set(l)
		got, err := os.ReadFile(path)
		must(t, err)
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %s", path, got)
		}
	}
}
