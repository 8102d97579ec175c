package redirect

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gatewayd/lab/privileged"
)

var update = flag.Bool("update", false, "write testdata/ruleset.nft anew")

// TestRulesetIsTheGoldenText applies the ruleset and compares what nft prints;
// then it applies the golden text with nft, and finds it to be the ruleset.
func TestRulesetIsTheGoldenText(t *testing.T) {
	privileged.Require(t, privileged.Root, privileged.Program("nft"), privileged.File("/etc/protocols"))
	golden := filepath.Join("testdata", "ruleset.nft")
	wall := firewall{instance: "golden", uplink: "eth0", fast: true, guard: true}
	links := []string{"tap7", "tap7"} // nft lists two names in any order
	t.Cleanup(func() { wall.remove() })
	changed, err := wall.ensure(links)
	must(t, err)
	if !changed {
		t.Error("the first time changed nothing")
	}
	got, err := exec.Command("nft", "-s", "list", "table", "inet", "golden").Output()
	must(t, err)
	if *update {
		must(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if string(got) != string(want) {
		t.Errorf("the table is\n%s\nwant\n%s", got, want)
	}
	flushRuleset(t)
	if out, err := exec.Command("nft", "-f", golden).CombinedOutput(); err != nil {
		t.Fatalf("nft -f %s: %v: %s", golden, err, out)
	}
	if changed, err = wall.ensure(links); err != nil || changed {
		t.Errorf("the golden text is not the ruleset: changed %t, %v", changed, err)
	}
	if changed, err = (firewall{instance: "golden", uplink: "eth1", fast: true, guard: true}).ensure(links); err != nil || !changed {
		t.Errorf("another uplink: changed %t, %v", changed, err)
	}
}

func TestRemoveTable(t *testing.T) {
	privileged.Require(t, privileged.Root)
	wall := firewall{instance: "removed"}
	_, err := wall.ensure(nil)
	must(t, err)
	for _, want := range []bool{true, false} {
		if there, err := wall.remove(); err != nil || there != want {
			t.Errorf("removed %t, %v, want %t", there, err, want)
		}
	}
}
