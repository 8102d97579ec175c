package routes

import "slices"

// Request is what is to be decided: one HTTP request, or, with Method and
// Path empty, nothing that Decide would let through. Every field is as the
// guest sent it.
type Request struct {
	// Host is the name the connection was made for, without a port.
	Host string
	// Port is the destination port, never 0.
	Port uint16
	// Protocol is HTTPS or HTTP; "" means HTTPS.
	Protocol Protocol
	// Method is case-sensitive (RFC 9110 section 9.1).
	Method string
	// Path is the raw path of the request target, still encoded, without the
	// query; or "*" for "OPTIONS *".
	Path string
}

// Verdict is a decision with what it rests on. The zero Verdict denies.
type Verdict struct {
	Decision Decision
	// Route is the governing route, also on most denials by it (method, path);
	// nil when none governs. It belongs to the table.
	Route *Route
	// Rule is the governing route's "pattern:port", or "".
	Rule string
	// Reason says why, for allowed and denied alike.
	Reason Reason
	// Inject tells that the route's credential is to be put on the request.
	Inject bool
	// Scan tells that the request is to be scanned, before injection.
	Scan bool

	asked Request
}

// Decide decides one HTTP request. It never panics, whatever the bytes. What
// no route can allow (a method that is never forwarded, a path that names
// another resource than it seems to) is denied also where the governing route
// passes through, although nobody would see it there; so a caller that holds a
// request and is told Passthrough holds it by mistake, and must not send it.
func (t *Table) Decide(q Request) Verdict {
	if q.Protocol == "" {
		q.Protocol = HTTPS
	}
	v, e := t.govern(q)
	if v.Decision == Deny {
		return v
	}
	if why := e.judge(v.Route, q.Method, q.Path); why != RouteMatched {
		return Verdict{Route: v.Route, Rule: v.Rule, Reason: why, asked: v.asked}
	}
	return v
}

// judge returns RouteMatched when the route allows method and path, else why
// it does not.
func (e *entry) judge(r *Route, method, path string) Reason {
	switch {
	case !forwardable(method), r.Methods != nil && !slices.Contains(r.Methods, method):
		return MethodDenied
	case path == "*" && method != "OPTIONS":
		return PathNotCanonical
	case path == "*" && r.Paths != nil: // RFC 9112 section 3.2.4: it names no path, so no pattern covers it
		return PathDenied
	case path == "*":
		return RouteMatched
	case looseFault(path) != "", r.Paths != nil && strictFault(path) != "":
		return PathNotCanonical
	case r.Paths != nil && !e.matchPath(path):
		return PathDenied
	}
	return RouteMatched
}

// DecideFlow decides a connection before any request of it is seen: Deny,
// Passthrough, or Intercept, after which each request goes to Decide. The
// host may be given in any case; p "" means HTTPS.
func (t *Table) DecideFlow(host string, port uint16, p Protocol) Verdict {
	if p == "" {
		p = HTTPS
	}
	v, _ := t.govern(Request{Host: host, Port: port, Protocol: p})
	return v
}

// govern finds the route for a request's host, port and protocol. The entry
// is nil exactly when the verdict's Route is.
func (t *Table) govern(q Request) (Verdict, *entry) {
	if !t.names(q.Host) { // else it is canonical
		host, err := CanonicalHost(q.Host)
		if err != nil {
			return Verdict{Reason: BadName, asked: q}, nil
		}
		q.Host = host
	}
	if t == nil {
		return Verdict{Reason: NoRoute, asked: q}, nil
	}
	e, named := t.lookup(q.Host, q.Port)
	if e == nil {
		why := NoRoute
		if named {
			why = PortDenied
		}
		return Verdict{Reason: why, asked: q}, nil
	}
	r := &t.routes[e.index]
	if r.Protocol != q.Protocol {
		return Verdict{Route: r, Rule: e.rule, Reason: ProtocolDenied, asked: q}, e
	}
	return Verdict{
		Decision: r.Decision(),
		Route:    r,
		Rule:     e.rule,
		Reason:   RouteMatched,
		Inject:   r.Auth != nil,
		Scan:     r.Scan(),
		asked:    q,
	}, e
}

func (e *entry) matchPath(path string) bool {
	segments := splitPath(path)
	for _, p := range e.paths {
		if p.match(segments) {
			return true
		}
	}
	return false
}
