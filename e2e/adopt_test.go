package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"gatewayd/lab"
)

// adoptDeadline is more than the half minute in which a changed namespace is adopted anew.
const adoptDeadline = time.Minute

// TestAdopted runs gatewayd with a bottle whose namespace is made by somebody else: before it is there the bottle is shut,
// and whatever becomes of it, it is adopted as it then is.
func TestAdopted(t *testing.T) {
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{"direct.example.org"}, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "here") })})
	manifest := "bottle: " + bottleName + "\nlink: { netns: " + b.BottleNetns(bottleName) + ", adopt: true }\n" + fastManifest
	if err := errors.Join(b.Gateway.WriteManifest(bottleName, manifest), b.Gateway.Start()); err != nil {
		t.Fatal(err)
	}
	b.awaitBottles(t, "there is none (create it and its eth0")
	gateway := netip.MustParseAddr("198.18.250.1")
	for _, guest := range []string{"198.18.250.7/24", "198.18.250.9/32"} { // the second time under the same path
		host, err := b.MakePod(bottleName, netip.MustParsePrefix(guest), gateway, 1450)
		if err != nil {
			t.Fatal(err)
		}
		address, _, _ := strings.Cut(guest, "/")
		b.awaitBottles(t, `"link":"`+host+`"`, `"guest":"`+address, `"up":true`)
		b.takeGuestFiles()
		trustInternet(b)
		if err := wantStatus(b.get("https://direct.example.org/"), http.StatusOK); err != nil {
			t.Error(err)
		}
		if guest == "198.18.250.7/24" {
			b.changeMAC(t)
			b.awaitBottles(t, "it has changed since it was adopted", `"up":false`)
			if err := b.Gateway.WriteManifest(bottleName, manifest); err != nil { // else gatewayd looks when half a minute is over
				t.Fatal(err)
			}
			b.awaitBottles(t, `"mac":"02:00:00:00:0a:0b"`, `"up":true`)
			if err := wantStatus(b.get("https://direct.example.org/"), http.StatusOK); err != nil {
				t.Errorf("with another MAC: %v", err)
			}
			if err := b.RemovePod(bottleName); err != nil {
				t.Fatal(err)
			}
			b.awaitBottles(t, "there is none")
		}
	}
	b.mustHaveLane("direct.example.org", "fastpath")
}

// changeMAC gives the namespace's eth0 another address.
func (b *bench) changeMAC(t *testing.T) {
	t.Helper()
	ns, err := lab.OpenNamespace(b.BottleNetns(bottleName))
	if err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(eth0, []byte{2, 0, 0, 0, 0x0a, 0x0b})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitBottles waits until what gatewayd says of its bottles holds all of want.
func (b *bench) awaitBottles(t *testing.T, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), adoptDeadline)
	defer cancel()
	err := lab.Poll(ctx, func() error {
		out, err := b.Gateway.Command(ctx, "bottles", "-o", "json")
		for _, w := range want {
			if text := strings.ReplaceAll(string(out), `": `, `":`); err == nil && !strings.Contains(text, w) {
				err = fmt.Errorf("no %s in %s", w, text)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
