package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestRulesFollowTheirFile changes the operator's rules under a running bottle.
func TestRulesFollowTheirFile(t *testing.T) {
	const rule = "[[rules]]\nid = \"%\"\nregex = 'acme_[a-z]{8}'\nkeywords = [\"acme_\"]\n"
	named := func(id string) string { return strings.ReplaceAll(rule, "%", id) }
	path := filepath.Join(t.TempDir(), "rules.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(named("first"))
	w := newWorld(t)
	book, err := newRulebook(path)
	if err != nil {
		t.Fatal(err)
	}
	w.daemon.rules, w.keeper.rules = book, book
	w.write("dev", manifest("dev", before))
	has := func(id string) bool { return w.fleet.desired[0].Formats.Has(id) }
	if err := w.look(); err != nil || !has("first") || !slices.Contains(w.watched, path) {
		t.Fatalf("at start: %v, first %v, watched %q", err, has("first"), w.watched)
	}
	set := w.fleet.desired[0].Formats
	if err := w.look(); err != nil || w.fleet.desired[0].Formats != set {
		t.Errorf("unchanged: %v, compiled again: %v", err, w.fleet.desired[0].Formats != set)
	}

	write(named("second"))
	if err := w.look(); err != nil || has("first") || !has("second") || !has("github-pat") {
		t.Errorf("changed: %v, first %v, second %v", err, has("first"), has("second"))
	}

	for name, breakIt := range map[string]func(){
		"broken": func() { write(named("third") + "[[rules]]\nid = \"other\"\nregex = '('\n") },
		"gone":   func() { os.Remove(path) },
	} {
		breakIt()
		for range 2 {
			if err := w.look(); err != nil || !has("second") || has("third") || !w.again {
				t.Errorf("%s: %v, second %v, third %v, looked at again soon %v", name, err, has("second"), has("third"), w.again)
			}
		}
		if _, failure := w.keeper.entries(); !strings.Contains(failure, "rules.toml") {
			t.Errorf("%s: %q", name, failure)
		}
		if n := strings.Count(w.log.String(), "pipelock.rules failed"); n != 1 {
			t.Errorf("%s: logged %d times: %s", name, n, w.log)
		}
		w.log.Reset()
		write(named("second"))
		if err := w.look(); err != nil || w.again || w.keeper.failure != "" {
			t.Errorf("%s, then whole: %v, %q", name, err, w.keeper.failure)
		}
	}
	if got := testutil.ToFloat64(w.keeper.metrics.reloads.WithLabelValues("failed")); got != 4 {
		t.Errorf("%v looks counted as failed", got)
	}

	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := w.look(); err != nil || !has("second") {
		t.Errorf("half-written: %v, second %v", err, has("second"))
	}
}

func TestRulebookRefusesAtStart(t *testing.T) {
	if _, err := newRulebook(filepath.Join(t.TempDir(), "none.toml")); err == nil {
		t.Error("a file that is not there is taken")
	}
	if r, err := newRulebook(""); err != nil || !r.rules().Has("github-pat") || len(r.files()) != 0 {
		t.Errorf("no file: %v", err)
	}
}
