package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatewayd/lab"
)

// TestFastPathRevoked takes a route out of the manifest while the kernel carries transfers to its host each way: both are
// reset, and their records say why. What goes on to another host does not notice.
func TestFastPathRevoked(t *testing.T) {
	const gone, stays = "direct.example.org", "shared.example.org"
	b := newBench(t, nil)
	b.serve(&lab.Site{Names: []string{gone}, Handler: streamHandler(), Forgets: true})
	b.serveEcho(stays, &tls.Config{})
	b.start(fastManifest)
	trustInternet(b)

	stop := filepath.Join(b.Dir, "stop")
	other := make(chan result, 1)
	go func() { other <- b.client("steady", stays, "4", stop) }()
	cut := map[string]chan result{"down": make(chan result, 1), "up": make(chan result, 1)}
	for direction, over := range cut {
		go func() { // more than it can move
			over <- b.client("bulk", "1", direction, "https://"+gone+"/bulk", strconv.FormatInt(1<<50, 10))
		}()
	}
	for _, moved := range []func(fastFlow) bool{
		func(f fastFlow) bool { return f.Down > 1<<20 }, func(f fastFlow) bool { return f.Up > 1<<20 },
	} {
		eventually(t, func() error { return b.fastFlow(gone, moved) })
	}
	eventually(t, func() error { return b.fastBytes(stays, 1<<20) })

	began := time.Now()
	b.writeManifest(strings.Replace(fastManifest, gone, "another.example.org", 1))
	for direction, over := range cut {
		r := <-over
		t.Logf("%s: over %v after the manifest was written", direction, time.Since(began))
		// Up, the client's other goroutine may have met the reset first, and closed.
		if r.Failed == nil || direction == "down" && !strings.Contains(r.Err, "connection reset by peer") {
			t.Errorf("%s: %v", direction, r)
		}
	}
	before := len(b.fastRecords(stays))
	eventually(t, func() error {
		if n := len(b.fastRecords(stays)); n < before+5 {
			return fmt.Errorf("%d new connections to the host that stays", n-before)
		}
		return nil
	})
	writeFile(t, stop, nil)
	var seen steadySeen
	r := <-other
	if err := json.Unmarshal([]byte(r.Out), &seen); r.Failed != nil || err != nil {
		t.Fatalf("the client of the host that stays: %v: %v", err, r)
	}
	if seen.Open != 4 || seen.Resets != 0 || seen.Lost != 0 || len(seen.Failures) != 0 {
		t.Errorf("the client of the host that stays saw %+v", seen)
	}
	eventually(t, func() error {
		if n := len(b.fastRecords(gone)); n != 2 {
			return fmt.Errorf("%d records of the host that is gone", n)
		}
		return nil
	})
	for _, r := range b.fastRecords(gone) {
		if r.Reason != "revoked" || r.Decision != "passthrough" {
			t.Errorf("the record is %+v", r)
		}
	}
	b.mustHaveLane(stays, "fastpath")
}
