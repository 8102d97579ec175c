package routes

import (
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestRemedyAllows reads each remedy back as YAML, adds what it says to the
// plan and asks again.
func TestRemedyAllows(t *testing.T) {
	plan := []Route{
		{Host: "api.test", Methods: []string{"GET"}, Paths: []string{"/a/*"}, Origin: Origin{File: "dev.bottle.yaml", Line: 7}},
		{Host: "*.wild.test", Paths: []string{"/w"}},
		{Host: "db.test", Port: 22, Protocol: TCP},
	}
	for _, c := range []struct {
		name   string
		ask    Request
		reason Reason
		lines  string
	}{
		{"no route", Request{Host: "New.test", Port: 443, Method: "GET", Path: "/"}, NoRoute, "egress:\n  routes:\n    - host: new.test\n"},
		{"other port", Request{Host: "api.test", Port: 8443, Method: "GET", Path: "/"}, PortDenied, "egress:\n  routes:\n    - host: api.test\n      port: 8443\n"},
		{"clear text", Request{Host: "new.test", Port: 80, Protocol: HTTP, Method: "GET", Path: "/"}, NoRoute, "egress:\n  routes:\n    - host: new.test\n      protocol: http\n"},
		{"method", Request{Host: "api.test", Port: 443, Method: "PUT", Path: "/a/b"}, MethodDenied, "# api.test:443 (dev.bottle.yaml:7), with the rest of it as it is:\negress:\n  routes:\n    - host: api.test\n      methods: [GET, PUT]\n      paths: [\"/a/*\"]\n"},
		{"path", Request{Host: "api.test", Port: 443, Method: "GET", Path: "/b/c"}, PathDenied, "# api.test:443 (dev.bottle.yaml:7), with the rest of it as it is:\negress:\n  routes:\n    - host: api.test\n      methods: [GET]\n      paths: [\"/a/*\", \"/b/c\"]\n"},
		{"long path", Request{Host: "api.test", Port: 443, Method: "GET", Path: "/b/" + strings.Repeat("x", 2000)}, PathDenied, ""},
		{"long first segment", Request{Host: "api.test", Port: 443, Method: "GET", Path: "/" + strings.Repeat("x", 2000)}, PathDenied, ""},
		{"stars in the path", Request{Host: "api.test", Port: 443, Method: "GET", Path: "/a**b/c***"}, PathDenied, ""},
		{"wildcard's path", Request{Host: "x.wild.test", Port: 443, Method: "GET", Path: "/y"}, PathDenied, ""},
		{"protocol", Request{Host: "db.test", Port: 22, Method: "GET", Path: "/"}, ProtocolDenied, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := mustTable(t, plan...)
			v := table.Decide(c.ask)
			if v.Reason != c.reason {
				t.Fatalf("reason %s", v.Reason)
			}
			got := table.Remedy(c.ask)
			if c.lines != "" && got != c.lines {
				t.Errorf("remedy\n%swant\n%s", got, c.lines)
			}
			var doc struct {
				Egress struct {
					Routes []struct {
						Host           string
						Port           uint16
						Protocol       Protocol
						Methods, Paths []string
					}
				}
			}
			if err := yaml.UnmarshalWithOptions([]byte(got), &doc, yaml.Strict()); err != nil || len(doc.Egress.Routes) != 1 {
				t.Fatalf("%v in\n%s", err, got)
			}
			y := doc.Egress.Routes[0]
			added := Route{Host: y.Host, Port: y.Port, Protocol: y.Protocol, Methods: y.Methods, Paths: y.Paths}
			changed := []Route{added}
			for _, r := range plan {
				if hp, _ := keyOf(r); hp != (hostPort{added.Host, added.port()}) {
					changed = append(changed, r)
				}
			}
			if v := mustTable(t, changed...).Decide(c.ask); v.Decision != Intercept {
				t.Errorf("still %s %s with\n%s", v.Decision, v.Reason, got)
			}
		})
	}
}

func TestNoRemedy(t *testing.T) {
	table := mustTable(t, Route{Host: "api.test", Paths: []string{"/a"}})
	for _, q := range []Request{
		{Host: "1.2.3.4", Port: 443, Method: "GET", Path: "/"},
		{Host: "a.test\r\n- host: evil", Port: 443, Method: "GET", Path: "/"},
		{Host: "api.test", Port: 443, Method: "TRACE", Path: "/a"},
		{Host: "api.test", Port: 443, Method: "X\nY", Path: "/a"},
		{Host: "api.test", Port: 443, Method: "GET", Path: "/a/../b"},
		{Host: "api.test", Port: 443, Method: "GET", Path: "/a"},
	} {
		if got := table.Remedy(q); got != "" {
			t.Errorf("%+v: remedy %q", q, got)
		}
	}
}
