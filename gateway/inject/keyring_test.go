package inject

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// newKeyring returns the keyring after one that a test's clock goes with.
func newKeyring(t *testing.T, c *clock, log *slog.Logger, held ...Held) *Keyring {
	t.Helper()
	before := &Keyring{now: c.now, changes: new(atomic.Uint64)}
	k, err := NewKeyring(held, before, log)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// next returns the keyring of the plan after k's.
func (k *Keyring) next(t *testing.T, held ...Held) *Keyring {
	t.Helper()
	n, err := NewKeyring(held, k, k.log)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// known returns what is looked for.
func (k *Keyring) known() []string {
	var out []string
	for _, v := range k.Values() {
		out = append(out, v.Secret.Reveal())
	}
	return out
}

func wantKnown(t *testing.T, k *Keyring, want ...string) {
	t.Helper()
	if got := k.known(); !slices.Equal(got, want) {
		t.Errorf("known are %q, want %q", got, want)
	}
}

func fileRef(path string) Held { return Held{Ref: routes.SecretRef{File: path}} }

func TestKeyringFollowsAFile(t *testing.T) {
	c := &clock{at: time.Now()}
	path := filepath.Join(t.TempDir(), "token")
	put(t, path, "first-value\n", time.Hour)
	k := newKeyring(t, c, slog.New(slog.DiscardHandler), fileRef(path))
	wantKnown(t, k)
	k.Refresh()
	wantKnown(t, k, "first-value")
	was := k.Generation()
	c.pass(readAgain)
	if k.Refresh(); k.Generation() != was {
		t.Error("nothing changed, and yet it is another generation")
	}
	put(t, path, "second-value", time.Minute)
	if k.Refresh(); k.Generation() != was {
		t.Error("it was looked again at once")
	}
	c.pass(readAgain)
	k.Refresh()
	wantKnown(t, k, "second-value", "first-value")
	if k.Generation() == was {
		t.Error("the generation is that of before")
	}

	put(t, path, "third-value", 0)
	want(t, k.Source(routes.SecretRef{File: path}), "third-value") // as an injector asks
	wantKnown(t, k, "third-value", "second-value", "first-value")
	put(t, path, "first-value", 0)
	c.pass(time.Minute)
	k.Refresh()
	wantKnown(t, k, "first-value", "third-value", "second-value") // each once

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	c.pass(formerTime - time.Second)
	k.Refresh()
	wantKnown(t, k, "first-value", "third-value")
	was = k.Generation()
	c.pass(time.Second)
	k.Refresh()
	wantKnown(t, k, "first-value")
	if k.Generation() == was {
		t.Error("values are forgotten in the generation of before")
	}
}

func TestFormerValuesAreBounded(t *testing.T) {
	c := &clock{at: time.Now()}
	k := newKeyring(t, c, slog.New(slog.DiscardHandler), Held{Ref: routes.SecretRef{Env: "INJECT_TEST_TOKEN"}})
	for i := range 3 * formerValues {
		t.Setenv("INJECT_TEST_TOKEN", fmt.Sprintf("value-number-%d", i))
		c.pass(readAgain)
		k.Refresh()
	}
	if got := k.known(); len(got) != formerValues+1 || got[0] != fmt.Sprintf("value-number-%d", 3*formerValues-1) {
		t.Errorf("known are %q", got)
	}
	for i := range 3 {
		t.Setenv("INJECT_TEST_TOKEN", strings.Repeat(string(rune('a'+i)), maxSecret))
		c.pass(readAgain)
		k.Refresh()
	}
	if got := k.known(); len(got) != 2 {
		t.Errorf("%d values of 64 KB are known, want the current one and one before", len(got))
	}
}

// TestKeyringRunsNoPrograms: what a program prints is known from when an injector has asked for it.
func TestKeyringRunsNoPrograms(t *testing.T) {
	c := &clock{at: time.Now()}
	runs := filepath.Join(t.TempDir(), "runs")
	ref := routes.SecretRef{Command: []string{"/bin/sh", "-c", `echo run >> "$0"; echo printed-value`, runs}}
	k := newKeyring(t, c, slog.New(slog.DiscardHandler), Held{Ref: ref}, Held{Ref: ref, Homes: []string{"home.test"}})
	k.Refresh()
	if _, err := os.Stat(runs); err == nil {
		t.Error("the program ran for the scan alone")
	}
	for range 3 {
		want(t, k.Source(ref), "printed-value")
		c.pass(readAgain)
		k.Refresh()
	}
	wantKnown(t, k, "printed-value")
	if v := k.Values(); !slices.Equal(v[0].Homes, []string{"home.test"}) {
		t.Errorf("homes %q", v[0].Homes)
	}
	k = k.next(t, Held{Ref: ref})
	want(t, k.Source(ref), "printed-value")
	if b, err := os.ReadFile(runs); err != nil || string(b) != "run\n" {
		t.Errorf("the program ran %q, %v; want once, over a new plan too", b, err)
	}
}

// TestSecretsOfFormerPlans: a plan that takes its secret from elsewhere does not make the old one harmless at once.
func TestSecretsOfFormerPlans(t *testing.T) {
	c := &clock{at: time.Now()}
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	put(t, one, "value-of-one", time.Hour)
	put(t, two, "value-of-two", time.Hour)
	k := newKeyring(t, c, slog.New(slog.DiscardHandler), fileRef(one))
	k.Refresh()
	k = k.next(t, fileRef(two))
	k.Refresh()
	wantKnown(t, k, "value-of-two", "value-of-one")
	if k.Source(routes.SecretRef{File: one}) != nil {
		t.Error("a secret of the plan before can be put in")
	}
	k = k.next(t, fileRef(one), fileRef(two))
	wantKnown(t, k, "value-of-one", "value-of-two")
	k = k.next(t)
	wantKnown(t, k, "value-of-one", "value-of-two")
	was := k.Generation()
	c.pass(formerTime)
	k.Refresh()
	wantKnown(t, k)
	if k.Generation() == was {
		t.Error("the generation is that of before")
	}
	for i := range 2 * maxGone {
		path := filepath.Join(dir, fmt.Sprint(i))
		put(t, path, fmt.Sprintf("value-number-%d", i), time.Hour)
		k = k.next(t, fileRef(path))
		c.pass(readAgain)
		k.Refresh()
	}
	if got := k.known(); len(got) != maxGone+1 {
		t.Errorf("%d secrets are known, want %d", len(got), maxGone+1)
	}
}

// TestKeyringSaysWhatItCannotRead: once, and without the value.
func TestKeyringSaysWhatItCannotRead(t *testing.T) {
	c := &clock{at: time.Now()}
	var log bytes.Buffer
	ref := routes.SecretRef{Env: "INJECT_TEST_TOKEN"}
	k := newKeyring(t, c, slog.New(slog.NewTextHandler(&log, nil)), Held{Ref: ref})
	look := func() string {
		log.Reset()
		c.pass(readAgain)
		k.Refresh()
		return log.String()
	}
	if said := look(); !strings.Contains(said, "env:INJECT_TEST_TOKEN") || !strings.Contains(said, "not set") || !strings.Contains(said, "remedy") {
		t.Errorf("said %q", said)
	}
	if said := look(); said != "" {
		t.Errorf("said again %q", said)
	}
	t.Setenv("INJECT_TEST_TOKEN", "sevenby")
	if said := look(); !strings.Contains(said, "7 bytes") || strings.Contains(said, "sevenby") {
		t.Errorf("said of a short value %q", said)
	}
	wantKnown(t, k)
	t.Setenv("INJECT_TEST_TOKEN", "long-enough")
	look()
	// {"alg":"HS256"} . {"exp":1} . a signature: one that has expired may be in a guest all the same
	expired := "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl"
	t.Setenv("INJECT_TEST_TOKEN", expired)
	if said := look(); said != "" {
		t.Errorf("said %q", said)
	}
	wantKnown(t, k, expired, "long-enough")
	t.Setenv("INJECT_TEST_TOKEN", "")
	if said := look(); said != "" {
		t.Errorf("said %q of a secret whose last value is looked for", said)
	}
}

func TestKeyringRefusesNoReference(t *testing.T) {
	if _, err := NewKeyring([]Held{{}}, nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a secret without a source is taken")
	}
}

// TestKeyringRace: a value is known by the time that whoever asked for it has it.
func TestKeyringRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	put(t, path, "value-number-0", time.Hour)
	ref := fileRef(path)
	k, err := NewKeyring([]Held{ref}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				s, err := k.Source(ref.Ref).Secret(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if got := k.known(); !slices.Contains(got, s.Reveal()) {
					t.Errorf("%s was put in, and known are %q", s.Reveal(), got)
				}
				k.Refresh()
			}
		})
	}
	wg.Go(func() {
		for i := range formerValues { // so that none is forgotten
			next := path + ".new"
			put(t, next, fmt.Sprintf("value-number-%d", i), 0)
			if err := os.Rename(next, path); err != nil {
				t.Error(err)
			}
			n, err := NewKeyring([]Held{ref}, k, k.log)
			if err != nil {
				t.Error(err)
				return
			}
			n.Refresh()
		}
	})
	wg.Wait()
}
