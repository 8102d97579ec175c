package e2e

import (
	"fmt"
	"net/http"
	"slices"
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

func (b *bench) fastRecords(host string) []record {
	return slices.DeleteFunc(b.records(), func(r record) bool { return r.Host != host || r.Lane != "fastpath" })
}
