package e2e

import (
	"encoding/json"
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

// mustHaveLane checks that flows to a host were carried, and by no other lane.
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
	found := func() (n int) {
		for _, r := range readRecords(t, g) {
			if r.Type != "flow" || r.Host != host {
				continue
			}
			n++
			if !slices.Contains(lanes, r.Lane) {
				t.Errorf("a flow to %s took the lane %q, want one of %q", host, r.Lane, lanes)
			}
		}
		return n
	}
	eventually(t, func() error {
		if found() == 0 {
			return os.ErrNotExist
		}
		return nil
	})
}
