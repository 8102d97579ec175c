package inject

import (
	"context"
	"errors"
	"net/http"

	"gatewayd/gateway/routes"
)

// Header is the part of a header block that an Injector touches. Names are
// canonical MIME names. http.Header satisfies it.
type Header interface {
	Values(name string) []string
	Set(name, value string)
	Del(name string)
}

// Head is the head of one request as far as credentials are concerned.
type Head struct {
	// Header is read by Check and changed by Apply.
	Header Header
	// RawQuery points at the request target's query, still encoded and
	// without the question mark; nil means that there is none.
	RawQuery *string
}

// ForeignError reports a credential that is not the plan's on a request to a
// route with auth. Errors never hold the credential.
type ForeignError struct {
	// Header is the header's canonical name; "" when it was in the query.
	Header string
	// Query is the parameter's name; "" when it was in a header.
	Query string
}

// Error names the place.
func (e *ForeignError) Error() string {
	if e.Query != "" {
		return "query parameter " + e.Query + ": it carries a credential that is not this bottle's dummy"
	}
	return "header " + e.Header + ": it carries a credential that is not this bottle's dummy"
}

// Injector checks and rewrites the requests of one route. It is immutable and
// may be used by any number of goroutines.
type Injector struct {
	auth   routes.Auth
	source Source
}

// New returns the injector for a route's auth, with the secret from src.
func New(auth routes.Auth, src Source) (*Injector, error) {
	return nil, errors.New("make injector: not built yet")
}

// Check returns a *ForeignError unless every credential on the request is a
// dummy of this route. A request without any passes. It changes nothing.
func (i *Injector) Check(h Head) error { return &ForeignError{Header: i.auth.Header} }

// Apply removes every credential from the request and then sets the route's
// own. It is the last thing done to a head before it is sent, after Check and
// StripHopByHop. It returns the secret that it set; on an error (the
// source's) nothing was set and the request must not be sent. It blocks as
// the source does.
func (i *Injector) Apply(ctx context.Context, h Head) (Secret, error) {
	return Secret{}, errors.New("inject credential: not built yet")
}

// Secrets returns every form in which a secret that Apply returned was put on
// the wire: the value, and for basic auth the encoded pair. It is what a
// Masker for the response must be given.
func (i *Injector) Secrets(applied Secret) []Secret { return []Secret{applied} }

// StripHopByHop removes the header fields that end at this gateway (RFC 9110
// section 7.6.1) and every field that Connection names. It returns an error,
// having changed nothing, when Connection names a field that must reach the
// server: one that carries credentials, or routes or frames the message.
func StripHopByHop(h http.Header) error { return errors.New("strip hop-by-hop headers: not built yet") }
