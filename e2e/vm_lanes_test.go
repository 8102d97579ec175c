package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gatewayd/lab"
	"gatewayd/lab/demo"
)

// passedThrough: what passes through is the kernel's, with the upstream's own certificate.
func (b *vmBench) passedThrough(t *testing.T) {
	seen := b.get("-ca", "/internet-ca.pem", "https://packages.example.org/")
	if seen.Status != 200 || b.packages.Connections() != 1 || strings.HasPrefix(seen.Issuer, "gatewayd") {
		t.Errorf("%+v", seen)
	}
	mustHaveLane(t, b.Gateway, "packages.example.org", "fastpath")
}

// relayed: a host at whose address another is scanned is the relay's, and decrypted no more than on the fast path.
func (b *vmBench) relayed(t *testing.T) {
	if seen := b.get("https://scanned.example.org/"); seen.Status != 200 || !strings.HasPrefix(seen.Issuer, "gatewayd") {
		t.Errorf("%+v", seen)
	}
	if seen := b.get("-ca", "/internet-ca.pem", "https://shared.example.org/"); seen.Status != 200 || strings.HasPrefix(seen.Issuer, "gatewayd") {
		t.Errorf("%+v", seen)
	}
	mustHaveLane(t, b.Gateway, "shared.example.org", "relay")
	mustHaveLane(t, b.Gateway, "scanned.example.org", "intercept")
}

// denied: the guest is told why and what would allow it, the host by the same id, and nobody else is asked.
func (b *vmBench) denied(t *testing.T) {
	seen := b.get("https://evil.example.org/")
	var p problem
	if err := json.Unmarshal([]byte(seen.Body), &p); err != nil || seen.Status != 403 {
		t.Fatalf("%+v: %v", seen, err)
	}
	if !strings.Contains(p.Remedy, "host: evil.example.org") || p.Error.Message == "" || p.Reason != "no_route" {
		t.Errorf("%+v", p)
	}
	out, err := b.Gateway.Command(b.ctx, "explain", p.ID)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !bytes.Contains(out, []byte("host: evil.example.org")) { // a denial has an exit code of its own
		t.Errorf("explain %s: %s %v", p.ID, out, err)
	}
	if b.World.Internet.Names.Asked("evil.example.org") || b.evil.Connections() != 0 {
		t.Error("it was asked for or called")
	}
}

// tunnel lets the guest carry data out by DNS. What leaves are questions for ordinary names under a wildcard, as many as the
// budget of new names allows, in the gateway's own words.
func (b *vmBench) tunnel(t *testing.T, dummy string) {
	onTap, err := lab.NewCapture(b.World.Gateway, vmTap)
	if err != nil {
		t.Fatal(err)
	}
	onUplink, err := lab.NewCapture(b.World.Gateway, lab.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	const denied, wild, count = "evil.example.org", "wild.example.org", 40
	t.Logf("%s", b.client("tunnel", denied, wild, b.evil.Addr.String(), "40"))
	// A dummy is a secret to every host but its own.
	b.get("-timeout", "5s", "https://"+dummy+"."+wild+"/")
	if err := b.World.Settle(b.ctx); err != nil {
		t.Fatal(err)
	}
	tap, errTap := onTap.Stop()
	uplink, errUplink := onUplink.Stop()
	if err := errors.Join(errTap, errUplink); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(lower(tap), []byte(tunnelWord)) || !bytes.Contains(lower(tap), []byte(strings.ToLower(dummy))) {
		t.Error("nothing was tried")
	}
	for _, word := range []string{tunnelWord, strings.ToLower(dummy)} {
		if bytes.Contains(lower(uplink), []byte(word)) {
			t.Errorf("%q left", word)
		}
	}
	asked := map[string]bool{}
	for _, q := range b.World.Internet.Names.Questions() {
		name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
		if strings.HasSuffix(name, denied) {
			t.Errorf("%s was asked for", q.Name)
		}
		if strings.HasSuffix(name, "."+wild) {
			asked[name] = true
		}
	}
	if n := len(asked); n == 0 || n >= 10*count {
		t.Errorf("%d names under the wildcard were asked for, of %d", n, 10*count)
	}
	reasons := map[string]bool{}
	for _, r := range readRecords(t, b.Gateway) {
		reasons[r.Reason] = true
	}
	for _, reason := range []string{"dns_denied", "dns_encoded", "dns_new_names"} {
		if !reasons[reason] {
			t.Errorf("no record says %s", reason)
		}
	}
}

// clocks sets the guest's clock off. What the gateway signs holds for two years back and days ahead; beyond, the record says
// what to look at.
func (b *vmBench) clocks(t *testing.T, authorization string) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name   string
		offset time.Duration
	}{{"a year and a day back", -366 * day}, {"a day ahead", day}} {
		seen := b.getFrom("clock", c.offset.String(), "-header", authorization, "https://api.example.org/clock")
		if seen.Status != 200 {
			t.Errorf("%s: %+v", c.name, seen)
		}
	}
	seen := b.getFrom("clock", (-15 * 366 * day).String(), "https://files.example.org/clock")
	if seen.Status != 0 || !strings.Contains(seen.Error, "not yet valid") {
		t.Errorf("fifteen years back: %+v", seen)
	}
	eventually(t, func() error {
		for _, r := range readRecords(t, b.Gateway) {
			if r.Host == "files.example.org" && r.Reason == "guest_distrusts_ca" && strings.Contains(r.Remedy, "clock") {
				return nil
			}
		}
		return errors.New("no record says that the clock may be off")
	})
	// What passes through has the upstream's certificate, and a guest's clock is between these two; the lane is the same.
	fast := func(offset time.Duration) demo.Seen {
		return b.getFrom("clock", offset.String(), "-ca", "/internet-ca.pem", "https://packages.example.org/clock")
	}
	if seen := fast(day / 2); seen.Status != 200 || strings.HasPrefix(seen.Issuer, "gatewayd") {
		t.Errorf("passed through, half a day ahead: %+v", seen)
	}
	if seen := fast(-366 * day); seen.Status != 0 || !strings.Contains(seen.Error, "not yet valid") {
		t.Errorf("passed through, a year and a day back: %+v", seen)
	}
	mustHaveLane(t, b.Gateway, "packages.example.org", "fastpath")
	if seen := b.get("-header", authorization, "https://api.example.org/clock"); seen.Status != 200 {
		t.Errorf("with the clock right again: %+v", seen)
	}
}
