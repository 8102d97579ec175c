package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"

	"gatewayd/gateway/routes"
)

const (
	// tryTimeout is how long one upstream has for one answer, over UDP and then TCP together.
	tryTimeout = 2 * time.Second
	// rounds is how often the list of upstreams is gone through.
	rounds = 2
	// lookupTimeout bounds a lookup with all its tries. Stub resolvers ask again after five seconds and join the same lookup.
	lookupTimeout = 6 * time.Second
	// maxFlights is how many lookups run at a time, over all bottles.
	maxFlights = 512
	// maxAddrs is how many addresses of one answer are used.
	maxAddrs = 64
	// maxTTL is the longest that an answer is used.
	maxTTL = time.Hour
)

// Resolver asks upstream recursive resolvers about names, each time with a question of its own: a random id, a socket and so a
// source port for each query, random upper and lower case in the name (draft-vixie-dnsext-dns0x20), and the answer must echo
// all of it. It keeps answers for their TTL, and lookups of one name at one time share the work. Safe for use by many
// goroutines; bottles may share one.
type Resolver struct {
	upstreams []netip.AddrPort
	try       time.Duration
	limit     time.Duration
	now       func() time.Time
	flights   singleflight.Group
	slots     chan struct{} // one taken by each running lookup
	cache     *cache
}

// Answer is what a lookup found.
type Answer struct {
	// Addrs has at least one address when the error is nil, at most 64 of each family, without duplicates, in the upstream's
	// order. They are as the upstream gave them: private and special ones are the caller's to refuse. The caller owns the slice.
	Addrs []netip.Addr
	// TTL is how long the answer may still be used: the least of the chain's, 0 to one hour.
	TTL time.Duration
}

// NewResolver returns a resolver that asks upstreams (address and port of recursive resolvers) in their order, two seconds
// each, twice around. With none, every lookup is ServFail.
func NewResolver(upstreams []netip.AddrPort) *Resolver {
	return &Resolver{
		upstreams: slices.Clone(upstreams), try: tryTimeout, limit: lookupTimeout, now: time.Now,
		slots: make(chan struct{}, maxFlights), cache: newCache(maxCached),
	}
}

// Lookup4 returns the IPv4 addresses of name, which must be canonical (routes.CanonicalHost). It blocks until the answer, the
// end of ctx, or six seconds. The error is *LookupError.
func (r *Resolver) Lookup4(ctx context.Context, name string) (Answer, error) {
	return r.lookup(ctx, name, dns.TypeA)
}

// Lookup returns the IPv4 and then the IPv6 addresses of name, both asked at once; it is for the gateway's own dialers. One
// family's failure does not matter when the other has addresses; when neither has, the error tells of IPv4's unless only
// IPv6's is a failure rather than an absence. Otherwise as Lookup4.
func (r *Resolver) Lookup(ctx context.Context, name string) (Answer, error) {
	type result struct {
		answer Answer
		err    error
	}
	six := make(chan result, 1)
	go func() {
		a, err := r.lookup(ctx, name, dns.TypeAAAA)
		six <- result{a, err}
	}()
	v4, err4 := r.lookup(ctx, name, dns.TypeA)
	v6 := <-six
	switch {
	case err4 == nil && v6.err == nil:
		return Answer{Addrs: append(v4.Addrs, v6.answer.Addrs...), TTL: min(v4.TTL, v6.answer.TTL)}, nil
	case err4 == nil:
		return v4, nil
	case v6.err == nil:
		return v6.answer, nil
	case kindOf(err4) == NoData:
		return Answer{}, v6.err
	}
	return Answer{}, err4
}

// lookup answers from the cache, or joins or starts the flight for the question.
func (r *Resolver) lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	if canonical, err := routes.CanonicalHost(name); err != nil || canonical != name {
		return Answer{}, &LookupError{Name: name, Kind: BadName, Err: errors.New("not a canonical host name")}
	}
	key := cacheKey{name, qtype}
	if a, err, ok := r.cache.get(key, r.now()); ok {
		return a, err
	}
	if err := ctx.Err(); err != nil {
		return Answer{}, &LookupError{Name: name, Kind: Timeout, Err: err}
	}
	// The flight has a context of its own: the first who asked may leave while others still wait.
	done := r.flights.DoChan(fmt.Sprint(qtype, " ", name), func() (any, error) {
		flight, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.limit)
		defer cancel()
		return r.fly(flight, key)
	})
	select {
	case res := <-done:
		a, _ := res.Val.(Answer)
		a.Addrs = slices.Clone(a.Addrs) // others got the same
		return a, res.Err
	case <-ctx.Done():
		return Answer{}, &LookupError{Name: name, Kind: Timeout, Err: ctx.Err()}
	}
}

// fly asks the upstreams and keeps what they said.
func (r *Resolver) fly(ctx context.Context, key cacheKey) (a Answer, err error) {
	defer func() { // a panic here would end the process: it runs on a goroutine of singleflight
		if p := recover(); p != nil {
			a, err = Answer{}, &LookupError{Name: key.name, Kind: ServFail, Err: fmt.Errorf("panic: %v", p)}
		}
	}()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return Answer{}, &LookupError{Name: key.name, Kind: Timeout, Err: errors.New("too many lookups are waiting")}
	}
	found, err := r.askAll(ctx, key)
	var le *LookupError
	switch {
	case err == nil:
		r.cache.put(key, found.Answer, nil, r.now().Add(found.TTL))
	case errors.As(err, &le) && (le.Kind == NXDomain || le.Kind == NoData):
		r.cache.put(key, Answer{}, le, r.now().Add(found.TTL))
	}
	return found.Answer, err
}

// askAll asks each upstream in turn until one gives an answer or says that there is none.
func (r *Resolver) askAll(ctx context.Context, key cacheKey) (found, error) {
	last := &LookupError{Name: key.name, Kind: ServFail, Err: errors.New("no upstream resolver is configured")}
	for range rounds {
		for _, upstream := range r.upstreams {
			got, err := r.ask(ctx, upstream, key)
			if err == nil {
				return got, nil
			}
			if kind := kindOf(err); kind == NXDomain || kind == NoData {
				return got, err
			}
			if last = asLookupError(key.name, err); ctx.Err() != nil {
				return found{}, &LookupError{Name: key.name, Kind: Timeout, Err: last.Err}
			}
		}
	}
	return found{}, last
}

// kindOf returns the kind of a lookup's error.
func kindOf(err error) LookupKind {
	var le *LookupError
	if errors.As(err, &le) {
		return le.Kind
	}
	return ServFail
}
