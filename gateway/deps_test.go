package gateway

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// module is the module's path, which all imports of its own packages begin with.
const module = "gatewayd"

// A direction says which packages of this module a package may import, and why no others. A pattern that ends in /*
// covers every package below. The first direction whose pattern matches a package counts.
type direction struct {
	pkg   string
	may   []string
	tests []string // in addition, in _test.go files
	why   string
}

// testWorld is what a test of any package may use to have a network to work in.
var testWorld = []string{"lab", "lab/privileged"}

// helper is what a test may use where nothing but the helper for skips is needed.
var helper = []string{"lab/privileged"}

var directions = []direction{
	{"gateway/routes", nil, nil,
		"the vocabulary of decisions is pure: it depends on nothing, so that everything may depend on it"},
	{"gateway/redirect", []string{"gateway/redirect/*"}, append([]string{"gateway/tls"}, testWorld...),
		"the only package that touches the kernel's tables knows links and packets, not plans; its judge of hellos is tested against the other"},
	{"gateway/redirect/*", []string{"gateway/redirect", "gateway/redirect/*"}, testWorld,
		"as gateway/redirect"},
	{"gateway/http1", nil, nil,
		"the HTTP engine can be replaced: it knows no route, secret or scanner"},
	{"gateway/http2", nil, nil,
		"as gateway/http1"},
	{"gateway/needle", nil, nil,
		"the search for many exact strings at once is pure, and knows nothing of what they are"},
	{"gateway/coding", nil, nil,
		"undoing a content coding is pure: requests are scanned by it and responses masked"},
	{"gateway/formats", nil, []string{"gateway/pipelock"},
		"the search for tokens by their form is pure, and knows nothing of hosts and requests"},
	{"gateway/inject", []string{"gateway/routes", "gateway/needle"}, testWorld,
		"masking looks for the injected value; of scanning, TLS and names it knows nothing"},
	{"gateway/pipelock", []string{"gateway/routes", "gateway/needle", "gateway/formats", "gateway/coding"}, testWorld,
		"scanning looks for known tokens; of injecting, TLS and names it knows nothing"},
	{"gateway/*", []string{"gateway/routes"}, testWorld,
		"the leaves know the vocabulary and nothing of each other: each can be read, tested and replaced alone"},
	{"gateway", []string{"gateway/coding", "gateway/formats", "gateway/routes", "gateway/redirect", "gateway/tls", "gateway/dns", "gateway/inject", "gateway/pipelock", "gateway/http1", "gateway/http2"}, testWorld,
		"the gateway joins the leaves; what a route is for, and which agent asked for it, is none of its business"},
	{"bpf", nil, testWorld,
		"C, and tests of C"},
	{"plan/provider", []string{"gateway/routes"}, helper,
		"what all providers share is the form of what they emit"},
	{"plan/provider/*", []string{"plan/provider", "gateway/routes"}, helper,
		"a provider emits routes, environment and files; it runs nothing and knows no other provider"},
	{"plan", []string{"plan/provider", "plan/provider/*", "gateway/routes"}, helper,
		"a plan is data: it can be made, shown and compared where no gateway runs"},
	{"vmimage", []string{"plan", "gateway/routes"}, []string{"lab/privileged", "plan/provider"},
		"guest files follow from the plan alone"},
	{"vmimage/control", nil, nil,
		"what host and guest say to each other is data"},
	{"vmimage/*", []string{"vmimage", "vmimage/*", "plan"}, []string{"lab/privileged", "plan/provider"},
		"a VM is booted from guest files; what guards its link is none of its business"},
	{"lab/vm", []string{"lab", "lab/privileged", "vmimage", "vmimage/*"}, nil,
		"a bottle of the test world that is a VM; the gateway itself is not shared with it"},
	{"lab/kernels", []string{"lab/privileged", "lab/variant", "vmimage/initramfs", "vmimage/qemu"}, helper,
		"it runs the tests of other packages on several kernels, and knows of them what they print"},
	{"lab/variant", nil, nil,
		"it knows of gateway/redirect what its source says, and runs Go"},
	{"lab/privileged", nil, nil,
		"the one helper for skips is used by every test"},
	{"lab/demo", []string{"lab", "lab/privileged", "lab/vm", "vmimage/initramfs"}, nil,
		"the demo's internet must not share code with what it puts to the test"},
	{"lab", []string{"lab/privileged"}, []string{"vmimage/pod"},
		"as lab/demo"},
	{"cmd/gatewayd", []string{"cmd/gatewayd/internal/*", "gateway", "gateway/*", "plan", "plan/provider", "plan/provider/*", "vmimage", "vmimage/*", "lab", "lab/demo"}, testWorld,
		"the command wires everything"},
	{"cmd/gatewayd/*", []string{"cmd/gatewayd/internal/*", "gateway", "gateway/*", "plan", "plan/provider", "plan/provider/*", "vmimage"}, testWorld,
		"as cmd/gatewayd, but the demo's world stays with the command that shows it"},
	{"bench", []string{"lab", "lab/*", "gateway", "gateway/tls", "vmimage/initramfs", "vmimage/qemu"}, testWorld,
		"the bench measures the built program beside its peers, as a user would; of the code it knows the form of records, and how a ClientHello is read"},
	{"bench/scanner", nil, []string{"gateway/formats", "gateway/pipelock"},
		"a module of its own, so that the peers it measures against are nothing that the program depends on"},
	{"e2e", []string{"lab", "lab/*"}, append([]string{"vmimage/initramfs", "vmimage/qemu"}, testWorld...),
		"end-to-end tests run the built program: what they may know of it is what an operator knows"},
}

