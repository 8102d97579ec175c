package routes

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	provider := Origin{Provider: "x"}
	file := Origin{File: "dev.bottle.yaml", Line: 3}
	auth := bearer("Authorization")
	for _, c := range []struct {
		name                     string
		manifest, provided, want []Route
	}{
		{"nothing", nil, nil, []Route{}},
		{"no provider", []Route{{Host: "b.test"}, {Host: "a.test"}}, nil, []Route{{Host: "b.test"}, {Host: "a.test"}}},
		{
			"appended in order",
			[]Route{{Host: "m.test"}},
			[]Route{{Host: "p.test", Origin: provider}, {Host: "*.m.test"}},
			[]Route{{Host: "m.test"}, {Host: "p.test", Origin: provider}, {Host: "*.m.test"}},
		},
		{
			"fills what is unset",
			[]Route{{Host: "M.test", Origin: file}},
			[]Route{{Host: "m.test", Methods: []string{"GET"}, Paths: []string{"/a"}, Auth: auth, TLSPassthrough: true, Origin: provider}},
			[]Route{{Host: "m.test", Port: 443, Protocol: "", Methods: []string{"GET"}, Paths: []string{"/a"}, Auth: auth, TLSPassthrough: true, Origin: file}},
		},
		{
			"leaves what is set",
			[]Route{{Host: "m.test", Methods: []string{"POST"}, Paths: []string{"/b"}, TLSPassthrough: true, Auth: auth}},
			[]Route{{Host: "m.test", Methods: []string{"GET"}, Paths: []string{"/a"}, Answer: "x"}},
			[]Route{{Host: "m.test", Port: 443, Methods: []string{"POST"}, Paths: []string{"/b"}, TLSPassthrough: true, Auth: auth, Answer: "x"}},
		},
		{
			"an empty list is set",
			[]Route{{Host: "m.test", Methods: []string{}}},
			[]Route{{Host: "m.test", Methods: []string{"GET"}}},
			[]Route{{Host: "m.test", Port: 443, Methods: []string{}}},
		},
		{
			"private addresses are the operator's to give",
			[]Route{{Host: "m.test"}},
			[]Route{{Host: "m.test", AllowPrivate: true}},
			[]Route{{Host: "m.test", Port: 443}},
		},
		{
			"another port is another route",
			[]Route{{Host: "m.test", Port: 8443, Auth: auth}},
			[]Route{{Host: "m.test", Auth: auth}},
			[]Route{{Host: "m.test", Port: 8443, Auth: auth}, {Host: "m.test", Auth: auth}},
		},
		{
			"the default port is the same port",
			[]Route{{Host: "m.test", Port: 80}},
			[]Route{{Host: "m.test", Protocol: HTTP, Answer: "x"}},
			[]Route{{Host: "m.test", Port: 80, Protocol: HTTP, Answer: "x"}},
		},
		{
			"a protocol filled in does not move the port",
			[]Route{{Host: "m.test"}},
			[]Route{{Host: "m.test", Protocol: TCP, Port: 443}},
			[]Route{{Host: "m.test", Protocol: TCP, Port: 443}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := append([]Route(nil), c.manifest...)
			got, err := Merge(c.manifest, c.provided)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			if !reflect.DeepEqual(before, append([]Route(nil), c.manifest...)) {
				t.Error("the manifest's routes were changed")
			}
		})
	}
}

func TestMergeConflict(t *testing.T) {
	m := Route{Host: "api.test", Auth: bearer(""), Origin: Origin{File: "dev.bottle.yaml", Line: 12}}
	p := Route{Host: "api.test", Auth: bearer(""), Origin: Origin{Provider: "x"}}
	_, err := Merge([]Route{m}, []Route{p})
	var ce *ConflictError
	if !errors.As(err, &ce) || ce.Manifest != m.Origin || ce.Provider != p.Origin || ce.Rule != "api.test:443" {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{"dev.bottle.yaml:12", "provider x", "api.test:443"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
}

func TestMergeRefusesNames(t *testing.T) {
	for _, rs := range [][2][]Route{{{{Host: "1.2.3.4"}}, nil}, {nil, {{Host: ""}}}} {
		_, err := Merge(rs[0], rs[1])
		var re *RouteError
		var ne *NameError
		if !errors.As(err, &re) || !errors.As(err, &ne) {
			t.Errorf("error %v", err)
		}
	}
}

func TestHasProviderAuth(t *testing.T) {
	role := bearer("")
	role.Role = RoleProvider
	if HasProviderAuth(nil) || HasProviderAuth([]Route{{Host: "a.test"}, {Host: "b.test", Auth: bearer("")}}) {
		t.Error("true without the role")
	}
	if !HasProviderAuth([]Route{{Host: "a.test"}, {Host: "b.test", Auth: role}}) {
		t.Error("false with the role")
	}
}
