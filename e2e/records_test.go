package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"gatewayd/lab"
)

// record is what the tests read of the audit file.
type record struct {
	Type     string `json:"type"`
	ID       string `json:"id"`
	Bottle   string `json:"bottle"`
	Src      string `json:"src"`
	Dst      string `json:"dst"`
	Host     string `json:"host"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Status   int    `json:"status"`
	Decision string `json:"decision"`
	Lane     string `json:"lane"`
	Rule     string `json:"rule"`
	Reason   string `json:"reason"`
	Remedy   string `json:"remedy"`
	Injected bool   `json:"injected"`
	Finding  string `json:"finding"`
}

// records reads the audit file.
func (b *bench) records() []record {
	b.t.Helper()
	return readRecords(b.t, b.Gateway)
}

// mustHaveLane checks that flows to a host were carried, and by no other lane, but for those from ports that another has just had.
func (b *bench) mustHaveLane(host string, lanes ...string) {
	b.t.Helper()
	mustHaveLane(b.t, b.Gateway, host, lanes...)
}

func readRecords(t testing.TB, g *lab.Gatewayd) []record {
	t.Helper()
	data, err := os.ReadFile(g.AuditFile)
	if err != nil {
		t.Fatal(err)
	}
	var list []record
	for line := range strings.Lines(string(data)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("record %q: %v", line, err)
		}
		list = append(list, r)
	}
	return list
}

func mustHaveLane(t testing.TB, g *lab.Gatewayd, host string, lanes ...string) {
	t.Helper()
	eventually(t, func() error {
		seen := 0
		list := readRecords(t, g)
		had := replacedPorts(list, host)
		for _, r := range list {
			if r.Type != "flow" || r.Host != host {
				continue
			}
			seen++
			if !slices.Contains(lanes, r.Lane) && (r.Lane != "relay" || !had[r.Src]) {
				return fmt.Errorf("a flow to %s took the lane %q, want one of %q", host, r.Lane, lanes)
			}
		}
		if seen == 0 {
			return os.ErrNotExist
		}
		return nil
	})
}

// replacedPorts are the guest's addresses and ports from which a connection to host came before the flow of another was collected.
// Such a connection is the relay's, and the client's kernel may choose a port again.
func replacedPorts(list []record, host string) map[string]bool {
	ports := map[string]bool{}
	for _, r := range list {
		if r.Type == "flow" && r.Host == host && r.Lane == "fastpath" && r.Reason == "replaced" {
			ports[r.Src] = true
		}
	}
	return ports
}
