package pipelock

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"gatewayd/gateway/formats"
)

// TestCleanIsOfWhatWasLookedFor changes what is known behind a head that was found to hold nothing.
func TestCleanIsOfWhatWasLookedFor(t *testing.T) {
	const value = "a-value-that-becomes-a-secret-0123456789"
	known := nothing
	s := Live(func() *Known { return known })
	places := map[string]func(http.Header) string{
		"url":          func(http.Header) string { return "/x/" + value },
		"header X-Any": func(h http.Header) string { h["X-Any"] = []string{value}; return "/" },
		"header name":  func(h http.Header) string { h[value] = []string{""}; return "/" },
	}
	for range 2 {
		for place, in := range places {
			known = nothing
			h := http.Header{}
			target := in(h)
			for range 3 {
				if found := s.Request("b.test", target, h, nil); len(found) != 0 {
					t.Fatalf("%s: found %v, and nothing is known", place, found)
				}
			}
			known = NewKnown([]Token{{Name: "it", Value: value, Homes: []string{"a.test"}}})
			if found := s.Request("b.test", target, h, nil); len(found) != 1 || found[0].Place != place {
				t.Errorf("%s: found %v", place, found)
			}
		}
	}
}

// TestCleanIsOfOneField sends what may be in a field that is not scanned, in one that is.
func TestCleanIsOfOneField(t *testing.T) {
	s := New([]Token{{Name: "it", Value: secret}})
	h := http.Header{"X-Skipped": {secret}, "X-Other": {"a"}}
	for range 3 {
		if found := s.Request("b.test", "/", h, []string{"x-skipped"}); len(found) != 0 {
			t.Fatalf("found %v", found)
		}
	}
	if found := s.Request("b.test", "/", h, nil); len(found) != 1 {
		t.Errorf("found %v where the field is scanned", found)
	}
	if found := s.Request("b.test", "/", http.Header{"X-Other": {"a", secret}}, nil); len(found) != 1 {
		t.Errorf("found %v in a second value", found)
	}
}

// TestCleanIsBounded fills the memory with more than it may have, by several goroutines, and looks for tokens beside.
func TestCleanIsBounded(t *testing.T) {
	s := New([]Token{{Name: "it", Value: secret}})
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for i := range 2000 {
				name := fmt.Sprintf("X-%d-%d", n%2, i)
				h := http.Header{name: {strings.Repeat("v", i)}, "Authorization": {fmt.Sprint("Bearer ", i)}, "X-Same": {fmt.Sprint(i)}}
				if found := s.Request("b.test", fmt.Sprint("/", i), h, nil); len(found) != 0 {
					t.Errorf("found %v", found)
				}
				h[name] = append(h[name], secret)
				h["X-Same"] = []string{secret}
				if found := s.Request("b.test", fmt.Sprint("/", i), h, nil); len(found) != 2 {
					t.Errorf("found %v", found)
				}
			}
		})
	}
	all.Wait()
	texts := 0
	for i := range s.clean.Load().slots {
		c := s.clean.Load().slots[i].Load()
		if c == nil {
			continue
		}
		texts++
		if c.name == "Authorization" || len(c.name)+len(c.value) > cleanLength {
			t.Errorf("%s is remembered, with %d bytes", c.name, len(c.value))
		}
		if strings.Contains(c.value, secret) {
			t.Errorf("a token is remembered in %s", c.name)
		}
	}
	if texts < cleanSlots/2 {
		t.Errorf("%d texts are remembered", texts)
	}
}

// TestCleanIsOfOneScanner: what one route's scanner lets go, another's may not.
func TestCleanIsOfOneScanner(t *testing.T) {
	loose := New([]Token{{Name: "it", Value: secret}})
	h := http.Header{"X-Any": {mapValues(formTokens())[0]}}
	for range 2 {
		if found := loose.Request("b.test", "/", h, nil); len(found) != 0 {
			t.Fatalf("found %v without formats", found)
		}
	}
	set, err := formats.Default()
	if err != nil {
		t.Fatal(err)
	}
	if found := loose.WithFormats(set, set.Policy(nil, false)).Request("b.test", "/", h, nil); len(found) == 0 {
		t.Error("another scanner goes by what the first has found")
	}
}
