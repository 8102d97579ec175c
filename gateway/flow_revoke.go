package gateway

import (
	"reflect"

	"gatewayd/gateway/routes"
)

// revoke ends the open flows that the plan s would not carry as they are carried. Requests on intercepted connections
// are decided one by one by the plan in force anyway; what this ends are relays and held-open connections.
func (b *bottle) revoke(s *snapshot) {
	for _, f := range b.open() {
		v, host, port, protocol, ok := f.grantOf()
		if !ok {
			continue
		}
		now := s.table.DecideFlow(host, port, protocol)
		if now.Decision != v.Decision || !sameGrant(v.Route, now.Route) {
			f.abort(ReasonRevoked)
		}
	}
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
