package routes

import (
	"errors"
	"reflect"
	"testing"
)

func TestPipelockOnRoutes(t *testing.T) {
	for name, c := range map[string]struct {
		route Route
		field string // at fault; "" for none
	}{
		"warn":          {Route{Host: "a.test", Pipelock: Pipelock{Action: WarnAction}}, ""},
		"disable":       {Route{Host: "a.test", Pipelock: Pipelock{Disable: []string{"x"}}}, ""},
		"unknown":       {Route{Host: "a.test", Pipelock: Pipelock{Action: "drop"}}, "pipelock.action"},
		"passed":        {Route{Host: "a.test", TLSPassthrough: true, Pipelock: Pipelock{Action: WarnAction}}, "pipelock"},
		"names, passed": {Route{Host: "*.a.test", TLSPassthrough: true, Pipelock: Pipelock{Disable: []string{"x"}}}, ""},
		"names, tcp":    {Route{Host: "*.a.test", Protocol: TCP, Port: 22, Pipelock: Pipelock{Disable: []string{"x"}}}, ""},
		"names, warn":   {Route{Host: "*.a.test", TLSPassthrough: true, Pipelock: Pipelock{Action: WarnAction, Disable: []string{"x"}}}, "pipelock"},
		"not scanned":   {Route{Host: "a.test", Protocol: TCP, Port: 22, Pipelock: Pipelock{Disable: []string{"x"}}}, "pipelock"},
		"said nothing":  {Route{Host: "a.test", TLSPassthrough: true}, ""},
	} {
		_, err := c.route.Canonical()
		var re *RouteError
		if errors.As(err, &re) != (c.field != "") || re != nil && re.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
	m, p := Pipelock{Disable: []string{"m"}}, Pipelock{Action: WarnAction}
	for name, c := range map[string]struct{ manifest, want Pipelock }{"manifest's": {m, m}, "provider's": {Pipelock{}, p}} {
		got, err := Merge([]Route{{Host: "a.test", Pipelock: c.manifest}}, []Route{{Host: "a.test", Pipelock: p}})
		if err != nil || !reflect.DeepEqual(got[0].Pipelock, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
