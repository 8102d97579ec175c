package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gatewayd/lab/privileged"
)

// inNetns runs f on a thread in a network namespace of its own, which ends with the thread.
func inNetns(t *testing.T, f func() error) error {
	t.Helper()
	privileged.Require(t, privileged.Root)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// TestSetUp: the card has what network.json says, whether the gateway is in the guest's prefix or not, and a second time
// changes nothing.
func TestSetUp(t *testing.T) {
	for _, address := range []string{"198.18.7.2/30", "198.18.7.2/32"} {
		etc := t.TempDir()
		n := network{Interface: "eth0", Address: address, Gateway: "198.18.7.1", DNS: "198.18.7.9", MTU: 1400}
		err := inNetns(t, func() error {
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}); err != nil {
				return err
			}
			for range 2 {
				if err := n.setUp(etc); err != nil {
					return err
				}
			}
			checkCard(t, address)
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", address, err)
		}
		for name, want := range map[string]string{"resolv.conf": "nameserver 198.18.7.9\n", "hosts": "127.0.0.1 localhost\n"} {
			if got, err := os.ReadFile(filepath.Join(etc, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
}

// checkCard looks at eth0 of the thread's namespace.
func checkCard(t *testing.T, address string) {
	t.Helper()
	card, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Error(err)
		return
	}
	addrs, errAddrs := netlink.AddrList(card, netlink.FAMILY_V4)
	routes, errRoutes := netlink.RouteList(card, netlink.FAMILY_V4)
	if err := errors.Join(errAddrs, errRoutes); err != nil {
		t.Error(err)
	}
	if len(addrs) != 1 || addrs[0].IPNet.String() != address || card.Attrs().MTU != 1400 || card.Attrs().Flags&unix.IFF_UP == 0 {
		t.Errorf("%s: %v, %+v", address, addrs, card.Attrs())
	}
	defaults := 0
	for _, r := range routes {
		if r.Gw != nil && r.Gw.String() == "198.18.7.1" {
			defaults++
		}
	}
	if defaults != 1 {
		t.Errorf("%s: %d default routes in %v", address, defaults, routes)
	}
}

// TestSetUpSaysWhatIsWrong: an error names the part of network.json, or the card, that is at fault.
func TestSetUpSaysWhatIsWrong(t *testing.T) {
	good := network{Interface: "eth0", Address: "198.18.7.2/30", Gateway: "198.18.7.1", MTU: 1400}
	for want, change := range map[string]func(*network){
		"address": func(n *network) { n.Address = "198.18.7.2" },
		"gateway": func(n *network) { n.Gateway = "" },
		"mtu 1":   func(n *network) { n.MTU = 1 << 30 },
	} {
		n := good
		change(&n)
		err := inNetns(t, func() error {
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}); err != nil {
				t.Error(err)
			}
			return n.setUp(t.TempDir())
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
	}
}

func TestReadNetwork(t *testing.T) {
	dir := t.TempDir()
	if _, err := readNetwork(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	file := filepath.Join(dir, "network.json")
	for text, want := range map[string]string{
		`{"interface":"eth0","address":"198.18.0.2/30","gateway":"198.18.0.1","dns":"198.18.0.1","mac":"02:00:00:00:00:02","mtu":1400,"ipv6":true}`: "",
		`{"mtu":"1400"}`: "network.json", `{`: "network.json", ``: "network.json",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := readNetwork(dir)
		if want == "" {
			if err != nil || n != (network{"eth0", "198.18.0.2/30", "198.18.0.1", "198.18.0.1", 1400, true}) {
				t.Errorf("%+v, %v", n, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestAwait: what appears is returned, what does not is an error with the last reason.
func TestAwait(t *testing.T) {
	tries := 0
	got, err := await(time.Minute, func() (int, error) {
		if tries++; tries < 3 {
			return 0, fs.ErrNotExist
		}
		return 7, nil
	})
	if err != nil || got != 7 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := await(time.Millisecond, func() (int, error) { return 0, fs.ErrNotExist }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("never: %v", err)
	}
}
