package dns

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Resolver asks upstream recursive resolvers about names. It is safe for use by many goroutines; bottles share one.
type Resolver struct{ upstreams []netip.AddrPort }

// Answer is what a lookup found.
type Answer struct {
	// Addrs has at least one address when the error is nil, at most 64, without duplicates, in the upstream's order. They
	// are as the upstream gave them: private and special ones are the caller's to refuse. The caller owns the slice.
	Addrs []netip.Addr
	// TTL is how long the answer may still be used: the least of the chain's, 0 to one hour.
	TTL time.Duration
}

// LookupKind says how a lookup failed. The zero value is ServFail.
type LookupKind uint8

// The kinds of LookupError.
const (
	// ServFail: no upstream gave a usable answer.
	ServFail LookupKind = iota
	// NXDomain: the name does not exist (RFC 8020).
	NXDomain
	// NoData: the name exists and has no address of the family asked for (RFC 2308 §2.2).
	NoData
	// Timeout: no upstream answered in time, or the caller's context ended.
	Timeout
	// BadName: the name is not canonical; nothing was asked.
	BadName
)

// String returns the kind as one lower-case word, fit for a metric label.
func (k LookupKind) String() string {
	switch k {
	case NXDomain:
		return "nxdomain"
	case NoData:
		return "nodata"
	case Timeout:
		return "timeout"
	case BadName:
		return "bad_name"
	}
	return "servfail"
}

// LookupError is the only error type of a Resolver's lookups.
type LookupError struct {
	// Name is what was asked for.
	Name string
	// Kind is what a caller decides on.
	Kind LookupKind
	// Err is the cause in words; may be nil for NXDomain and NoData.
	Err error
}

// Error gives "look up NAME: KIND: cause".
func (e *LookupError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("look up %q: %s", e.Name, e.Kind)
	}
	return fmt.Sprintf("look up %q: %s: %v", e.Name, e.Kind, e.Err)
}

// Unwrap returns the cause.
func (e *LookupError) Unwrap() error { return e.Err }

// NewResolver returns a resolver that asks upstreams (address and port of recursive resolvers) in their order. With none,
// every lookup is ServFail.
func NewResolver(upstreams []netip.AddrPort) *Resolver { return &Resolver{upstreams: upstreams} }

// Lookup4 returns the IPv4 addresses of name, which must be canonical. It blocks until the answer, the end of ctx, or the
// resolver's own limit of a few seconds. The error is *LookupError.
func (r *Resolver) Lookup4(ctx context.Context, name string) (Answer, error) {
	return Answer{}, &LookupError{Name: name}
}

// Lookup returns the IPv4 and then the IPv6 addresses of name, both asked at once; it is for the gateway's own dialers. One
// family's failure does not matter when the other has addresses. Otherwise as Lookup4.
func (r *Resolver) Lookup(ctx context.Context, name string) (Answer, error) {
	return Answer{}, &LookupError{Name: name}
}
