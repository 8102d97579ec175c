package dns

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"gatewayd/gateway/routes"
)

func TestHandleBudget(t *testing.T) {
	u := newUpstream(t, planWorld)
	s, _ := newServer(u, func(c *Config) { c.QueriesPerSecond, c.Burst = 0.001, 3 })
	for i := range 5 {
		got := summary(exchange(t, s, ask("evil.test.", dns.TypeA)))
		if want := []string{"NOERROR 198.18.0.9 ttl 5", "nothing"}[i/3]; got != want {
			t.Errorf("query %d: got %s, want %s", i, got, want)
		}
	}
	if o := s.Outcomes(); o[OverBudget] != 2 || o[Blocked] != 3 || len(o) != int(outcomes) {
		t.Errorf("outcomes %v", o)
	}
}

func TestHandleWildcards(t *testing.T) {
	u := newUpstream(t, planWorld)
	var inspected []string
	s, h := newServer(u, func(c *Config) {
		c.NewNamesPerMinute = 3
		c.Inspect = func(name, labels string) error {
			inspected = append(inspected, name+" "+labels)
			if strings.Contains(labels, "secret") {
				return errors.New("a known secret")
			}
			return nil
		}
	})
	ok, no := "NOERROR 192.0.2.20 ttl 60", "REFUSED"
	for _, c := range []struct{ name, want, event string }{
		{"a.wild.test.", ok, ""},
		{"b.c.wild.test.", ok, ""},
		{"my-secret.wild.test.", no, "leak my-secret.wild.test A"},
		{"1.2.3.4.5.6.7.wild.test.", no, "encoded 1.2.3.4.5.6.7.wild.test A"},
		{"d.wild.test.", ok, ""},
		{"e.wild.test.", no, "new_names e.wild.test A"},
		{"a.wild.test.", ok, ""},
		{"A.WILD.test.", ok, ""},
		{"a.example.test.", "NOERROR 192.0.2.1 192.0.2.2 ttl 200", ""},
	} {
		if got := summary(exchange(t, s, ask(c.name, dns.TypeA))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if events := strings.Join(h.take(), ", "); events != c.event {
			t.Errorf("%s: events %q, want %q", c.name, events, c.event)
		}
	}
	if inspected[0] != "a.wild.test a" || inspected[1] != "b.c.wild.test b.c" || slices.ContainsFunc(inspected, func(s string) bool {
		return strings.Contains(s, "example")
	}) {
		t.Errorf("inspected %q", inspected)
	}
	for _, q := range u.questions() {
		if name := strings.ToLower(q.msg.Question[0].Name); strings.Contains(name, "secret") || strings.HasPrefix(name, "e.") || strings.HasPrefix(name, "1.") {
			t.Errorf("asked upstream: %s", name)
		}
	}
}

// A rule that does not fit the name, from a faulty policy, allows nothing.
func TestWildcardRuleMustFit(t *testing.T) {
	s, _ := newServer(newUpstream(t, planWorld), nil)
	for _, pattern := range []string{"*.other.test", "", "*", "*a.wild.test", ".wild.test", "*.a.wild.test"} {
		if _, kind := s.inspect("a.wild.test", routes.NameRule{Pattern: pattern, Wildcard: true}); kind != Encoded {
			t.Errorf("%q: %v", pattern, kind)
		}
	}
}

func TestNewNamesForgets(t *testing.T) {
	n := newNewNames(60)
	n.limit.SetBurst(10 * maxSeen)
	now := time.Now().Add(time.Hour)
	for i := range maxSeen + 10 {
		if !n.allow(fmt.Sprint(i), now) {
			t.Fatalf("name %d refused", i)
		}
		n.allow("kept", now)
	}
	if len(n.seen) != maxSeen || n.recent.Len() != maxSeen || n.seen["kept"] == nil || n.seen["0"] != nil {
		t.Errorf("%d names remembered", len(n.seen))
	}
}

func TestEventsCoalesce(t *testing.T) {
	e := newEvents()
	now := time.Now()
	key := eventKey{Denied, "a.test"}
	admit := func(key eventKey, count uint64, ok bool) {
		t.Helper()
		if c, o := e.admit(key, now); c != count || o != ok {
			t.Errorf("got %d, %v; want %d, %v", c, o, count, ok)
		}
	}
	admit(key, 1, true)
	admit(key, 0, false)
	admit(key, 0, false)
	admit(eventKey{Failed, "a.test"}, 1, true)
	now = now.Add(eventWindow)
	admit(key, 3, true)
	admit(key, 0, false)
	// A flood of names is cut off, and takes no more memory than it may.
	told := 0
	for i := range 10 * maxEventKeys {
		if _, ok := e.admit(eventKey{Denied, fmt.Sprint(i)}, now); ok {
			told++
		}
	}
	if told > eventBurst {
		t.Errorf("%d of a flood were told", told)
	}
	// Each name that leaks is told, since it is counted.
	leaks := 0
	for range 2 {
		for i := range 2 * eventBurst {
			if _, ok := e.admit(eventKey{Leak, fmt.Sprint(i)}, now); ok {
				leaks++
			}
		}
	}
	if leaks != 2*eventBurst {
		t.Errorf("%d of %d names that leak were told", leaks, 2*eventBurst)
	}
	for i := range 10 * maxEventKeys {
		now = now.Add(time.Second)
		e.admit(eventKey{Denied, fmt.Sprint("slow", i)}, now)
	}
	if len(e.keys) > maxEventKeys {
		t.Errorf("%d events remembered", len(e.keys))
	}
}

func TestEventFields(t *testing.T) {
	h := &heard{}
	s, _ := newServer(newUpstream(t, planWorld), func(c *Config) { c.Event = h.hear })
	exchange(t, s, ask("Evil.TEST.", dns.TypeA))
	if len(h.events) != 1 {
		t.Fatalf("events %v", h.events)
	}
	e := h.events[0]
	if e.Bottle != "dev" || e.Kind != Denied || e.Name != "evil.test" || e.Type != "A" || e.Detail == "" || e.Count != 1 || time.Since(e.Time) > time.Minute {
		t.Errorf("event %+v", e)
	}
}
