package gateway

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"gatewayd/gateway/routes"
)

// TestUpstreamSessionsAreApart closes connections and looks at which of the next resumes a TLS session: one of the same bottle, route
// and credential, over either version of HTTP, and no other.
func TestUpstreamSessionsAreApart(t *testing.T) {
	w := newWorld(t, nil)
	w.names.set("api.test", "127.0.0.1")
	w.names.set("b.api.test", "127.0.0.1")
	cert := w.roots.leaf(t, time.Now().Add(time.Hour), "api.test", "b.api.test")
	var resumed atomic.Bool
	o := newOrigin(t, &cert, func(rw http.ResponseWriter, r *http.Request) { resumed.Store(r.TLS.DidResume) })
	route := func(host, env string) *routes.Route {
		r := &routes.Route{Host: host, Port: o.port, Protocol: routes.HTTPS}
		if env != "" {
			r.Auth = &routes.Auth{Scheme: routes.Bearer, Header: "Authorization", Secret: routes.SecretRef{Env: env}}
		}
		return r
	}
	dev, other := w.bare(Deadlines{}), w.bare(Deadlines{})
	defer dev.close()
	defer other.close()
	plain := route("api.test", "")
	for _, c := range []struct {
		what   string
		u      *upstream
		r      *routes.Route
		host   string
		major  int
		resume bool
	}{
		{"the first", dev, plain, "api.test", 1, false},
		{"the same", dev, plain, "api.test", 1, true},
		{"the same over HTTP/2", dev, plain, "api.test", 2, true},
		{"an equal route of a new plan", dev, route("api.test", ""), "api.test", 1, true},
		{"a credential", dev, route("api.test", "A"), "api.test", 1, false},
		{"the same credential", dev, route("api.test", "A"), "api.test", 1, true},
		{"another credential", dev, route("api.test", "B"), "api.test", 1, false},
		{"another route", dev, route("*.api.test", ""), "b.api.test", 1, false},
		{"another host of that route, the same server", dev, route("*.api.test", ""), "api.test", 1, false},
		{"another bottle", other, plain, "api.test", 1, false},
		{"another bottle over HTTP/2", other, plain, "api.test", 2, true},
	} {
		resp, err := c.u.RoundTrip(c.r, c.host, get("/", c.major), nobody{})
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if got := resumed.Load(); got != c.resume {
			t.Errorf("%s: resumed is %t, want %t", c.what, got, c.resume)
		}
		dev.closeIdle(t)
		other.closeIdle(t)
	}
}

// closeIdle closes the connections of u, and keeps its pools and sessions.
func (u *upstream) closeIdle(t *testing.T) {
	t.Helper()
	u.mu.Lock()
	for u.giveUpIdle() {
	}
	u.mu.Unlock()
	for _, p := range u.pools {
		if p.h2 != nil {
			p.h2.close()
		}
	}
	waitCounts(t, u, 0, 0, 0)
}