// A sole use says which packages alone may import a library, and why.
type soleUse struct {
	library  string // import path, or the beginning of one
	by       []string
	testsMay bool // tests of any package may use it too
	why      string
}

var soleUses = []soleUse{
	{"github.com/cilium/ebpf", []string{"gateway/redirect", "gateway/redirect/*", "bpf", "lab", "e2e"}, false,
		"maps and programs have one owner"},
	{"github.com/google/nftables", []string{"gateway/redirect", "gateway/redirect/*", "lab", "lab/*", "e2e"}, false,
		"the second layer has one owner"},
	{"github.com/vishvananda/netlink", []string{"gateway/redirect", "gateway/redirect/*", "vmimage/guest", "vmimage/pod", "lab", "lab/*", "e2e", "bench"}, false,
		"links, rules and addresses have one owner; a VM's own belong to its init, its tap in a pod to what boots it"},
	{"github.com/prometheus/client_golang", []string{"gateway", "cmd/gatewayd", "cmd/gatewayd/*"}, false,
		"leaves count, the gateway exports"},
	{"github.com/zricethezav/gitleaks", []string{"gateway/formats", "bench/scanner"}, false,
		"of it only the default rules are used, and they are read in one place"},
	{"github.com/google/go-containerregistry", []string{"vmimage/oci"}, true,
		"images are read and made in one place"},
	{"github.com/spf13/cobra", []string{"cmd/gatewayd", "cmd/gatewayd/*"}, false,
		"only a command has arguments"},
	{"math/rand", []string{"lab", "lab/*", "e2e"}, true,
		"ids, ports and delays here must not be guessed by a guest: crypto/rand"},
}

// providerNames are the words that no file of the datapath may hold. They are put together here since this is one of
// those files.
var providerNames = regexp.MustCompile(`(?i)` + strings.Join([]string{"co" + "dex", "cla" + "ude", "open" + "ai", "anthro" + "pic", "chat" + "gpt"}, "|"))

func TestImportDirections(t *testing.T) {
	walkSource(t, func(name string, src []byte) {
		if path.Ext(name) != ".go" {
			return
		}
		for _, problem := range importProblems(name, src) {
			t.Error(problem)
		}
	})
}

