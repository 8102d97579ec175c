package gateway

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/printer"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// limitFiles hold the constants that bound what a guest, or a server, can take.
var limitFiles = []struct{ title, path string }{
	{"HTTP/2 towards the guest", "http2/limits.go"},
	{"Bodies under way", "exchange_engine.go"},
	{"Connections of one bottle to servers", "upstream.go"},
	{"One bottle", "budget.go"}, // made of those before
	{"Requests over HTTP/1.1, and bodies", "http1/limits.go"},
	{"Responses over HTTP/1.1", "http1/client.go"},
	{"Waits", "deadlines.go"},
}

var (
	limitBytes  = regexp.MustCompile(`(Bytes|Window|Table|ChunkLine|Bodies|Buffer|Message)$`)
	identifiers = regexp.MustCompile(`\b((time|http2)\.)?[A-Za-z]\w*`)
	units       = map[string]time.Duration{"time.Second": time.Second, "time.Minute": time.Minute, "time.Hour": time.Hour, "time.Millisecond": time.Millisecond}
)

// limitTable makes the manual's table of all limits: name, figure and sentence of each constant.
func limitTable(t *testing.T) string {
	var out strings.Builder
	values := map[string]string{}
	fset := token.NewFileSet()
	for _, f := range limitFiles {
		file, err := parser.ParseFile(fset, f.path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "\n%s:\n\n| limit | figure | what it is |\n|---|---|---|\n", f.title)
		for _, d := range file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.CONST {
				continue
			}
			for _, s := range decl.Specs {
				spec := s.(*ast.ValueSpec)
				limitRow(t, fset, &out, values, decl, spec)
				if name := spec.Names[0].Name; file.Name.Name == "http2" { // as the others know it
					values["http2."+name] = values[name]
				}
			}
		}
	}
	return out.String()
}

// limitRow adds the row of one constant.
func limitRow(t *testing.T, fset *token.FileSet, out *strings.Builder, values map[string]string, decl *ast.GenDecl, spec *ast.ValueSpec) {
	name := spec.Names[0].Name
	text := spec.Comment.Text()
	if text == "" {
		text = spec.Doc.Text()
	}
	if text == "" && len(decl.Specs) == 1 {
		text = decl.Doc.Text()
	}
	text = strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ".")
	text = strings.TrimPrefix(strings.TrimPrefix(text, name+" is "), name+" ")
	if text == "" {
		t.Errorf("%s has no sentence", name)
	}
	var expr bytes.Buffer
	if err := printer.Fprint(&expr, fset, spec.Values[0]); err != nil {
		t.Fatal(err)
	}
	wait := strings.Contains(expr.String(), "time.")
	plain := identifiers.ReplaceAllStringFunc(expr.String(), func(id string) string {
		if u, ok := units[id]; ok {
			return fmt.Sprint(int64(u))
		}
		return values[id]
	})
	v, err := types.Eval(fset, nil, token.NoPos, plain)
	if err != nil {
		t.Fatalf("%s = %s: %v", name, expr.String(), err)
	}
	n, exact := constant.Int64Val(v.Value)
	if !exact {
		t.Fatalf("%s = %s", name, v.Value)
	}
	values[name] = fmt.Sprint(n)
	fmt.Fprintf(out, "| `%s` | %s | %s |\n", name, limitFigure(n, wait, limitBytes.MatchString(name)), text)
}

// limitFigure writes a figure as people do.
func limitFigure(n int64, wait, size bool) string {
	scale := func(steps ...any) string {
		for i := 0; i < len(steps); i += 2 {
			if by := int64(steps[i].(int)); n >= by && n%by == 0 {
				return fmt.Sprintf("%d %s", n/by, steps[i+1])
			}
		}
		return fmt.Sprint(n)
	}
	switch {
	case wait && n > int64(time.Hour):
		return strings.TrimSuffix(time.Duration(n).String(), "0s")
	case wait:
		return scale(int(time.Minute), "min", int(time.Second), "s", int(time.Millisecond), "ms")
	case size:
		return scale(1<<20, "MiB", 1<<10, "KiB", 1, "B")
	}
	return fmt.Sprint(n)
}

// TestLimitsAreInTheManual holds docs/OPERATIONS.md against the constants: every limit is there, with its figure and its sentence.
func TestLimitsAreInTheManual(t *testing.T) {
	manual, err := os.ReadFile("../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := limitTable(t); !strings.Contains(string(manual), want) {
		t.Errorf("docs/OPERATIONS.md should have:\n%s", want)
	}
}
