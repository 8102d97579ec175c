package explain

import (
	"errors"
	"strings"
	"testing"

	"gatewayd/gateway/routes"
)

func table(t *testing.T) *routes.Table {
	t.Helper()
	tab, err := routes.NewTable([]routes.Route{
		{Host: "api.example.com", Port: 443, Protocol: routes.HTTPS, Methods: []string{"GET"}, Paths: []string{"/v1/**"},
			Auth:   &routes.Auth{Scheme: routes.Bearer, Header: "Authorization", Secret: routes.SecretRef{Env: "TOKEN"}},
			Origin: routes.Origin{File: "dev.bottle.yaml", Line: 7}},
		{Host: "pass.example.com", Port: 443, Protocol: routes.HTTPS, TLSPassthrough: true},
		{Host: "db.example.com", Port: 5432, Protocol: routes.TCP, AllowPrivate: true},
		{Host: "plain.example.com", Port: 80, Protocol: routes.HTTP},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestTarget(t *testing.T) {
	tab := table(t)
	for _, c := range []struct {
		target, method string
		decision       routes.Decision
		reason         routes.Reason
		protocol       routes.Protocol
		path, inject   string
	}{
		{"https://api.example.com/v1/items?q=1#f", "", routes.Intercept, routes.RouteMatched, routes.HTTPS, "/v1/items", "env:TOKEN"},
		{"wss://api.example.com/v1/items", "", routes.Intercept, routes.RouteMatched, routes.HTTPS, "/v1/items", "env:TOKEN"},
		{"https://API.example.com/v1/items", "POST", routes.Deny, routes.MethodDenied, routes.HTTPS, "/v1/items", ""},
		{"https://api.example.com", "", routes.Deny, routes.PathDenied, routes.HTTPS, "/", ""},
		{"https://api.example.com?x=/y", "", routes.Deny, routes.PathDenied, routes.HTTPS, "/", ""},
		{"https://api.example.com/v1/../admin", "", routes.Deny, routes.PathNotCanonical, routes.HTTPS, "/v1/../admin", ""},
		{"https://api.example.com:8443/v1/x", "", routes.Deny, routes.PortDenied, routes.HTTPS, "/v1/x", ""},
		{"http://api.example.com/v1/x", "", routes.Deny, routes.PortDenied, routes.HTTP, "/v1/x", ""},
		{"https://evil.example.com/", "", routes.Deny, routes.NoRoute, routes.HTTPS, "/", ""},
		{"pass.example.com:443", "", routes.Passthrough, routes.RouteMatched, routes.HTTPS, "", ""},
		{"db.example.com:5432", "", routes.Passthrough, routes.RouteMatched, routes.TCP, "", ""},
		{"plain.example.com:80", "", routes.Intercept, routes.RouteMatched, routes.HTTP, "", ""},
		{"evil.example.com:22", "", routes.Deny, routes.NoRoute, routes.HTTPS, "", ""},
		{"198.51.100.7:443", "", routes.Deny, routes.BadName, routes.HTTPS, "", ""},
	} {
		a, err := Target(tab, c.target, c.method)
		if err != nil {
			t.Errorf("%s: %v", c.target, err)
			continue
		}
		if a.Decision != c.decision || a.Reason != c.reason || a.Protocol != c.protocol || a.Path != c.path || a.Inject != c.inject {
			t.Errorf("%s %s: got %+v", c.method, c.target, a)
		}
	}
}

func TestTargetSaysWhereAndWhatInstead(t *testing.T) {
	a, err := Target(table(t), "https://api.example.com/v2/x", "")
	if err != nil || a.Origin != "dev.bottle.yaml:7" || !strings.Contains(a.Remedy, "/v2/x") || !strings.HasPrefix(a.Name, "resolved") {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err = Target(nil, "https://api.example.com/", ""); err != nil || a.Decision != routes.Deny {
		t.Errorf("no table: %+v, %v", a, err)
	}
}

func TestBadTarget(t *testing.T) {
	for _, s := range []string{"", "word", "ftp://example.com/", "https://u:p@example.com/", "https://example.com:0/", "example.com:x", ":443", "https://example.com:99999/"} {
		_, err := Target(table(t), s, "")
		var e *TargetError
		if !errors.As(err, &e) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestIsID(t *testing.T) {
	for s, want := range map[string]bool{
		"r-0123456789abcdef0123456789abcdef": true, "f-00000000000000000000000000000000": true,
		"x-0123456789abcdef0123456789abcdef": false, "r-0123456789abcdef0123456789abcdeg": false, "r-1": false, "": false, "api.example.com:443": false,
	} {
		if IsID(s) != want {
			t.Errorf("%s: %v", s, !want)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"https://api.example.com/v1/x", "a:1", "wss://h:1?x#y", "http://[::1]:80/"} {
		f.Add(s, "GET")
	}
	tab, err := routes.NewTable(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s, method string) {
		if a, err := Target(tab, s, method); err == nil && a.Decision != routes.Deny {
			t.Errorf("an empty table allows %q: %+v", s, a)
		}
	})
}
