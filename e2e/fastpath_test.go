package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatewayd/lab"
)

const fastManifest = `
egress:
  routes:
    - host: direct.example.org
      pipelock: { tls_passthrough: true }
    - host: shared.example.org
      pipelock: { tls_passthrough: true }
    - host: scanned.example.org
`

// TestFastPath calls a host that is passed through: the kernel carries it, and
// the record says so. A host whose address is also that of one that is scanned
// is the relay's.
func TestFastPath(t *testing.T) {
	b := newBench(t, nil)
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "here") })
	b.serve(&lab.Site{Names: []string{"direct.example.org"}, Handler: ok})
	b.serve(&lab.Site{Names: []string{"shared.example.org", "scanned.example.org"}, Handler: ok})
	b.start(fastManifest)
	trustInternet(b)
	for _, host := range []string{
		"direct.example.org", "direct.example.org",
		"shared.example.org", // its address is known for nothing else yet
		"scanned.example.org",
		"shared.example.org",
	} {
		if err := wantStatus(b.get("https://"+host+"/"), http.StatusOK); err != nil {
			t.Fatalf("%s: %v", host, err)
		}
	}
	b.mustHaveLane("direct.example.org", "fastpath")
	b.mustHaveLane("scanned.example.org", "intercept")
	eventually(t, func() error {
		if n, m := len(b.fastRecords("direct.example.org")), len(b.fastRecords("shared.example.org")); n != 2 || m != 1 {
			return fmt.Errorf("%d and %d records of the fast path", n, m)
		}
		return nil
	})
	for _, r := range b.fastRecords("direct.example.org") {
		if r.Decision != "passthrough" || r.Reason != "route" && r.Reason != "reset" {
			t.Errorf("the record is %+v", r)
		}
	}
}

// TestFastPathOutlivesKill kills gatewayd in the middle of transfers each way,
// and starts it again, as it is and in another version: each side has every
// byte, in one connection.
func TestFastPathOutlivesKill(t *testing.T) {
	const host = "direct.example.org"
	other := otherBinary(t)
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{host}, Handler: streamHandler()})
	b.start(fastManifest)
	trustInternet(b)
	size := b.bulkFor(host)
	for _, tc := range []struct{ name, direction, binary string }{
		{"down", "down", b.Gateway.Binary}, {"up", "up", b.Gateway.Binary},
		{"down, upgraded", "down", other}, {"up, downgraded", "up", b.Gateway.Binary},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eventually(t, func() error { // its bytes are this transfer's
				if b.fastBytes(host, 1) == nil {
					return errors.New("the transfer before is still among the flows")
				}
				return nil
			})
			done := make(chan result, 1)
			go func() {
				done <- b.client("bulk", "1", tc.direction, "https://"+host+"/bulk", strconv.FormatInt(size, 10))
			}()
			eventually(t, func() error { return b.fastBytes(host, size/16) })
			b.kill()
			b.Gateway.Binary = tc.binary
			if err := b.Gateway.Start(); err != nil {
				t.Fatal(err)
			}
			if r := b.ended(done); r != nil {
				t.Errorf("the transfer ended before gatewayd was back: %v", r)
				return
			}
			if r := <-done; r.Failed != nil {
				t.Errorf("the transfer: %v", r)
			}
			b.ready()
		})
	}
}

// bulkFor is how much takes long enough here that gatewayd can be started meanwhile: some 20 s where that is less than a
// gigabyte, as on an emulated machine.
func (b *bench) bulkFor(host string) int64 {
	b.t.Helper()
	r := b.client("bulk", "1", "down", "https://"+host+"/bulk", strconv.Itoa(16<<20))
	rate, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(r.Out), " MB/s"), 10, 64)
	if r.Failed != nil || err != nil {
		b.t.Fatalf("the first transfer: %v: %v", err, r)
	}
	return min(1<<30, max(32<<20, rate<<20*20))
}

// fastBytes reports as an error that less than n bytes have moved in an open
// fast-path flow to host.
func (b *bench) fastBytes(host string, n int64) error {
	return b.fastFlow(host, func(f fastFlow) bool { return f.Up+f.Down >= n })
}

// fastFlow is what the tests read of an open flow.
type fastFlow struct {
	Host, Lane string
	Up         int64 `json:"bytes_up"`
	Down       int64 `json:"bytes_down"`
}

// flows are those that are open.
func (b *bench) flows() (flows []fastFlow, err error) {
	out, err := b.Gateway.Command(b.t.Context(), "flows", "-o", "json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out, &flows); err != nil {
		return nil, fmt.Errorf("flows %q: %w", out, err)
	}
	return flows, nil
}

// fastFlow reports as an error that no open fast-path flow to host is as wanted.
func (b *bench) fastFlow(host string, wanted func(fastFlow) bool) error {
	flows, err := b.flows()
	if err != nil {
		return err
	}
	for _, f := range flows {
		if f.Host == host && f.Lane == "fastpath" && wanted(f) {
			return nil
		}
	}
	return fmt.Errorf("the flows are %+v", flows)
}

func (b *bench) fastRecords(host string) []record {
	return slices.DeleteFunc(b.records(), func(r record) bool { return r.Host != host || r.Lane != "fastpath" })
}

// TestPassthroughToPrivateAddresses passes hosts through whose addresses are private: one because its route allows that, one
// because the range is allowed to all. Both are the relay's, since nothing is forwarded to such addresses; and one that
// nothing allows is not reached.
func TestPassthroughToPrivateAddresses(t *testing.T) {
	b := newBench(t, map[string]any{"allow_ranges": []string{lab.Public.String(), "10.77.1.0/24"}})
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "here") })
	byRoute := b.serve(&lab.Site{Names: []string{"route.example.org"}, Addr: netip.MustParseAddr("10.77.2.9"), Handler: ok})
	byRange := b.serve(&lab.Site{Names: []string{"range.example.org"}, Addr: netip.MustParseAddr("10.77.1.9"), Handler: ok})
	neither := b.serve(&lab.Site{Names: []string{"neither.example.org"}, Addr: netip.MustParseAddr("10.77.3.9"), Handler: ok})
	b.start(`
egress:
  routes:
    - { host: route.example.org, allow_private: true, pipelock: { tls_passthrough: true } }
    - { host: range.example.org, pipelock: { tls_passthrough: true } }
    - { host: neither.example.org, pipelock: { tls_passthrough: true } }
`)
	trustInternet(b)
	for _, host := range []string{"route.example.org", "range.example.org"} {
		if err := wantStatus(b.get("https://"+host+"/"), http.StatusOK); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		b.mustHaveLane(host, "relay")
	}
	if seen := b.get("https://neither.example.org/"); seen.Status == http.StatusOK {
		t.Errorf("the host that nothing allows: %+v", seen)
	}
	if a, r, n := len(byRoute.Requests()), len(byRange.Requests()), len(neither.Requests()); a != 1 || r != 1 || n != 0 {
		t.Errorf("the sites saw %d, %d and %d requests", a, r, n)
	}
}
