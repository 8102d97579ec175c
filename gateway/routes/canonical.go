package routes

import (
	"fmt"
	"net/textproto"
	"strings"
)

// RouteError says what is wrong with a route and what to write instead.
type RouteError struct {
	// Rule is "pattern:port"; quoted when the pattern is no canonical one.
	Rule string
	// Origin says where the route was written.
	Origin Origin
	// Field is the manifest's name of the field at fault, such as "paths".
	Field string
	// Err is the cause; for hosts and paths a *NameError or *PathError.
	Err error
}

// Error returns "route RULE (ORIGIN): FIELD: cause".
func (e *RouteError) Error() string {
	return fmt.Sprintf("route %s (%s): %s: %v", e.Rule, e.Origin, e.Field, e.Err)
}

// Unwrap returns the cause.
func (e *RouteError) Unwrap() error { return e.Err }

func routeErrorf(r Route, field, format string, args ...any) error {
	return &RouteError{Rule: r.Rule(), Origin: r.Origin, Field: field, Err: fmt.Errorf(format, args...)}
}

// Canonical returns the route with its host in canonical form, its protocol
// and port spelled out and its auth's header name canonical, or a *RouteError
// for the first thing that cannot stand. The receiver is not changed.
func (r Route) Canonical() (Route, error) {
	host, err := CanonicalPattern(r.Host)
	if err != nil {
		return Route{}, &RouteError{Rule: quoted(r.Rule()), Origin: r.Origin, Field: "host", Err: err}
	}
	r.Host = host
	switch r.protocol() {
	case HTTPS, HTTP:
	case TCP:
		if r.Port == 0 {
			return Route{}, routeErrorf(r, "port", "a tcp route must name its port")
		}
	default:
		return Route{}, routeErrorf(r, "protocol", "unknown protocol %s; write https, http or tcp", quoted(string(r.Protocol)))
	}
	r.Protocol, r.Port = r.protocol(), r.port()
	for _, check := range []func(*Route) error{checkLane, checkMethods, checkPaths, checkAuth, checkPipelock} {
		if err := check(&r); err != nil {
			return Route{}, err
		}
	}
	return r, nil
}

// checkLane refuses fields that the route's lane cannot honour.
func checkLane(r *Route) error {
	switch {
	case r.Protocol == TCP && (r.Auth != nil || r.Methods != nil || r.Paths != nil || r.Answer != ""):
		return routeErrorf(*r, "protocol", "a tcp route is carried unread: it can have no auth, methods, paths or answer")
	case r.Protocol != HTTPS && r.TLSPassthrough:
		return routeErrorf(*r, "tls_passthrough", "it means something for https alone; leave it out")
	case r.Decision() == Passthrough && (r.Methods != nil || r.Paths != nil):
		return routeErrorf(*r, "tls_passthrough", "nobody can see methods or paths inside a passed-through flow; remove them, or tls_passthrough")
	case r.Answer != "" && r.Auth != nil:
		return routeErrorf(*r, "answer", "an answered request goes nowhere, so there is nothing to put auth on; remove one of them")
	}
	return nil
}

func checkMethods(r *Route) error {
	if r.Methods != nil && len(r.Methods) == 0 {
		return routeErrorf(*r, "methods", "the list is empty; leave it out to allow every method, or remove the route to allow none")
	}
	for _, m := range r.Methods {
		if !forwardable(m) || strings.ToUpper(m) != m {
			return routeErrorf(*r, "methods", "%s is no method that is forwarded; write it in capitals, such as GET (CONNECT, TRACE and PRI never are)", quoted(m))
		}
	}
	return nil
}

func checkPaths(r *Route) error {
	if r.Paths != nil && len(r.Paths) == 0 {
		return routeErrorf(*r, "paths", `the list is empty; leave it out or write "/**" to allow every path, or remove the route to allow none`)
	}
	for _, p := range r.Paths {
		if err := ValidatePathPattern(p); err != nil {
			return &RouteError{Rule: r.Rule(), Origin: r.Origin, Field: "paths", Err: err}
		}
	}
	return nil
}

// checkAuth refuses a credential that could be sent to more than one host or
// in a form that is not defined, and makes the header's name canonical.
func checkAuth(r *Route) error {
	if r.Auth == nil {
		return nil
	}
	a := *r.Auth
	if r.Wildcard() {
		return routeErrorf(*r, "auth", "a credential goes to exact hosts only; write one route per host")
	}
	switch a.Scheme {
	case Bearer, Basic:
		if a.Header != "" && textproto.CanonicalMIMEHeaderKey(a.Header) != "Authorization" {
			return routeErrorf(*r, "auth.header", "scheme %s sets Authorization; leave header out or use scheme header", a.Scheme)
		}
		a.Header = "Authorization"
	case HeaderScheme:
		a.Header = textproto.CanonicalMIMEHeaderKey(a.Header)
		if !token(a.Header) || framing(a.Header) {
			return routeErrorf(*r, "auth.header", "%s is no header that can carry a credential; write one such as X-Api-Key", quoted(a.Header))
		}
	case QueryScheme:
		if !token(a.Query) {
			return routeErrorf(*r, "auth.query", "%s is no parameter name; write one such as key", quoted(a.Query))
		}
	default:
		return routeErrorf(*r, "auth.scheme", "unknown scheme %s; write bearer, basic, header or query", quoted(string(a.Scheme)))
	}
	if strings.ContainsAny(a.User, ":\r\n\x00") { // RFC 7617 section 2
		return routeErrorf(*r, "auth.user", "a user name holds no colon, line break or NUL")
	}
	if a.Role != "" && a.Role != RoleProvider {
		return routeErrorf(*r, "auth.role", "unknown role %s; write provider or leave it out", quoted(a.Role))
	}
	if n := a.Secret.Sources(); n != 1 {
		return routeErrorf(*r, "auth.secret", "it has %d sources; write exactly one of env, file, json, command", n)
	}
	r.Auth = &a
	return nil
}

// forwardable tells whether a method is a token (RFC 9110 section 9.1) of at
// most 32 bytes and none of those that a gateway must not forward: CONNECT
// opens a tunnel, TRACE reflects the credential (section 9.3.8), PRI is the
// preface of HTTP/2 (RFC 9113 section 3.4).
func forwardable(method string) bool {
	if len(method) > 32 || !token(method) {
		return false
	}
	switch strings.ToUpper(method) {
	case "CONNECT", "TRACE", "PRI":
		return false
	}
	return true
}

// token is RFC 9110 section 5.6.2.
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// framing tells whether a header governs the message or the connection, so
// that setting it to a secret would break either (RFC 9110 sections 6.4, 7.6.1).
func framing(header string) bool {
	switch header {
	case "Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Trailer", "Te",
		"Connection", "Keep-Alive", "Proxy-Connection", "Upgrade", "Expect", "Date", "Range",
		"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions", "Sec-Websocket-Accept":
		return true
	}
	return false
}

func checkPipelock(r *Route) error {
	if r.Pipelock.IsZero() {
		return nil
	}
	if a := r.Pipelock.Action; a != "" && a != WarnAction {
		return routeErrorf(*r, "pipelock.action", "unknown action %s; write warn, or leave it out", quoted(a))
	}
	if !r.Scan() && (r.Pipelock.Action != "" || !r.Wildcard()) { // names under a wildcard are scanned in any case
		return routeErrorf(*r, "pipelock", "the route is not scanned, so action and disable mean nothing")
	}
	return nil
}
