package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var test16 = netip.MustParsePrefix("198.19.0.0/16")

func TestAllocateIsStable(t *testing.T) {
	dir := t.TempDir()
	first, err := Allocate(dir, test16, Request{Bottle: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := Allocate(dir, test16, Request{Bottle: fmt.Sprint("b", i)}); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Allocate(dir, test16, Request{Bottle: "dev"})
	if err != nil || again != first {
		t.Errorf("first %v, then %v, %v", first, again, err)
	}
	if first.Prefix.Bits() != 30 || !test16.Contains(first.Guest) || first.Guest != first.Gateway.Next() || first.Gateway != first.Prefix.Addr().Next() {
		t.Errorf("numbered %+v", first)
	}
}

func TestAllocateAtOnce(t *testing.T) {
	dir, small := t.TempDir(), netip.MustParsePrefix("198.19.0.0/25") // 32 bottles exactly
	var wg sync.WaitGroup
	links := make([]Link, 32)
	for i := range links {
		wg.Go(func() {
			var err error
			if links[i], err = Allocate(dir, small, Request{Bottle: fmt.Sprint("b", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[netip.Prefix]bool{}
	for _, l := range links {
		if seen[l.Prefix] {
			t.Errorf("%s given twice", l.Prefix)
		}
		seen[l.Prefix] = true
	}
	if _, err := Allocate(dir, small, Request{Bottle: "one-too-many"}); !errors.Is(err, ErrExhausted) {
		t.Errorf("33rd of 32: %v", err)
	}
}

func TestAllocateAroundTheHost(t *testing.T) {
	small := netip.MustParsePrefix("198.19.0.0/29") // two /30
	use := []InUse{{Prefix: netip.MustParsePrefix("198.19.0.4/31"), Holder: "eth0"}}
	l, err := Allocate(t.TempDir(), small, Request{Bottle: "dev", InUse: use})
	if err != nil || l.Prefix != netip.MustParsePrefix("198.19.0.0/30") {
		t.Errorf("got %v, %v", l, err)
	}
}

func TestCollisionOfAnAllocationIsAnError(t *testing.T) {
	dir := t.TempDir()
	l, err := Allocate(dir, test16, Request{Bottle: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Allocate(dir, test16, Request{Bottle: "dev", InUse: []InUse{{Prefix: test16, Holder: "eth0"}}})
	var c *CollisionError
	if !errors.As(err, &c) || c.Fixed || c.Prefix != l.Prefix || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("got %v", err)
	}
}

func TestFixed(t *testing.T) {
	for _, c := range []struct{ fixed, guest, gateway, problem string }{
		{"198.18.0.2/30", "198.18.0.2", "198.18.0.1", ""},
		{"198.18.0.1/30", "198.18.0.1", "198.18.0.2", ""},
		{"198.18.7.9/24", "198.18.7.9", "198.18.7.1", ""},
		{"198.18.0.0/30", "", "", "network or broadcast"},
		{"198.18.0.3/30", "", "", "network or broadcast"},
		{"198.18.0.3/31", "", "", "no room"},
		{"198.18.0.3/32", "", "", "no room"},
		{"fd00::2/64", "", "", "no room"},
	} {
		t.Run(c.fixed, func(t *testing.T) {
			dir := t.TempDir()
			l, err := Allocate(dir, test16, Request{Bottle: "dev", Fixed: netip.MustParsePrefix(c.fixed)})
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("got %v, want %q", err, c.problem)
				}
				if _, err := os.Stat(filepath.Join(dir, fileName)); err == nil {
					t.Error("a refused address was written down")
				}
				return
			}
			if err != nil || l.Guest.String() != c.guest || l.Gateway.String() != c.gateway {
				t.Errorf("got %v, %v", l, err)
			}
		})
	}
}

func TestFixedCollidesWithAnotherBottle(t *testing.T) {
	dir := t.TempDir()
	if _, err := Allocate(dir, test16, Request{Bottle: "a", Fixed: netip.MustParsePrefix("198.18.0.2/24")}); err != nil {
		t.Fatal(err)
	}
	_, err := Allocate(dir, test16, Request{Bottle: "b", Fixed: netip.MustParsePrefix("198.18.0.6/30")})
	var c *CollisionError
	if !errors.As(err, &c) || !c.Fixed || c.With.Holder != "bottle a" {
		t.Errorf("got %v", err)
	}
	if _, err := Allocate(dir, test16, Request{Bottle: "a", Fixed: netip.MustParsePrefix("198.18.0.3/24")}); err != nil {
		t.Errorf("a bottle collides with itself: %v", err)
	}
}

func TestBrokenStateIsNoEmptyState(t *testing.T) {
	for _, text := range []string{"", "{", `{"bottles":{"dev":"198.19.0.1/30"}}`, `{"bottles":{"dev":""}}`, `{"bottles":{"dev":"fd00::/64"}}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := Allocate(dir, test16, Request{Bottle: "dev"}); err == nil {
			t.Errorf("%q: got %v", text, l)
		}
	}
}

func TestHostPrefixesLeavesOutOwnLink(t *testing.T) {
	all, err := HostPrefixes("")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		if u.Prefix.Addr().IsLoopback() || u.Prefix != u.Prefix.Masked() {
			t.Errorf("listed %v", u)
		}
		rest, err := HostPrefixes(u.Holder)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rest {
			if r.Holder == u.Holder {
				t.Errorf("%s is listed as not its own", u.Holder)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"bottles":{"dev":"198.19.0.0/30"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tab, err := parse("pool.json", b)
		if err != nil {
			return
		}
		if _, _, err := assign(netip.MustParsePrefix("198.19.0.0/28"), tab.Bottles, Request{Bottle: "dev"}); err != nil {
			var c *CollisionError
			if !errors.As(err, &c) && !errors.Is(err, ErrExhausted) {
				t.Error(err)
			}
		}
	})
}
