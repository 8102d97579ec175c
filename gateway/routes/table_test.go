package routes

import (
	"errors"
	"strings"
	"testing"
)

func bearer(header string) *Auth {
	return &Auth{Scheme: Bearer, Header: header, Secret: SecretRef{Env: "TOKEN"}}
}

func mustTable(t *testing.T, rs ...Route) *Table {
	t.Helper()
	table, err := NewTable(rs)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestDecisionTable is the table of what a route means, row by row.
func TestDecisionTable(t *testing.T) {
	const host = "api.example.org"
	type outcome struct {
		decision     Decision
		reason       Reason
		inject, scan bool
	}
	for _, c := range []struct {
		row   string
		route *Route
		ask   Request
		want  outcome
	}{
		{"no route", nil, Request{Port: 443}, outcome{Deny, NoRoute, false, false}},
		{"no auth, passthrough", &Route{TLSPassthrough: true}, Request{Port: 443}, outcome{Passthrough, RouteMatched, false, false}},
		{"no auth, no passthrough", &Route{}, Request{Port: 443}, outcome{Intercept, RouteMatched, false, true}},
		{"auth, no passthrough", &Route{Auth: bearer("")}, Request{Port: 443}, outcome{Intercept, RouteMatched, true, true}},
		{"auth, passthrough", &Route{Auth: bearer(""), TLSPassthrough: true}, Request{Port: 443}, outcome{Intercept, RouteMatched, true, false}},
		{"answer", &Route{Answer: "x"}, Request{Port: 443}, outcome{Intercept, RouteMatched, false, false}},
		{"answer, passthrough", &Route{Answer: "x", TLSPassthrough: true}, Request{Port: 443}, outcome{Intercept, RouteMatched, false, false}},
		{"tcp", &Route{Protocol: TCP, Port: 22}, Request{Port: 22, Protocol: TCP}, outcome{Passthrough, RouteMatched, false, false}},
		{"http", &Route{Protocol: HTTP}, Request{Port: 80, Protocol: HTTP}, outcome{Intercept, RouteMatched, false, true}},
		{"http, auth", &Route{Protocol: HTTP, Auth: bearer("")}, Request{Port: 80, Protocol: HTTP}, outcome{Intercept, RouteMatched, true, true}},
	} {
		t.Run(c.row, func(t *testing.T) {
			table := mustTable(t)
			if c.route != nil {
				r := *c.route
				r.Host = host
				table = mustTable(t, r)
			}
			c.ask.Host, c.ask.Method, c.ask.Path = host, "GET", "/"
			flow := table.DecideFlow(host, c.ask.Port, c.ask.Protocol)
			for name, v := range map[string]Verdict{"request": table.Decide(c.ask), "flow": flow} {
				got := outcome{v.Decision, v.Reason, v.Inject, v.Scan}
				if got != c.want {
					t.Errorf("%s: %+v, want %+v", name, got, c.want)
				}
				if (v.Route != nil) != (c.route != nil) {
					t.Errorf("%s: route %v", name, v.Route)
				}
			}
		})
	}
}

func TestZeroValuesDeny(t *testing.T) {
	var none *Table
	empty := mustTable(t)
	for _, table := range []*Table{none, empty, {}} {
		if v := table.Decide(Request{Host: "a.test", Port: 443, Method: "GET", Path: "/"}); v.Decision != Deny || v.Reason != NoRoute {
			t.Errorf("%+v", v)
		}
		if v := table.DecideFlow("a.test", 443, HTTPS); v.Decision != Deny {
			t.Errorf("%+v", v)
		}
		if _, ok := table.Resolve("a.test"); ok || table.TCP(22) || len(table.Routes()) != 0 {
			t.Error("an empty table says yes")
		}
	}
	if (Verdict{}).Decision != Deny || Decision(200).String() != "deny" || (Verdict{}).Remedy() != "" {
		t.Error("a zero value does not deny")
	}
}

func TestMostSpecificRouteGoverns(t *testing.T) {
	table := mustTable(t,
		Route{Host: "*.example.org"},
		Route{Host: "*.deep.example.org", TLSPassthrough: true},
		Route{Host: "api.example.org", Auth: bearer("")},
		Route{Host: "api.example.org", Port: 8443, TLSPassthrough: true},
		Route{Host: "only.test"},
		Route{Host: "*.example.org", Port: 9443},
		Route{Host: "db.test", Port: 5432, Protocol: TCP},
	)
	for _, c := range []struct {
		host   string
		port   uint16
		proto  Protocol
		rule   string
		reason Reason
	}{
		{"api.example.org", 443, HTTPS, "api.example.org:443", RouteMatched},
		{"API.example.ORG", 443, "", "api.example.org:443", RouteMatched},
		{"www.example.org", 443, HTTPS, "*.example.org:443", RouteMatched},
		{"a.b.example.org", 443, HTTPS, "*.example.org:443", RouteMatched},
		{"x.deep.example.org", 443, HTTPS, "*.deep.example.org:443", RouteMatched},
		{"deep.example.org", 443, HTTPS, "*.example.org:443", RouteMatched},
		{"api.example.org", 8443, HTTPS, "api.example.org:8443", RouteMatched},
		{"api.example.org", 9443, HTTPS, "*.example.org:9443", RouteMatched},
		{"x.deep.example.org", 9443, HTTPS, "*.example.org:9443", RouteMatched},
		{"example.org", 443, HTTPS, "", NoRoute},
		{"xexample.org", 443, HTTPS, "", NoRoute},
		{"api.example.org.evil.test", 443, HTTPS, "", NoRoute},
		{"sub.only.test", 443, HTTPS, "", NoRoute},
		{"only.test", 80, HTTP, "", PortDenied},
		{"only.test", 8443, HTTPS, "", PortDenied},
		{"www.example.org", 22, TCP, "", PortDenied},
		{"only.test", 443, HTTP, "only.test:443", ProtocolDenied},
		{"only.test", 443, TCP, "only.test:443", ProtocolDenied},
		{"db.test", 5432, HTTPS, "db.test:5432", ProtocolDenied},
		{"db.test", 5432, TCP, "db.test:5432", RouteMatched},
		{"only.test.", 443, HTTPS, "", BadName},
		{"only.test:443", 443, HTTPS, "", BadName},
		{"127.0.0.1", 443, HTTPS, "", BadName},
		{"", 443, HTTPS, "", BadName},
		{"*.example.org", 443, HTTPS, "", BadName},
	} {
		v := table.DecideFlow(c.host, c.port, c.proto)
		if v.Rule != c.rule || v.Reason != c.reason || (v.Decision != Deny) != (c.reason == RouteMatched) {
			t.Errorf("%s:%d %s: rule %q reason %q decision %s, want %q %q", c.host, c.port, c.proto, v.Rule, v.Reason, v.Decision, c.rule, c.reason)
		}
	}
	if !table.TCP(5432) || table.TCP(443) {
		t.Error("TCP ports")
	}
	for i := range table.Routes() {
		r := &table.Routes()[i]
		if strings.HasPrefix(r.Host, "*") {
			continue
		}
		if v := table.DecideFlow(r.Host, r.Port, r.Protocol); v.Route != r {
			t.Errorf("%s: verdict's route is not the table's", r.Rule())
		}
	}
}

func TestRequests(t *testing.T) {
	table := mustTable(t,
		Route{Host: "api.test", Methods: []string{"GET", "POST"}, Paths: []string{"/repos/**", "/v1/*/x"}, Auth: bearer(""), TLSPassthrough: true},
		Route{Host: "free.test"},
		Route{Host: "pass.test", TLSPassthrough: true},
		Route{Host: "token.test", Paths: []string{"/oauth/token"}, Answer: "tokens"},
	)
	for _, c := range []struct {
		host, method, path string
		want               Reason
	}{
		{"api.test", "GET", "/repos/a/b", RouteMatched},
		{"api.test", "POST", "/v1/m/x", RouteMatched},
		{"api.test", "PUT", "/repos/a/b", MethodDenied},
		{"api.test", "get", "/repos/a/b", MethodDenied},
		{"api.test", "HEAD", "/repos/a/b", MethodDenied},
		{"api.test", "", "/repos/a/b", MethodDenied},
		{"api.test", "GET", "/user", PathDenied},
		{"api.test", "GET", "/", PathDenied},
		{"api.test", "GET", "/v1/m/n/x", PathDenied},
		{"api.test", "GET", "/reposx", PathDenied},
		{"api.test", "GET", "*", PathNotCanonical},
		{"api.test", "GET", "", PathNotCanonical},
		{"api.test", "GET", "http://api.test/repos/a", PathNotCanonical},
		{"free.test", "PROPFIND", "/x", RouteMatched},
		{"free.test", "OPTIONS", "*", RouteMatched},
		{"free.test", "GET", "*", PathNotCanonical},
		{"free.test", "CONNECT", "/", MethodDenied},
		{"free.test", "TRACE", "/", MethodDenied},
		{"free.test", "trace", "/", MethodDenied},
		{"free.test", "PRI", "*", MethodDenied},
		{"free.test", "GET\r\nX", "/", MethodDenied},
		{"free.test", strings.Repeat("A", 33), "/", MethodDenied},
		{"token.test", "POST", "/oauth/token", RouteMatched},
		{"token.test", "POST", "/oauth/revoke", PathDenied},
	} {
		v := table.Decide(Request{Host: c.host, Port: 443, Method: c.method, Path: c.path})
		if v.Reason != c.want || (v.Decision == Intercept) != (c.want == RouteMatched) {
			t.Errorf("%s %q %q: %s %s, want %s", c.host, c.method, c.path, v.Decision, v.Reason, c.want)
		}
		if v.Decision == Deny && (v.Inject || v.Scan) {
			t.Errorf("%s %q %q: a denial injects or scans", c.host, c.method, c.path)
		}
	}
	if v := table.Decide(Request{Host: "pass.test", Port: 443, Method: "GET", Path: "/"}); v.Decision != Passthrough {
		t.Errorf("request on a passed-through host: %+v", v)
	}
	if v := mustTable(t, Route{Host: "api.test", Methods: []string{"OPTIONS"}, Paths: []string{"/**"}}).
		Decide(Request{Host: "api.test", Port: 443, Method: "OPTIONS", Path: "*"}); v.Reason != PathDenied {
		t.Errorf("OPTIONS * on a route with paths: %s", v.Reason)
	}
}

// TestAmbiguousPaths sends every path that can be read in two ways to a route
// with patterns and to one without.
func TestAmbiguousPaths(t *testing.T) {
	table := mustTable(t, Route{Host: "api.test", Paths: []string{"/**"}}, Route{Host: "free.test"})
	for _, c := range refusedPaths {
		if c.path == "*" {
			continue
		}
		q := Request{Host: "api.test", Port: 443, Method: "GET", Path: c.path}
		if v := table.Decide(q); v.Decision != Deny || v.Reason != PathNotCanonical || v.Remedy() != "" {
			t.Errorf("%s: with patterns %s %s", c.name, v.Decision, v.Reason)
		}
		q.Host = "free.test"
		if v := table.Decide(q); (v.Decision == Intercept) != c.loose {
			t.Errorf("%s: without patterns %s %s", c.name, v.Decision, v.Reason)
		}
	}
}

func TestResolve(t *testing.T) {
	table := mustTable(t,
		Route{Host: "*.example.org", TLSPassthrough: true},
		Route{Host: "*.example.org", Port: 8443, AllowPrivate: true},
		Route{Host: "api.example.org", Auth: bearer("")},
		Route{Host: "db.corp.test", Port: 5432, Protocol: TCP, AllowPrivate: true},
		Route{Host: "pass.test", TLSPassthrough: true},
		Route{Host: "auth.test", Answer: "refresh"},
		Route{Host: "half.test", Answer: "refresh"},
		Route{Host: "half.test", Port: 8443},
	)
	for _, c := range []struct {
		host string
		want NameRule
		ok   bool
	}{
		{"www.example.org", NameRule{Pattern: "*.example.org", Wildcard: true, AllowPrivate: true}, true},
		{"API.example.org", NameRule{Pattern: "api.example.org", AllowPrivate: true}, true},
		{"db.corp.test", NameRule{Pattern: "db.corp.test", AllowPrivate: true, Passthrough: true}, true},
		{"pass.test", NameRule{Pattern: "pass.test", Passthrough: true}, true},
		{"auth.test", NameRule{Pattern: "auth.test", Answered: true}, true},
		{"half.test", NameRule{Pattern: "half.test"}, true},
		{"example.org", NameRule{}, false},
		{"pass.test.", NameRule{}, false},
		{"test", NameRule{}, false},
		{"", NameRule{}, false},
	} {
		if got, ok := table.Resolve(c.host); got != c.want || ok != c.ok {
			t.Errorf("Resolve(%q) = %+v, %v; want %+v, %v", c.host, got, ok, c.want, c.ok)
		}
	}
}

func TestNewTableRefuses(t *testing.T) {
	origin := Origin{File: "dev.bottle.yaml", Line: 12}
	for _, c := range []struct {
		name, field, contains string
		routes                []Route
	}{
		{"bad host", "host", "empty", []Route{{Host: ""}}},
		{"IP host", "host", "IP address", []Route{{Host: "10.0.0.1"}}},
		{"part wildcard", "host", "whole first label", []Route{{Host: "a*.test"}}},
		{"duplicate", "host", "already has a route", []Route{{Host: "a.test"}, {Host: "A.test", Port: 443}}},
		{"duplicate wildcard", "host", "already has a route", []Route{{Host: "*.a.test"}, {Host: "*.A.test"}}},
		{"protocol", "protocol", "write https, http or tcp", []Route{{Host: "a.test", Protocol: "udp"}}},
		{"tcp without port", "port", "must name its port", []Route{{Host: "a.test", Protocol: TCP}}},
		{"tcp with auth", "protocol", "carried unread", []Route{{Host: "a.test", Port: 1, Protocol: TCP, Auth: bearer("")}}},
		{"tcp with methods", "protocol", "carried unread", []Route{{Host: "a.test", Port: 1, Protocol: TCP, Methods: []string{"GET"}}}},
		{"tcp with answer", "protocol", "carried unread", []Route{{Host: "a.test", Port: 1, Protocol: TCP, Answer: "x"}}},
		{"tcp with passthrough", "tls_passthrough", "https alone", []Route{{Host: "a.test", Port: 1, Protocol: TCP, TLSPassthrough: true}}},
		{"http with passthrough", "tls_passthrough", "https alone", []Route{{Host: "a.test", Protocol: HTTP, TLSPassthrough: true}}},
		{"methods on passthrough", "tls_passthrough", "nobody can see", []Route{{Host: "a.test", TLSPassthrough: true, Methods: []string{"GET"}}}},
		{"paths on passthrough", "tls_passthrough", "nobody can see", []Route{{Host: "a.test", TLSPassthrough: true, Paths: []string{"/**"}}}},
		{"empty methods", "methods", "leave it out", []Route{{Host: "a.test", Methods: []string{}}}},
		{"empty paths", "paths", "leave it out", []Route{{Host: "a.test", Paths: []string{}}}},
		{"lower method", "methods", "capitals", []Route{{Host: "a.test", Methods: []string{"get"}}}},
		{"CONNECT", "methods", "never", []Route{{Host: "a.test", Methods: []string{"CONNECT"}}}},
		{"TRACE", "methods", "never", []Route{{Host: "a.test", Methods: []string{"TRACE"}}}},
		{"method with CRLF", "methods", "no method", []Route{{Host: "a.test", Methods: []string{"GET\r\n"}}}},
		{"bad pattern", "paths", "dot segment", []Route{{Host: "a.test", Paths: []string{"/a/../b"}}}},
		{"auth on wildcard", "auth", "exact hosts only", []Route{{Host: "*.a.test", Auth: bearer("")}}},
		{"auth and answer", "answer", "remove one", []Route{{Host: "a.test", Auth: bearer(""), Answer: "x"}}},
		{"scheme", "auth.scheme", "write bearer", []Route{{Host: "a.test", Auth: &Auth{Scheme: "digest", Secret: SecretRef{Env: "X"}}}}},
		{"no scheme", "auth.scheme", "write bearer", []Route{{Host: "a.test", Auth: &Auth{Secret: SecretRef{Env: "X"}}}}},
		{"bearer elsewhere", "auth.header", "scheme header", []Route{{Host: "a.test", Auth: bearer("X-Api-Key")}}},
		{"header missing", "auth.header", "X-Api-Key", []Route{{Host: "a.test", Auth: &Auth{Scheme: HeaderScheme, Secret: SecretRef{Env: "X"}}}}},
		{"header with CRLF", "auth.header", "X-Api-Key", []Route{{Host: "a.test", Auth: &Auth{Scheme: HeaderScheme, Header: "X\r\nY", Secret: SecretRef{Env: "X"}}}}},
		{"framing header", "auth.header", "X-Api-Key", []Route{{Host: "a.test", Auth: &Auth{Scheme: HeaderScheme, Header: "content-length", Secret: SecretRef{Env: "X"}}}}},
		{"query missing", "auth.query", "parameter", []Route{{Host: "a.test", Auth: &Auth{Scheme: QueryScheme, Secret: SecretRef{Env: "X"}}}}},
		{"user with colon", "auth.user", "colon", []Route{{Host: "a.test", Auth: &Auth{Scheme: Basic, User: "a:b", Secret: SecretRef{Env: "X"}}}}},
		{"role", "auth.role", "provider", []Route{{Host: "a.test", Auth: &Auth{Scheme: Bearer, Role: "x", Secret: SecretRef{Env: "X"}}}}},
		{"no source", "auth.secret", "0 sources", []Route{{Host: "a.test", Auth: &Auth{Scheme: Bearer}}}},
		{"two sources", "auth.secret", "2 sources", []Route{{Host: "a.test", Auth: &Auth{Scheme: Bearer, Secret: SecretRef{Env: "X", File: "y"}}}}},
		{"narrower than wildcard: methods", "host", "*.a.test:443", []Route{{Host: "*.a.test"}, {Host: "b.a.test", Methods: []string{"GET"}}}},
		{"narrower than wildcard: paths", "host", "*.a.test:443", []Route{{Host: "b.a.test", Paths: []string{"/x"}}, {Host: "*.a.test", Paths: []string{"/**"}}}},
		{"narrower than wildcard: protocol", "host", "*.a.test:443", []Route{{Host: "*.a.test"}, {Host: "b.a.test", Protocol: TCP, Port: 443}}},
		{"narrower than wildcard: private", "host", "*.a.test:443", []Route{{Host: "*.a.test", AllowPrivate: true}, {Host: "b.a.test"}}},
		{"narrower wildcard", "host", "*.a.test:443", []Route{{Host: "*.a.test"}, {Host: "*.b.a.test", Methods: []string{"GET"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.routes {
				c.routes[i].Origin = origin
			}
			table, err := NewTable(c.routes)
			var re *RouteError
			if !errors.As(err, &re) {
				t.Fatalf("error %v, want a RouteError", err)
			}
			if table != nil {
				t.Error("there is a table beside the error")
			}
			if re.Field != c.field || re.Origin != origin || !strings.Contains(err.Error(), c.contains) || !strings.Contains(err.Error(), "dev.bottle.yaml:12") {
				t.Errorf("field %q: %v; want field %q and %q in it", re.Field, err, c.field, c.contains)
			}
		})
	}
}

func TestWildcardMayBeNarrower(t *testing.T) {
	mustTable(t,
		Route{Host: "*.a.test", Methods: []string{"GET"}, Paths: []string{"/x"}},
		Route{Host: "b.a.test", Methods: []string{"POST", "GET"}, Paths: []string{"/y", "/x"}},
		Route{Host: "c.a.test", AllowPrivate: true},
		Route{Host: "d.a.test", TLSPassthrough: true},
		Route{Host: "*.a.test", Port: 8443},
		Route{Host: "a.test", Methods: []string{"GET"}},
	)
}

func TestNewTableCopies(t *testing.T) {
	rs := []Route{{Host: "A.test", Auth: &Auth{Scheme: HeaderScheme, Header: "x-api-key", Secret: SecretRef{Env: "X"}}}}
	table := mustTable(t, rs...)
	if rs[0].Host != "A.test" || rs[0].Auth.Header != "x-api-key" {
		t.Errorf("the caller's routes were changed: %+v", rs[0])
	}
	r := table.Routes()[0]
	if r.Host != "a.test" || r.Port != 443 || r.Protocol != HTTPS || r.Auth.Header != "X-Api-Key" {
		t.Errorf("not canonical: %+v", r)
	}
	rs[0].Host = "b.test"
	if table.DecideFlow("a.test", 443, HTTPS).Decision != Intercept {
		t.Error("the table changed with the caller's slice")
	}
}
