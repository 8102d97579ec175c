// Package explain answers "what would happen to this?" from a bottle's routes alone, and says of a record why it ended as
// it did.
package explain

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"gatewayd/gateway/routes"
)

// Answer is what a plan says of one target.
type Answer struct {
	Bottle   string          `json:"bottle,omitempty"`
	Plan     string          `json:"plan,omitempty"`
	Host     string          `json:"host"`
	Port     uint16          `json:"port"`
	Protocol routes.Protocol `json:"protocol"`
	// Method and Path are empty when the target is HOST:PORT, which is judged as a connection.
	Method   string          `json:"method,omitempty"`
	Path     string          `json:"path,omitempty"`
	Decision routes.Decision `json:"decision"`
	Rule     string          `json:"rule,omitempty"`
	Reason   routes.Reason   `json:"reason"`
	// Origin says where the governing route was written: "dev.bottle.yaml:12", or the provider.
	Origin string `json:"origin,omitempty"`
	// Inject names the credential that would be set, as a reference.
	Inject string `json:"inject,omitempty"`
	// Answer names the answerer that would reply in the upstream's place.
	Answer string `json:"answer,omitempty"`
	Scan   bool   `json:"scan"`
	// Name says what the guest would hear of the name.
	Name string `json:"name"`
	// Remedy are manifest lines that would allow what is denied.
	Remedy string `json:"remedy,omitempty"`
}

// TargetError says that a target is neither a URL nor HOST:PORT.
type TargetError struct{ Target, Problem string }

// Error says what to write.
func (e *TargetError) Error() string {
	return fmt.Sprintf("%q %s; write a URL such as https://api.example.com/v1/items, HOST:PORT, or the id that a denial showed", e.Target, e.Problem)
}

// IsID tells whether s has the form of a record's id: a letter, a dash and hexadecimal digits.
func IsID(s string) bool {
	if len(s) != 34 || s[1] != '-' || !strings.ContainsRune("frde", rune(s[0])) {
		return false
	}
	return strings.Trim(s[2:], "0123456789abcdef") == ""
}

// target is what is asked about.
type target struct {
	host     string
	port     uint16
	protocol routes.Protocol
	path     string
	request  bool
}

// Target judges target, a URL or HOST:PORT, by a bottle's routes. method is that of the request, "" for GET. The path of
// a URL is taken as it is written, as a client would send it. The error is *TargetError.
func Target(t *routes.Table, s, method string) (Answer, error) {
	q, err := parse(t, s)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Host: q.host, Port: q.port, Protocol: q.protocol}
	var v routes.Verdict
	if q.request {
		if method == "" {
			method = "GET"
		}
		a.Method, a.Path = method, q.path
		v = t.Decide(routes.Request{Host: q.host, Port: q.port, Protocol: q.protocol, Method: method, Path: q.path})
	} else {
		v = t.DecideFlow(q.host, q.port, q.protocol)
	}
	a.Decision, a.Rule, a.Reason, a.Scan, a.Remedy = v.Decision, v.Rule, v.Reason, v.Scan, v.Remedy()
	if v.Route != nil {
		a.Origin, a.Answer = v.Route.Origin.String(), v.Route.Answer
		if v.Inject && v.Route.Auth != nil {
			a.Inject = v.Route.Auth.Secret.String()
		}
	}
	a.Name = name(t, q.host)
	return a, nil
}

// name says what the resolver does with host.
func name(t *routes.Table, host string) string {
	rule, ok := t.Resolve(host)
	switch {
	case !ok:
		return "not resolved: it is outside the plan"
	case rule.AllowPrivate:
		return "resolved, to private addresses too"
	default:
		return "resolved, to public addresses only"
	}
}

// parse reads a URL or HOST:PORT. It does not use net/url, which would tidy the path up.
func parse(t *routes.Table, s string) (target, error) {
	scheme, rest, isURL := strings.Cut(s, "://")
	if !isURL {
		return parseHostPort(t, s)
	}
	q := target{request: true, path: "/"}
	switch strings.ToLower(scheme) {
	case "https", "wss":
		q.protocol, q.port = routes.HTTPS, 443
	case "http", "ws":
		q.protocol, q.port = routes.HTTP, 80
	default:
		return q, &TargetError{s, "has the scheme " + scheme + ", which the gateway does not carry by URL"}
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
		if p, _, _ := strings.Cut(strings.SplitN(rest[i:], "#", 2)[0], "?"); p != "" {
			q.path = p
		}
	}
	if strings.ContainsRune(authority, '@') {
		return q, &TargetError{s, "holds a user name"}
	}
	q.host = authority
	if host, port, err := net.SplitHostPort(authority); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return q, &TargetError{s, "has no port from 1 to 65535"}
		}
		q.host, q.port = host, uint16(n)
	}
	return q, nil
}

// parseHostPort reads HOST:PORT. The protocol is that of the plan's route if there is one, else what the port suggests.
func parseHostPort(t *routes.Table, s string) (target, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return target{}, &TargetError{s, "is neither a URL nor HOST:PORT"}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return target{}, &TargetError{s, "has no port from 1 to 65535"}
	}
	q := target{host: host, port: uint16(n), protocol: routes.HTTPS}
	if q.port == 80 {
		q.protocol = routes.HTTP
	}
	for _, p := range []routes.Protocol{routes.HTTPS, routes.HTTP, routes.TCP} {
		if t.DecideFlow(q.host, q.port, p).Decision != routes.Deny {
			q.protocol = p
			break
		}
	}
	return q, nil
}
