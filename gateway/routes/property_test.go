package routes

import (
	"math/rand/v2"
	"testing"
)

// FuzzTable makes tables and requests from the fuzzer's bytes and checks that
// nothing panics, that what one removed route leaves is never wider than what
// was there, and that routes which do not govern a request do not matter to it.
func FuzzTable(f *testing.F) {
	f.Add(uint64(1), "a.b.test", "GET", "/a/b")
	f.Add(uint64(2), "B.TEST", "post", "/a/../b")
	f.Add(uint64(3), "1.2.3.4", "TRACE", "*")
	f.Fuzz(func(t *testing.T, seed uint64, host, method, path string) {
		rng := rand.New(rand.NewPCG(seed, 0))
		removal(t, rng, Request{Host: host, Method: method, Path: path})
	})
}

// TestRemovalNeverWidens does the same on tables and requests that meet often.
func TestRemovalNeverWidens(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	allowed, tables := 0, 0
	for range 20000 {
		a, ok := removal(t, rng, Request{Host: pick(rng, hosts), Method: pick(rng, methods), Path: pick(rng, paths)})
		allowed += a
		if ok {
			tables++
		}
	}
	// The property says nothing if everything is denied or refused.
	if allowed < 1000 || tables < 4000 {
		t.Errorf("only %d allowed requests in %d valid tables", allowed, tables)
	}
}

var (
	hosts     = []string{"test.example", "a.test.example", "b.a.test.example", "c.b.a.test.example", "z.example", "A.test.EXAMPLE"}
	patterns  = []string{"a.test.example", "b.a.test.example", "*.test.example", "*.a.test.example", "*.example", "z.example"}
	methods   = []string{"GET", "POST", "GET", "TRACE", "get"}
	paths     = []string{"/", "/a", "/a/b", "/a/b", "/a/b/c", "/a/../b", "/%61", "*"}
	globs     = []string{"/**", "/a/**", "/*", "/a/b"}
	ports     = []uint16{0, 443, 80, 8443}
	protocols = []Protocol{"", HTTPS, HTTP, TCP}
)

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func randomRoute(rng *rand.Rand) Route {
	r := Route{Host: pick(rng, patterns)}
	if rng.IntN(4) == 0 {
		r.Port = pick(rng, ports)
	}
	if rng.IntN(6) == 0 {
		r.Protocol = pick(rng, protocols)
	}
	switch rng.IntN(5) {
	case 0:
		r.Methods = []string{pick(rng, methods[:2])}
	case 1:
		r.Paths = []string{pick(rng, globs), pick(rng, globs)}
	case 2:
		r.TLSPassthrough = true
	}
	switch rng.IntN(6) {
	case 0:
		r.Auth = bearer("")
	case 1:
		r.Answer = "x"
	}
	r.AllowPrivate = rng.IntN(6) == 0
	return r
}

// TestMergeNeverWidens checks that what passes under a merged set passes under
// the manifest's routes alone or under the provider's.
func TestMergeNeverWidens(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	merged, allowed := 0, 0
	for range 40000 {
		m, p := randomRoutes(rng), randomRoutes(rng)
		all, err := Merge(m, p)
		if err != nil {
			_ = err.Error()
			continue
		}
		table, err := NewTable(all)
		manifest, errM := NewTable(m)
		provider, errP := NewTable(p)
		if err != nil || errM != nil || errP != nil {
			continue
		}
		merged++
		for range 8 {
			q := Request{Host: pick(rng, hosts), Port: 443, Protocol: pick(rng, protocols), Method: pick(rng, methods), Path: pick(rng, paths)}
			if table.Decide(q).Decision == Deny {
				continue
			}
			allowed++
			if manifest.Decide(q).Decision == Deny && provider.Decide(q).Decision == Deny {
				t.Fatalf("merging %+v with %+v lets %+v through", m, p, q)
			}
		}
	}
	if merged < 2000 || allowed < 2000 {
		t.Errorf("only %d merged tables and %d allowed requests", merged, allowed)
	}
}

func randomRoutes(rng *rand.Rand) []Route {
	rs := make([]Route, rng.IntN(6))
	for i := range rs {
		rs[i] = randomRoute(rng)
	}
	return rs
}

func removal(t *testing.T, rng *rand.Rand, q Request) (allowed int, ok bool) {
	q.Port, q.Protocol = 443, HTTPS
	if rng.IntN(4) == 0 {
		q.Port, q.Protocol = pick(rng, ports[1:]), pick(rng, protocols)
	}
	rs := randomRoutes(rng)
	whole, err := NewTable(rs)
	if err != nil {
		_ = err.Error()
		return 0, false
	}
	before, flowBefore := whole.Decide(q), whole.DecideFlow(q.Host, q.Port, q.Protocol)
	_ = before.Remedy()
	nameBefore, namedBefore := whole.Resolve(q.Host)
	if before.Decision != Deny {
		allowed = 1
	}
	for i := range rs {
		less, err := NewTable(append(append([]Route{}, rs[:i]...), rs[i+1:]...))
		if err != nil {
			t.Fatalf("removing %+v from a valid table makes it invalid: %v", rs[i], err)
		}
		after, flowAfter := less.Decide(q), less.DecideFlow(q.Host, q.Port, q.Protocol)
		if after.Decision != Deny && before.Decision == Deny {
			t.Fatalf("removing %+v lets %+v through: %s (%s) by %s, was %s", rs[i], q, after.Decision, after.Reason, after.Rule, before.Reason)
		}
		if flowAfter.Decision != Deny && flowBefore.Decision == Deny {
			t.Fatalf("removing %+v lets the flow of %+v through", rs[i], q)
		}
		if before.Route != &whole.Routes()[i] && (after.Decision != before.Decision || after.Reason != before.Reason && before.Reason != PortDenied || after.Rule != before.Rule) {
			t.Fatalf("removing %+v, which does not govern %+v, changes the verdict: %+v, was %+v", rs[i], q, after, before)
		}
		nameAfter, namedAfter := less.Resolve(q.Host)
		if namedAfter && (!namedBefore || nameAfter.AllowPrivate && !nameBefore.AllowPrivate) {
			t.Fatalf("removing %+v widens names: %+v, was %+v", rs[i], nameAfter, nameBefore)
		}
	}
	return allowed, true
}
