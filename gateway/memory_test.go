package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
)

// fakeMemory is a redirect that remembers what bottles were told.
type fakeMemory struct {
	*fakeFast
	memory sync.Mutex
	told   map[string]redirect.Told
	fails  error
}

func (f *fakeMemory) Remember(_ string, names []redirect.Told) error {
	f.memory.Lock()
	defer f.memory.Unlock()
	if f.fails != nil {
		return f.fails
	}
	for _, n := range names {
		f.told[n.Name+" "+n.Addr.String()] = n
	}
	return nil
}

func (f *fakeMemory) Recall(string) (all []redirect.Told, err error) {
	f.memory.Lock()
	defer f.memory.Unlock()
	for _, n := range f.told {
		all = append(all, n)
	}
	return all, f.fails
}

// remembering returns a world whose redirect remembers told, each "name address", for a minute.
func remembering(t *testing.T, told ...string) (*world, *fakeMemory) {
	t.Helper()
	f := &fakeMemory{fakeFast: &fakeFast{pins: map[netip.Addr][]redirect.FastPin{}, events: make(chan redirect.FastEvent)},
		told: map[string]redirect.Told{}}
	for _, line := range told {
		var name, addr string
		if _, err := fmt.Sscan(line, &name, &addr); err != nil {
			t.Fatal(err)
		}
		f.told[line] = redirect.Told{Name: name, Addr: netip.MustParseAddr(addr), Expires: time.Now().Add(time.Minute)}
	}
	w := newWorld(t, func(o *Options) {
		f.fakeRedirect = o.Redirect.(*fakeRedirect)
		o.Redirect = f
	})
	return w, f
}

// TestRecalledPins tells what the kernel may be told of addresses that an earlier process told the bottle, by the plan that
// is in force now.
func TestRecalledPins(t *testing.T) {
	const at = "93.184.216.34"
	plan := []routes.Route{{Host: "pass.test", TLSPassthrough: true}, {Host: "*.wild.test", TLSPassthrough: true}, {Host: "icept.test"}}
	for _, tc := range []struct {
		name string
		told []string
		want []string
	}{
		{"passes through", []string{"pass.test " + at}, []string{"pass.test"}},
		{"under a wildcard", []string{"a.wild.test " + at}, []string{"a.wild.test"}},
		{"intercepted by now", []string{"icept.test " + at}, nil},
		{"no longer in the plan", []string{"gone.test " + at}, nil},
		{"shared with an intercepted one", []string{"pass.test " + at, "icept.test " + at}, nil},
		{"shared with one that is no longer in the plan", []string{"pass.test " + at, "gone.test " + at}, nil},
		{"metadata", []string{"pass.test 169.254.169.254"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, f := remembering(t, tc.told...)
			w.apply(t, testBottle(t, plan...))
			if got := f.names(at); !slices.Equal(got, tc.want) {
				t.Errorf("the kernel lets %v be called, want %v", got, tc.want)
			}
			if got := w.g.running()[0].pins.Snapshot(); len(got) != len(tc.told) {
				t.Errorf("the bottle knows %v", got)
			}
		})
	}
}

// TestRecalledPinsBeforeListeners has the kernel know what a bottle was told before a connection can find the bottle's listener,
// by which it would take the relay.
func TestRecalledPinsBeforeListeners(t *testing.T) {
	const at = "93.184.216.34"
	w, f := remembering(t, "pass.test "+at)
	b := testBottle(t, routes.Route{Host: "pass.test", TLSPassthrough: true})
	w.sockets.before = func(addr netip.AddrPort) {
		if got := f.names(at); addr == listenerOf(b) && !slices.Equal(got, []string{"pass.test"}) {
			t.Errorf("the listener opens while the kernel lets %v be called", got)
		}
	}
	w.apply(t, b)
	if !slices.Contains(w.order.list(), "listen "+listenerOf(b).String()) {
		t.Error("nothing listens")
	}
}

// TestRecallFirst has an answer come before it is known what an earlier process told: nothing is pinned until then.
func TestRecallFirst(t *testing.T) {
	const at = "93.184.216.34"
	w, f := remembering(t, "icept.test "+at)
	f.fails = redirect.ErrUnknownBottle
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", TLSPassthrough: true}, routes.Route{Host: "icept.test"}))
	b := w.g.running()[0]
	resolve(t, b, "pass.test", "93.184.216.35")
	if got := f.names("93.184.216.35"); got != nil {
		t.Errorf("%v may be called though it is not known what else lives there", got)
	}
	f.memory.Lock()
	f.fails = nil
	f.memory.Unlock()
	resolve(t, b, "pass.test", "93.184.216.35")
	resolve(t, b, "pass.test", at)
	if got, shared := f.names("93.184.216.35"), f.names(at); !slices.Equal(got, []string{"pass.test"}) || shared != nil {
		t.Errorf("%v and %v may be called", got, shared)
	}
}

// TestRemembersAllNames has the kernel told every name of an address, whatever its decision, and what is beyond its room
// does not keep the address from being used.
func TestRemembersAllNames(t *testing.T) {
	w, f := remembering(t)
	w.apply(t, testBottle(t, routes.Route{Host: "pass.test", TLSPassthrough: true}, routes.Route{Host: "icept.test"}))
	b := w.g.running()[0]
	resolve(t, b, "icept.test", "93.184.216.34")
	resolve(t, b, "pass.test", "93.184.216.34")
	if len(f.told) != 2 {
		t.Errorf("remembered are %v", f.told)
	}
	f.memory.Lock()
	f.fails = errors.New("no room")
	f.memory.Unlock()
	resolve(t, b, "pass.test", "93.184.216.35")
	if got := f.names("93.184.216.35"); !slices.Equal(got, []string{"pass.test"}) {
		t.Errorf("%v may be called", got)
	}
}
