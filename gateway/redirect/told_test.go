package redirect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// recalled is what is remembered for a link, sorted and without times.
func recalled(t *testing.T, r *Redirect, bottle string) []string {
	t.Helper()
	told, err := r.Recall(bottle)
	must(t, err)
	names := make([]string, 0, len(told))
	for _, n := range told {
		names = append(names, n.Name+" "+n.Addr.String())
	}
	slices.Sort(names)
	return names
}

// TestRemembersBeyondTheProcess gives names to one process and has the next one recall them, each for its own bottle and
// with the time that it has left.
func TestRemembersBeyondTheProcess(t *testing.T) {
	s := newStage(t)
	one, two := s.link(1), s.link(2)
	s.set(one, two)
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	a, b := netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("93.184.216.35")
	must(t, s.r.Remember(one.Bottle, []Told{{goodName, a, in(time.Hour)}, {goodName, b, in(time.Hour)}, {"other.test", a, in(time.Minute)}}))
	must(t, s.r.Remember(one.Bottle, []Told{{goodName, a, in(time.Minute)}})) // not shortened
	must(t, s.r.Remember(two.Bottle, []Told{{"two.test", a, in(time.Hour)}, {"over.test", b, in(-time.Second)}}))
	must(t, s.r.Close())
	s.open()
	if _, err := s.r.Recall(one.Bottle); err == nil {
		t.Error("a bottle is recalled before its link is looked after")
	}
	s.set(one, two)
	if got, want := recalled(t, s.r, one.Bottle), []string{goodName + " " + a.String(), goodName + " " + b.String(), "other.test " + a.String()}; !slices.Equal(got, want) {
		t.Errorf("recalled %v, want %v", got, want)
	}
	if got, want := recalled(t, s.r, two.Bottle), []string{"two.test " + a.String()}; !slices.Equal(got, want) {
		t.Errorf("recalled %v, want %v", got, want)
	}
	told, err := s.r.Recall(one.Bottle)
	must(t, err)
	longest := slices.MaxFunc(told, func(x, y Told) int { return cmp.Compare(time.Until(x.Expires), time.Until(y.Expires)) })
	if left := time.Until(longest.Expires); left > time.Hour || left < time.Hour-time.Minute {
		t.Errorf("%v has %v left of an hour", longest, left)
	}
	s.set(one) // the other bottle's link is shut
	s.set(one, two)
	if got := recalled(t, s.r, two.Bottle); len(got) != 0 {
		t.Errorf("a link that was shut meanwhile recalls %v", got)
	}
}

// TestMemoryHasABudget fills one bottle's. What is beyond is forgotten with all that is known of its address; the other
// bottle has its own.
func TestMemoryHasABudget(t *testing.T) {
	s := newStage(t)
	one, two := s.link(1), s.link(2)
	s.set(one, two)
	at, later := netip.MustParseAddr("93.184.216.34"), time.Now().Add(time.Hour)
	must(t, s.r.Remember(one.Bottle, []Told{{goodName, at.Next(), later}}))
	many := make([]Told, gatewayLimitsMAX_BOTTLE_TOLD-1)
	for i := range many {
		many[i] = Told{fmt.Sprintf("n%d.test", i), at, later}
	}
	must(t, s.r.Remember(one.Bottle, many))
	if err := s.r.Remember(one.Bottle, []Told{{goodName, at.Next(), later}, {"beyond.test", at.Next(), later}}); err == nil {
		t.Error("there was room beyond the budget")
	}
	if slices.Contains(recalled(t, s.r, one.Bottle), goodName+" "+at.Next().String()) {
		t.Error("an address is remembered by some of its names alone")
	}
	must(t, s.r.Remember(two.Bottle, []Told{{goodName, at, later}}))
	must(t, s.r.Remember(one.Bottle, []Told{{"room.test", at, later}})) // what was forgotten made room
}
