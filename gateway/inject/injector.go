package inject

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/golang-jwt/jwt/v5"

	"gatewayd/gateway/routes"
)

// Header is the part of a header block that an Injector touches. http.Header
// satisfies it, and is looked at under every spelling of a name; another type
// should have Names() []string for that, else only well-known names are found.
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
// route with auth. It never holds the credential.
type ForeignError struct {
	// Header is the header's name; "" when it was in the query.
	Header string
	// Query is the parameter's name; "" when it was in a header.
	Query string
}

// Error names the place.
func (e *ForeignError) Error() string {
	if e.Query != "" {
		return fmt.Sprintf("query parameter %q: it carries a credential that is not this bottle's dummy", e.Query)
	}
	return fmt.Sprintf("header %q: it carries a credential that is not this bottle's dummy", e.Header)
}

// Injector checks and rewrites the requests of one route. It may be used by
// any number of goroutines.
type Injector struct {
	auth   routes.Auth
	source Source
	made   atomic.Pointer[made]
	signed atomic.Pointer[string] // the last dummy that was a JWT: guests send the same one again and again
}

// made is what is made of a secret, which is the same for many requests.
type made struct {
	secret Secret
	field  func() []string // the values of its header field, which nobody changes: a function, as in a Secret
	masker *Masker
}

// New returns the injector for a route's auth, with the secret from src. The
// auth must be as routes.NewTable leaves it: the scheme known, and the field
// that it needs set.
func New(auth routes.Auth, src Source) (*Injector, error) {
	if src == nil {
		return nil, errors.New("make injector: there is no credential source")
	}
	switch auth.Scheme {
	case routes.Bearer, routes.Basic:
		auth.Header = "Authorization"
	case routes.HeaderScheme:
		auth.Header = textproto.CanonicalMIMEHeaderKey(auth.Header)
		if auth.Header == "" {
			return nil, errors.New("make injector: scheme header names no header")
		}
	case routes.QueryScheme:
		if auth.Query == "" {
			return nil, errors.New("make injector: scheme query names no parameter")
		}
		auth.Header = ""
	default:
		return nil, fmt.Errorf("make injector: unknown scheme %q", auth.Scheme)
	}
	for _, d := range auth.Dummies.Values {
		if d == "" {
			return nil, errors.New("make injector: a dummy is empty")
		}
	}
	return &Injector{auth: auth, source: src}, nil
}

// Check returns a *ForeignError unless every credential on the request is one
// of the route's dummies: in the injected header or parameter, in every other
// that is known to carry credentials, each given at most once, and in offered
// WebSocket subprotocols. A request without any passes. Check changes nothing.
func (i *Injector) Check(h Head) error {
	var room [familyRoom]string
	for _, name := range family(room[:0], h.Header, i.auth.Header) {
		vs := values(h.Header, name)
		if len(vs) > 1 || len(vs) == 1 && !i.harmless(vs[0]) {
			return &ForeignError{Header: name}
		}
	}
	for _, v := range values(h.Header, "Sec-Websocket-Protocol") {
		for _, offer := range strings.Split(v, ",") {
			if c := subprotocolCredential(strings.TrimSpace(offer)); c != "" && !i.dummy(c) {
				return &ForeignError{Header: "Sec-Websocket-Protocol"}
			}
		}
	}
	if h.RawQuery == nil {
		return nil
	}
	var seen []string
	for p := range params(*h.RawQuery) {
		if !i.credentialParam(p.name) {
			continue
		}
		name := strings.ToLower(p.name)
		if slices.Contains(seen, name) || p.value != "" && !i.dummy(p.value) {
			return &ForeignError{Query: p.name}
		}
		seen = append(seen, name)
	}
	return nil
}

// Apply removes every credential from the request and then sets the route's
// own. It is the last thing done to a head before it is sent, after Check and
// StripHopByHop. It returns the secret that it set; on an error (the source's)
// nothing was changed and the request must not be sent. It blocks as the
// source does.
func (i *Injector) Apply(ctx context.Context, h Head) (Secret, error) {
	if i.auth.Scheme == routes.QueryScheme && h.RawQuery == nil {
		return Secret{}, errors.New("inject credential: the head has no place for a query")
	}
	secret, err := i.source.Secret(ctx)
	if err != nil {
		return Secret{}, err
	}
	var room [familyRoom]string
	for _, name := range family(room[:0], h.Header, i.auth.Header) {
		remove(h.Header, name)
	}
	if h.RawQuery != nil {
		*h.RawQuery = i.stripQuery(*h.RawQuery)
	}
	if i.auth.Scheme != routes.QueryScheme {
		set(h.Header, i.auth.Header, i.make(secret).field())
		return secret, nil
	}
	own := url.QueryEscape(i.auth.Query) + "=" + url.QueryEscape(secret.Reveal())
	if *h.RawQuery != "" {
		own = *h.RawQuery + "&" + own
	}
	*h.RawQuery = own
	return secret, nil
}

