package e2e

import (
	"encoding/json"
	"os"
	"strings"
)

// record is what the tests read of the audit file.
type record struct {
	Type     string `json:"type"`
	ID       string `json:"id"`
	Bottle   string `json:"bottle"`
	Host     string `json:"host"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Status   int    `json:"status"`
	Decision string `json:"decision"`
	Lane     string `json:"lane"`
	Rule     string `json:"rule"`
	Reason   string `json:"reason"`
	Injected bool   `json:"injected"`
}

// records reads the audit file.
func (b *bench) records() []record {
	b.t.Helper()
	data, err := os.ReadFile(b.Gateway.AuditFile)
	if err != nil {
		b.t.Fatal(err)
	}
	var list []record
	for line := range strings.Lines(string(data)) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			b.t.Fatalf("record %q: %v", line, err)
		}
		list = append(list, r)
	}
	return list
}

// mustHaveLane checks that flows to a host were carried, and by no other lane.
func (b *bench) mustHaveLane(host string, lanes ...string) {
	b.t.Helper()
	found := func() (n int) {
		for _, r := range b.records() {
			if r.Type != "flow" || r.Host != host {
				continue
			}
			n++
			if !strings.Contains(strings.Join(lanes, " "), r.Lane) || r.Lane == "" {
				b.t.Errorf("a flow to %s took the lane %q, want one of %q", host, r.Lane, lanes)
			}
		}
		return n
	}
	eventually(b.t, func() error {
		if found() == 0 {
			return os.ErrNotExist
		}
		return nil
	})
}