// TestImportRulesBite makes sure that each kind of rule refuses what it is there for.
func TestImportRulesBite(t *testing.T) {
	for _, c := range []struct {
		name, imports string
		bad           bool
	}{
		{"gateway/flow.go", "gatewayd/plan", true},
		{"gateway/flow.go", "gatewayd/gateway/tls", false},
		{"gateway/tls/ca.go", "gatewayd/gateway/dns", true},
		{"gateway/tls/ca.go", "gatewayd/gateway/routes", false},
		{"gateway/routes/table.go", "gatewayd/gateway/tls", true},
		{"gateway/http1/server.go", "gatewayd/gateway/routes", true},
		{"plan/manifest.go", "gatewayd/gateway", true},
		{"plan/provider/some/routes.go", "gatewayd/plan", true},
		{"lab/world.go", "gatewayd/gateway/tls", true},
		{"gateway/flow.go", "gatewayd/lab", true},
		{"gateway/flow_test.go", "gatewayd/lab/privileged", false},
		{"gateway/flow.go", "github.com/vishvananda/netlink", true},
		{"gateway/redirect/link.go", "github.com/vishvananda/netlink", false},
		{"gateway/dns/resolver.go", "math/rand/v2", true},
		{"unheard/of.go", "fmt", true},
	} {
		src := "package x\n\nimport _ " + strconv.Quote(c.imports) + "\n"
		if got := len(importProblems(c.name, []byte(src))) > 0; got != c.bad {
			t.Errorf("%s imports %s: refused = %v, want %v", c.name, c.imports, got, c.bad)
		}
	}
}

func TestNoProviderNameInTheDatapath(t *testing.T) {
	seen := 0
	walkSource(t, func(name string, src []byte) {
		if !strings.HasPrefix(name, "gateway/") && !strings.HasPrefix(name, "bpf/") {
			return
		}
		seen++
		if m := providerNames.FindString(name); m != "" {
			t.Errorf("%s: the file's name holds %q: what the datapath does follows from routes alone", name, m)
		}
		for i, line := range strings.Split(string(src), "\n") {
			if m := providerNames.FindString(line); m != "" {
				t.Errorf("%s:%d: holds %q: what the datapath does follows from routes alone", name, i+1, m)
			}
		}
	})
	if seen < 20 {
		t.Fatalf("looked at %d files only: the walk is broken", seen)
	}
	if !providerNames.MatchString("x-" + strings.ToUpper("open"+"ai") + "-y") {
		t.Error("the pattern does not find a name in upper case")
	}
}

// importProblems returns what is wrong with the imports of the file.
func importProblems(name string, src []byte) []string {
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
	if err != nil {
		return []string{name + ": " + err.Error()}
	}
	pkg := path.Dir(name)
	d, ok := directionOf(pkg)
	if !ok {
		return []string{name + ": package " + pkg + " has no direction: say in deps_test.go what it may import, and why"}
	}
	may := d.may
	if strings.HasSuffix(name, "_test.go") {
		may = append(append([]string{pkg}, d.may...), d.tests...)
	}
	var out []string
	for _, i := range f.Imports {
		imported, _ := strconv.Unquote(i.Path.Value) // the parser has checked it
		if own, ok := strings.CutPrefix(imported, module+"/"); ok && !matchesAny(may, own) {
			out = append(out, name+": imports "+own+", but "+d.why)
		}
		for _, s := range soleUses {
			if s.testsMay && strings.HasSuffix(name, "_test.go") {
				continue
			}
			if (imported == s.library || strings.HasPrefix(imported, s.library+"/")) && !matchesAny(s.by, pkg) {
				out = append(out, name+": imports "+imported+", but "+s.why)
			}
		}
		if imported == "C" {
			out = append(out, name+": uses cgo, but the program is built without a C compiler")
		}
	}
	return out
}

// directionOf returns the direction for a package.
func directionOf(pkg string) (direction, bool) {
	for _, d := range directions {
		if matches(d.pkg, pkg) {
			return d, true
		}
	}
	return direction{}, false
}

// matches tells whether pkg is what the pattern names: the package itself, or with /* any below it.
func matches(pattern, pkg string) bool {
	if below, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(pkg, below+"/")
	}
	return pkg == pattern
}

// matchesAny tells whether one of the patterns matches.
func matchesAny(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if matches(p, pkg) {
			return true
		}
	}
	return false
}

// walkSource calls visit with every text file of the module, by its slash-separated path from the module's root.
func walkSource(t *testing.T, visit func(name string, src []byte)) {
	t.Helper()
	root := ".."
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("find the module's root: %v", err)
	}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if base := e.Name(); rel != "." && (strings.HasPrefix(base, ".") || base == "bin" || base == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() || path.Ext(p) == ".o" {
			return nil
		}
		src, err := os.ReadFile(p)
		if os.IsNotExist(err) {
			return nil // somebody's temporary file
		}
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(rel), src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