// familyRoom is room for as many fields of the credential family as a request has.
const familyRoom = 4

// Secrets returns every form in which a secret that Apply returned was put on
// the wire: the value, and for basic auth the encoded pair. It is what a
// Masker for the response must be given.
func (i *Injector) Secrets(applied Secret) []Secret {
	if i.auth.Scheme == routes.Basic && !applied.IsZero() {
		return []Secret{applied, NewSecret(i.pair(applied))}
	}
	return []Secret{applied}
}

// Masker returns a masker for Secrets(applied). The one for the last secret is
// kept, since making it costs more than masking a small response.
func (i *Injector) Masker(applied Secret) *Masker { return i.make(applied).masker }

// make returns what is made of a secret.
func (i *Injector) make(secret Secret) *made {
	if last := i.made.Load(); last != nil && last.secret.Reveal() == secret.Reveal() { // no guest has a say in either
		return last
	}
	m := &made{secret: secret, masker: NewMasker(i.Secrets(secret)...)}
	value := secret.Reveal()
	switch i.auth.Scheme {
	case routes.Bearer:
		value = "Bearer " + value
	case routes.Basic:
		value = "Basic " + i.pair(secret)
	}
	values := []string{value}
	m.field = func() []string { return values[:1:1] }
	i.made.Store(m)
	return m
}

// pair is RFC 7617 section 2.
func (i *Injector) pair(secret Secret) string {
	return base64.StdEncoding.EncodeToString([]byte(i.auth.User + ":" + secret.Reveal()))
}

func (i *Injector) credentialParam(name string) bool {
	return isParam(name, i.auth.Query) || credentialQuery(name)
}

// stripQuery returns the query without the parameters that carry credentials,
// and byte for byte the same when it has none.
func (i *Injector) stripQuery(raw string) string {
	found := false
	for p := range params(raw) {
		found = found || i.credentialParam(p.name)
	}
	if !found {
		return raw
	}
	var kept []string
	for p := range params(raw) {
		if !i.credentialParam(p.name) {
			kept = append(kept, p.raw)
		}
	}
	return strings.Join(kept, "&")
}

// harmless tells whether a credential header's value is nothing, a dummy, or a
// dummy as the parameter of an authentication scheme (RFC 9110 section 11.4);
// for basic, as user name or password. What stands beside the dummy does not
// matter: the whole value goes no further.
func (i *Injector) harmless(value string) bool {
	value = strings.Trim(value, " \t")
	if value == "" || i.dummy(value) {
		return true
	}
	scheme, rest, ok := strings.Cut(value, " ")
	rest = strings.TrimLeft(rest, " ")
	if !ok {
		return false
	}
	if !strings.EqualFold(scheme, "basic") {
		return i.dummy(rest)
	}
	if len(rest) > maxDummy {
		return false
	}
	pair, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return false
	}
	user, password, ok := strings.Cut(string(pair), ":")
	return ok && (i.dummy(password) || i.dummy(user))
}

// maxDummy bounds what is looked at as a dummy, in bytes.
const maxDummy = 16 << 10

// dummy tells whether s is one of the route's dummies, in time that does not
// tell how much of an exact one was right. A JWT is one when its HMAC verifies
// and its algorithm is HS256, whatever its claims say: an agent may well hold
// one that has expired.
func (i *Injector) dummy(s string) bool {
	if s == "" || len(s) > maxDummy {
		return false
	}
	found := 0
	for _, d := range i.auth.Dummies.Values {
		found |= subtle.ConstantTimeCompare([]byte(d), []byte(s))
	}
	if found == 1 {
		return true
	}
	if len(i.auth.Dummies.JWTKey) == 0 || strings.Count(s, ".") != 2 {
		return false
	}
	if last := i.signed.Load(); last != nil && *last == s {
		return true
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithoutClaimsValidation())
	token, err := parser.Parse(s, func(*jwt.Token) (any, error) { return i.auth.Dummies.JWTKey, nil })
	if err != nil || !token.Valid {
		return false
	}
	kept := strings.Clone(s) // it is a part of a whole head
	i.signed.Store(&kept)
	return true
}
