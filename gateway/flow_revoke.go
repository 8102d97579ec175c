package gateway

import (
	"reflect"
	"slices"

	"gatewayd/gateway/routes"
)

// revoke ends the open flows that the plan s would not carry as they are carried: relays whose route has changed, and
// intercepted connections on which a request is under way that s would not let go as it went. A request that s permits goes
// on, whatever else of its route has changed; the next one on its connection is decided by the plan that is in force then.
func (b *bottle) revoke(s *snapshot) {
	for _, f := range b.open() {
		if f.revokedBy(s) {
			f.abort(ReasonRevoked)
		}
	}
}

// revokedBy tells whether the plan s ends the flow.
func (f *flow) revokedBy(s *snapshot) bool {
	if running, forbidden := f.judgeRunning(s); running {
		return forbidden
	}
	v, host, port, protocol, ok := f.grantOf()
	if !ok {
		return false
	}
	now := s.table.DecideFlow(host, port, protocol)
	return now.Decision != v.Decision || !sameGrant(v.Route, now.Route)
}

// judgeRunning tells whether requests are under way on the flow, and whether s forbids one of them.
func (f *flow) judgeRunning(s *snapshot) (running, forbidden bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.exchanges {
		if !s.carries(x) {
			return true, true
		}
	}
	return len(f.exchanges) > 0, false
}

// enter notes that x is under way. From its verdict on, what it was decided by does not change.
func (f *flow) enter(x *exchange) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exchanges = append(f.exchanges, x)
}

// leave notes that x is over.
func (f *flow) leave(x *exchange) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.exchanges, x)
	f.exchanges = slices.Delete(f.exchanges, i, i+1)
}

// carries tells whether s lets x go as it went: intercepted, with the same credential, and scanned if s would have it scanned.
func (s *snapshot) carries(x *exchange) bool {
	old, now := x.verdict, s.table.Decide(routes.Request{
		Host: x.host, Port: x.s.port, Protocol: x.s.protocol, Method: x.method, Path: x.path,
	})
	return now.Decision == routes.Intercept && now.Route != nil && now.Inject == old.Inject && (old.Scan || !now.Scan) &&
		now.Route.Answer == old.Route.Answer && (now.Route.AllowPrivate || !old.Route.AllowPrivate) &&
		reflect.DeepEqual(withoutDummies(now.Route.Auth), withoutDummies(old.Route.Auth))
}

// sameGrant tells whether two routes let the same things pass with the same credential. Dummies do not count: they
// change whenever a host credential is renewed, and what is under way was judged by those it came with.
func sameGrant(a, b *routes.Route) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Origin, y.Origin = routes.Origin{}, routes.Origin{}
	x.Auth, y.Auth = withoutDummies(x.Auth), withoutDummies(y.Auth)
	return reflect.DeepEqual(x, y)
}

// withoutDummies returns a copy of a that has none.
func withoutDummies(a *routes.Auth) *routes.Auth {
	if a == nil {
		return nil
	}
	c := *a
	c.Dummies = routes.Dummies{}
	return &c
}
