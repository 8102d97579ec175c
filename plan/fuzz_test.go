package plan

import (
	"os"
	"path/filepath"
	"testing"

	"gatewayd/gateway/routes"
)

// FuzzParseManifest: parsing never panics; on error there is no manifest, and
// without one the plan can be made, opens only hosts that the manifest names,
// and has a table.
func FuzzParseManifest(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "../examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest("fuzz.bottle.yaml", data)
		if err != nil {
			if m != nil {
				t.Fatalf("a manifest beside the error %v", err)
			}
			if _, err := Provision(m, fullHost()); err == nil {
				t.Fatal("a plan without a manifest")
			}
			return
		}
		// A variable that is taken, or a provider that passes a host through,
		// may still be refused.
		p, err := Provision(m, fullHost())
		if err != nil {
			if p != nil {
				t.Fatalf("a plan beside the error %v", err)
			}
			return
		}
		named := map[string]bool{}
		for _, r := range m.Egress.Routes {
			named[r.Host] = true
		}
		for _, r := range p.Routes {
			if !named[r.Host] && r.Origin.Provider == "" {
				t.Fatalf("route %s from nowhere", r.Rule())
			}
		}
		if _, err := routes.NewTable(p.Routes); err != nil {
			t.Fatal(err)
		}
		if p.Digest() == "" {
			t.Fatal("no digest")
		}
	})
}
