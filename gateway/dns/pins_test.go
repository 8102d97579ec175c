package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// clock is a time that tests move by hand.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newClock() *clock { return &clock{time.Now()} }

func TestPins(t *testing.T) {
	c := newClock()
	p := newPins(Limits{Grace: time.Minute}, c.now)
	add := func(name string, ttl time.Duration, addrs ...string) {
		t.Helper()
		if err := p.Add(name, addrsOf(addrs...), ttl); err != nil {
			t.Fatal(err)
		}
	}
	add("b.example.test", 30*time.Second, "192.0.2.1", "::ffff:192.0.2.2")
	add("a.example.test", 2*time.Minute, "192.0.2.1")
	names := func(addr string) string { return fmt.Sprint(p.Names(netip.MustParseAddr(addr))) }
	for addr, want := range map[string]string{
		"192.0.2.1": "[a.example.test b.example.test]", "::ffff:192.0.2.1": "[a.example.test b.example.test]",
		"192.0.2.2": "[b.example.test]", "192.0.2.3": "[]",
	} {
		if got := names(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	want := []Pin{
		{netip.MustParseAddr("192.0.2.1"), "a.example.test", c.t.Add(3 * time.Minute)},
		{netip.MustParseAddr("192.0.2.1"), "b.example.test", c.t.Add(90 * time.Second)},
		{netip.MustParseAddr("192.0.2.2"), "b.example.test", c.t.Add(90 * time.Second)},
	}
	if got := p.Snapshot(); !slices.Equal(got, want) {
		t.Errorf("snapshot %v", got)
	}
	add("a.example.test", 0, "192.0.2.1") // renewing does not shorten
	c.t = c.t.Add(90*time.Second - 1)
	if got := names("192.0.2.1"); got != "[a.example.test b.example.test]" {
		t.Errorf("just before the end: %s", got)
	}
	c.t = c.t.Add(1)
	if got := names("192.0.2.1"); got != "[a.example.test]" {
		t.Errorf("at the end: %s", got)
	}
	if got := p.Snapshot(); !slices.Equal(got, want[:1]) {
		t.Errorf("snapshot %v", got)
	}
	add("a.example.test", 2*time.Minute, "192.0.2.1")
	c.t = c.t.Add(2 * time.Minute)
	if got := names("192.0.2.1"); got != "[a.example.test]" {
		t.Errorf("after renewal: %s", got)
	}
}

func TestPinsRefuse(t *testing.T) {
	p := NewPins(Limits{AddrsPerName: 2})
	for what, c := range map[string]struct {
		name  string
		addrs []netip.Addr
		ttl   time.Duration
	}{
		"no name":      {"", addrsOf("192.0.2.1"), 0},
		"no address":   {"a.example.test", nil, 0},
		"zero address": {"a.example.test", []netip.Addr{{}}, 0},
		"zone":         {"a.example.test", addrsOf("fe80::1%eth0"), 0},
		"negative TTL": {"a.example.test", addrsOf("192.0.2.1"), -1},
		"too many":     {"a.example.test", addrsOf("192.0.2.1", "192.0.2.2", "192.0.2.3"), 0},
	} {
		var pe *PinError
		if err := p.Add(c.name, c.addrs, c.ttl); !errors.As(err, &pe) || pe.Name != c.name || pe.Reason == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := p.Snapshot(); len(got) != 0 {
		t.Errorf("pinned %v", got)
	}
}

func TestPinsBudgets(t *testing.T) {
	c := newClock()
	p := newPins(Limits{AddrsPerName: 3, NamesPerAddr: 2, Total: 5, Grace: time.Second}, c.now)
	add := func(name string, ttl time.Duration, addrs ...string) error {
		return p.Add(name, addrsOf(addrs...), ttl)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// A name that moves about keeps the addresses told last.
	must(add("a.test", 10*time.Second, "192.0.2.1", "192.0.2.2"))
	must(add("a.test", 20*time.Second, "192.0.2.3"))
	must(add("a.test", 5*time.Second, "192.0.2.4", "192.0.2.5"))
	if got := fmt.Sprint(p.byNames()); got != "map[192.0.2.3:[a.test] 192.0.2.4:[a.test] 192.0.2.5:[a.test]]" {
		t.Errorf("per name: %s", got)
	}
	// An address that many names share keeps the names that last longest, and the new one.
	must(add("b.test", 30*time.Second, "192.0.2.3"))
	must(add("c.test", time.Second, "192.0.2.3"))
	if got := fmt.Sprint(p.Names(netip.MustParseAddr("192.0.2.3"))); got != "[b.test c.test]" {
		t.Errorf("per address: %s", got)
	}
	// The total: refused as a whole, until something has expired.
	must(add("d.test", 10*time.Second, "192.0.2.9"))
	before := p.Snapshot()
	var pe *PinError
	if err := add("e.test", time.Second, "192.0.2.9", "192.0.2.8"); !errors.As(err, &pe) {
		t.Fatalf("over the total: %v", err)
	}
	if got := p.Snapshot(); !slices.Equal(got, before) || len(got) != 5 {
		t.Errorf("after a refusal: %v, before %v", got, before)
	}
	must(add("d.test", 10*time.Second, "192.0.2.9")) // renewing needs no room
	c.t = c.t.Add(2 * time.Second)                   // c.test has expired
	must(add("e.test", time.Second, "192.0.2.8"))
	if err := add("f.test", time.Second, "192.0.2.8"); err == nil {
		t.Error("over the total")
	}
	c.t = c.t.Add(time.Hour)
	must(add("g.test", time.Second, "192.0.2.7"))
	if got := p.Snapshot(); len(got) != 1 || p.total != 1 || len(p.byAddr) != 1 || len(p.byName) != 1 {
		t.Errorf("left behind: %v, total %d, %d addresses, %d names", got, p.total, len(p.byAddr), len(p.byName))
	}
}

// byNames returns the live names by address.
func (p *Pins) byNames() map[netip.Addr][]string {
	m := map[netip.Addr][]string{}
	for _, pin := range p.Snapshot() {
		m[pin.Addr] = append(m[pin.Addr], pin.Name)
	}
	return m
}

// A change of the host's clock is no change of the pins: their times carry the monotonic reading.
func TestPinsAreMonotonic(t *testing.T) {
	p := NewPins(Limits{})
	if err := p.Add("a.test", addrsOf("192.0.2.1"), time.Second); err != nil {
		t.Fatal(err)
	}
	at := p.Snapshot()[0].Expires
	if at == at.Round(0) {
		t.Error("the expiry has no monotonic reading")
	}
}

func TestPinsAtOnce(t *testing.T) {
	p := NewPins(Limits{Total: 50, NamesPerAddr: 3, AddrsPerName: 3})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				name := fmt.Sprintf("n%d.test", (i*7+g)%20)
				addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 9)})
				_ = p.Add(name, []netip.Addr{addr}, time.Duration(i)*time.Millisecond)
				p.Names(addr)
				p.Snapshot()
			}
		})
	}
	wg.Wait()
	n := 0
	for a, names := range p.byAddr {
		n += len(names)
		for name := range names {
			if _, ok := p.byName[name][a]; !ok {
				t.Errorf("%s and %s are pinned on one side only", name, a)
			}
		}
		if len(names) > 3 {
			t.Errorf("%s has %d names", a, len(names))
		}
	}
	if n != p.total || n > 50 {
		t.Errorf("%d pins, counted %d", n, p.total)
	}
}

// TestPinsRestore puts back what Snapshot gave, with the time that is left, and never shortens.
func TestPinsRestore(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	p := newPins(Limits{Grace: time.Minute, Total: 1, NamesPerAddr: 1}, clock)
	if err := p.Add("kept.test", []netip.Addr{a}, time.Hour); err != nil {
		t.Fatal(err)
	}
	p.Restore([]Pin{
		{Addr: a, Name: "kept.test", Expires: now.Add(time.Second)}, {Addr: a, Name: "also.test", Expires: now.Add(time.Second)},
		{Addr: b, Name: "over.test", Expires: now}, {Addr: b, Expires: now.Add(time.Hour)}, {Name: "nowhere.test", Expires: now.Add(time.Hour)},
	})
	if got := p.Names(a); !slices.Equal(got, []string{"also.test", "kept.test"}) || p.Names(b) != nil {
		t.Errorf("names are %v and %v", got, p.Names(b))
	}
	now = now.Add(time.Second)
	if got := p.Names(a); !slices.Equal(got, []string{"kept.test"}) {
		t.Errorf("a second later names are %v", got)
	}
}
