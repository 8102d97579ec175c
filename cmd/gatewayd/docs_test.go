package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/daemon"
	"gatewayd/gateway"
	"gatewayd/gateway/dns"
	"gatewayd/gateway/http1"
	"gatewayd/gateway/redirect"
	"gatewayd/gateway/routes"
	"gatewayd/plan"
)

// described returns the first column of the table below a heading of docs/OPERATIONS.md, without its backquotes.
func described(t *testing.T, heading string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("OPERATIONS.md has no heading %q", heading)
	}
	var out []string
	started := false
	for line := range strings.Lines(below) {
		m := regexp.MustCompile("^\\| `([^`]+)` \\|").FindStringSubmatch(line)
		switch {
		case m != nil:
			out = append(out, m[1])
			started = true
		case strings.HasPrefix(line, "#"), started && strings.TrimSpace(line) == "":
			return out
		}
	}
	return out
}

// compare tells what is documented and not there, and what is there and not documented.
func compare(t *testing.T, what string, documented, real []string) {
	t.Helper()
	slices.Sort(documented)
	slices.Sort(real)
	real = slices.Compact(real)
	for _, d := range documented {
		if !slices.Contains(real, d) {
			t.Errorf("OPERATIONS.md describes the %s %s, which is not there", what, d)
		}
	}
	for _, r := range real {
		if !slices.Contains(documented, r) {
			t.Errorf("OPERATIONS.md does not describe the %s %s", what, r)
		}
	}
	if len(real) < 5 {
		t.Errorf("only %d of the kind %s were found", len(real), what)
	}
}

func TestEveryRecordFieldIsDescribed(t *testing.T) {
	var fields []string
	ty := reflect.TypeFor[gateway.Record]()
	for i := range ty.NumField() {
		name, _, _ := strings.Cut(ty.Field(i).Tag.Get("json"), ",")
		fields = append(fields, name)
	}
	compare(t, "record field", described(t, "## Records"), fields)
}

func TestEveryConfigurationKeyIsDescribed(t *testing.T) {
	compare(t, "key", described(t, "## Configuration"), config.Keys())
}

func TestEveryDropReasonIsDescribed(t *testing.T) {
	var reasons []string
	for r := range redirect.Reasons() {
		reasons = append(reasons, r.String())
	}
	compare(t, "drop reason", described(t, "## Frames dropped in the kernel"), reasons)
}

// Every constant of type Reason under gateway/ is described, those of broken HTTP with their prefix, and the kinds of
// events of names.
func TestEveryReasonIsDescribed(t *testing.T) {
	var reasons []string
	for _, dir := range []string{"../../gateway", "../../gateway/routes"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				reasons = append(reasons, constants(t, f, "Reason")...)
			}
		}
	}
	for _, r := range constants(t, "../../gateway/http1/errors.go", "Reason") {
		// Responses alone can have these, and a response that breaks HTTP is upstream_exchange in a record.
		if r != string(http1.ReasonStatusLine) && r != string(http1.ReasonInterim) {
			reasons = append(reasons, "http_"+r)
		}
	}
	for k := dns.EventKind(1); k.String() != "unknown"; k++ {
		if k != dns.Leak { // is a leak like any other
			reasons = append(reasons, "dns_"+k.String())
		}
	}
	compare(t, "reason", described(t, "### Reasons"), reasons)
}

// What explain says of a reason is what OPERATIONS.md says.
func TestReasonsAreInWords(t *testing.T) {
	text, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range described(t, "### Reasons") {
		if line := "| `" + r + "` | " + reasonWords(routes.Reason(r)) + " |"; !bytes.Contains(text, []byte(line)) {
			t.Errorf("OPERATIONS.md does not have %s", line)
		}
	}
}

// constants returns the values of the string constants in file whose type is named typ.
func constants(t *testing.T, file, typ string) (out []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		name := ""
		switch x := v.Type.(type) {
		case *ast.Ident:
			name = x.Name
		case *ast.SelectorExpr:
			name = x.Sel.Name
		}
		if name != typ {
			return true
		}
		for _, e := range v.Values {
			if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					out = append(out, s)
				}
			}
		}
		return true
	})
	return out
}

func TestEveryMetricIsDescribed(t *testing.T) {
	m := gateway.NewMetrics()
	gateway.New(gateway.Options{Metrics: m})
	daemon.RegisterMetrics(m.Registry(), "test")
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		m.Registry().Describe(descs)
	}()
	var names []string
	for d := range descs {
		if n := regexp.MustCompile(`fqName: "(gatewayd_\w+)"`).FindStringSubmatch(d.String()); n != nil {
			names = append(names, n[1])
		}
	}
	compare(t, "metric", described(t, "## Metrics"), names)
}

// The committed generated files are what `make generate` makes.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	for path, want := range map[string][]byte{
		"../../docs/gatewayd.8":           manual(newRoot(environment{})),
		"../../docs/manifest.schema.json": plan.Schema(),
	} {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not current (%v): run `make generate`", path, err)
		}
	}
}

// Every command of the README and of the manual exists, and every command is in both.
func TestCommandsAreDescribed(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(readme), "\n## Commands\n\n")
	list, _, _ = strings.Cut(list, ";")
	var listed []string
	for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(list, -1) {
		listed = append(listed, m[1])
	}
	var real []string
	for _, c := range newRoot(environment{}).Commands() {
		if c.IsAvailableCommand() {
			real = append(real, c.Name())
		}
	}
	slices.Sort(listed)
	if slices.Sort(real); !slices.Equal(listed, real) {
		t.Errorf("README describes %v, there are %v", listed, real)
	}
}
