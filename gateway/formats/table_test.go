package formats_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"gatewayd/gateway/formats"
	"gatewayd/gateway/pipelock"
)

var write = flag.Bool("write", false, "write the table of what is found to docs/SCANNER.md")

// A writing is a way in which a text can be in a body.
type writing struct {
	name   string
	header http.Header
	body   func(text string) string
}

func writings() []writing {
	asJSON := http.Header{"Content-Type": {"application/json"}}
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	each := func(text, format string) string {
		var b strings.Builder
		for i := range len(text) {
			fmt.Fprintf(&b, format, text[i])
		}
		return b.String()
	}
	// one escapes the byte in the middle whether it needs that or not, and mixed gives every third letter capitals.
	one := func(text, format string, escape func(string) string) string {
		mid := len(text) / 2
		return escape(text[:mid]) + each(text[mid:mid+1], format) + escape(text[mid+1:])
	}
	inJSON := func(text string) string {
		quoted, _ := json.Marshal(text) // a string can always be encoded
		return string(quoted[1 : len(quoted)-1])
	}
	mixed := func(text string) string {
		b := []byte(text)
		for i := 0; i < len(b); i += 3 {
			b[i] = bytes.ToUpper(b[i : i+1])[0]
		}
		return string(b)
	}
	quoted := func(encode func([]byte) string, before string) func(string) string {
		return func(text string) string { return `{"content":"` + encode([]byte(before+text)) + `"}` }
	}
	return []writing{
		{"as it is", nil, func(text string) string { return text }},
		{"JSON string", asJSON, func(text string) string { return `{"content":"` + inJSON(text) + `"}` }},
		{`JSON \u`, asJSON, func(text string) string { return `{"content":"` + each(text, `\u%04x`) + `"}` }},
		{`JSON string, one \u`, asJSON, func(text string) string { return `{"content":"` + one(text, `\u%04x`, inJSON) + `"}` }},
		{"form, one percent", form, func(text string) string { return "a=b&content=" + one(text, "%%%02x", url.QueryEscape) + "&c=d" }},
		{"form, percent, mixed", form, func(text string) string { return "a=b&content=" + mixed(each(text, "%%%02x")) + "&c=d" }},
		{"form, percent", form, func(text string) string { return "a=b&content=" + each(text, "%%%02X") + "&c=d" }},
		{"base64", asJSON, quoted(base64.StdEncoding.EncodeToString, "")},
		{"base64, 1 byte on", asJSON, quoted(base64.StdEncoding.EncodeToString, "\n")},
		{"base64, 2 bytes on", asJSON, quoted(base64.StdEncoding.EncodeToString, "\n\n")},
		{"base64, in lines", nil, func(text string) string {
			lines := base64.StdEncoding.EncodeToString([]byte("# some lines before\n" + text))
			var b strings.Builder
			for ; len(lines) > 76; lines = lines[76:] {
				b.WriteString(lines[:76] + "\n")
			}
			return b.String() + lines + "\n"
		}},
		{"base64url", asJSON, quoted(base64.RawURLEncoding.EncodeToString, "")},
		{"hex", asJSON, quoted(hex.EncodeToString, "")},
		{"hex, mixed", asJSON, quoted(func(b []byte) string { return mixed(hex.EncodeToString(b)) }, "")},
		{"HEX", asJSON, quoted(func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }, "")},
	}
}

// finds tells whether the scanner finds rule in a body that comes in two pieces.
func finds(t *testing.T, s *pipelock.Scanner, rule string, h http.Header, first, rest string) bool {
	t.Helper()
	r, err := s.RequestBody("host.example", h, io.MultiReader(strings.NewReader(first), strings.NewReader(rest)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, r)
	var leak *pipelock.LeakError
	if errors.As(err, &leak) && leak.Finding.Rule == rule {
		return true
	}
	if err != nil && leak == nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(r.Warnings(), func(f pipelock.Finding) bool { return f.Rule == rule })
}

// row is one line of the table.
type row struct {
	writing       string
	found, of     int
	splits, cutOf int
	missed        []string
}

// tabulate looks for each secret in each writing, whole, and the first of each rule cut at every offset.
func tabulate(t *testing.T, secrets []formats.Specimen, scanner func(rule string) *pipelock.Scanner) []row {
	var rows []row
	for _, w := range writings() {
		r := row{writing: w.name}
		seen := map[string]bool{}
		for _, x := range secrets {
			s := scanner(x.Rule)
			body := w.body(x.Text)
			r.of++
			if finds(t, s, x.Rule, w.header, body, "") {
				r.found++
			} else if !slices.Contains(r.missed, x.Rule) {
				r.missed = append(r.missed, x.Rule)
			}
			if seen[x.Rule] {
				continue
			}
			seen[x.Rule] = true
			for cut := 1; cut < len(body); cut++ {
				r.cutOf++
				if finds(t, s, x.Rule, w.header, body[:cut], body[cut:]) {
					r.splits++
				}
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// markdown writes rows as a table in Markdown.
func markdown(rows []row, of string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s, written | found | cut in two, at every offset | missed |\n|---|---|---|---|\n", of)
	for _, r := range rows {
		missed := "–"
		if len(r.missed) > 0 {
			missed = "`" + strings.Join(r.missed, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %d of %d | %d of %d | %s |\n", r.writing, r.found, r.of, r.splits, r.cutOf, missed)
	}
	return b.String()
}

// secrets are values as operators have them: for each the rule is its name.
func secrets() []formats.Specimen {
	rnd := rand.New(rand.NewPCG(8, 15))
	of := func(alphabet string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return string(b)
	}
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	var all []formats.Specimen
	for _, kind := range []struct{ name, alphabet string }{
		{"letters and digits", alnum}, {"hexadecimal", "0123456789abcdef"}, {"base64", alnum + "+/"},
		{"what keyboards have", alnum + `!"#$%&'()*+,-./:;<=>?@[\]^_{|}~ `},
	} {
		for _, n := range []int{8, 12, 16, 20, 32, 40, 64, 200} {
			all = append(all, formats.Specimen{Rule: fmt.Sprintf("%s, %d bytes", kind.name, n), Text: of(kind.alphabet, n)})
		}
	}
	return all
}

// TestTable makes the tables of docs/SCANNER.md, holds what is found against what must be, and the page against both. With
// -write it writes the page.
func TestTable(t *testing.T) {
	set, err := formats.Default()
	if err != nil {
		t.Fatal(err)
	}
	examples, rules := formats.Specimens(t, 3)
	all := pipelock.New(nil).WithFormats(set, set.Policy(nil, false))
	// Each rule is looked for alone where another that also fits would block first.
	alone := map[string]*pipelock.Scanner{}
	for _, x := range examples {
		others := slices.DeleteFunc(set.IDs(), func(id string) bool { return id == x.Rule })
		alone[x.Rule] = all.WithFormats(set, set.Policy(others, false))
	}
	for _, x := range examples[:60] { // the table can fail
		off := all.WithFormats(set, set.Policy([]string{x.Rule}, false))
		if finds(t, off, x.Rule, nil, x.Text, "") {
			t.Errorf("%s is found although it is off", x.Rule)
		}
	}
	byForm := tabulate(t, examples, func(rule string) *pipelock.Scanner { return alone[rule] })

	known := secrets()
	exact := map[string]*pipelock.Scanner{}
	for _, x := range known {
		exact[x.Rule] = pipelock.New([]pipelock.Token{{Name: x.Rule, Value: x.Text}}).WithFormats(set, set.Policy(set.IDs(), false))
	}
	byValue := tabulate(t, known, func(name string) *pipelock.Scanner { return exact[name] })

	for _, r := range byForm {
		if 100*r.found < 99*r.of || 100*r.splits < 99*r.cutOf {
			t.Errorf("forms, %s: %d of %d, cut %d of %d; missed %q", r.writing, r.found, r.of, r.splits, r.cutOf, r.missed)
		}
	}
	for _, r := range byValue {
		if r.found != r.of || r.splits != r.cutOf {
			t.Errorf("values, %s: %d of %d, cut %d of %d; missed %q", r.writing, r.found, r.of, r.splits, r.cutOf, r.missed)
		}
	}
	page(t, fmt.Sprintf("%d rules, %d examples.\n\n%s\n%s", rules, len(examples), markdown(byForm, "Forms"), markdown(byValue, "Known values")))
}

// page holds the table against the one in docs/SCANNER.md, or writes it there.
func page(t *testing.T, table string) {
	t.Helper()
	const name, end = "../../docs/SCANNER.md", "<!-- end -->\n"
	begin := "<!-- made by go test ./gateway/formats -run " + t.Name() + " -write -->\n"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(text, []byte(begin))
	old, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", name)
	}
	if string(old) == table {
		return
	}
	if !*write {
		t.Errorf("%s has another table: make generate writes this one:\n%s", name, table)
		return
	}
	if err := os.WriteFile(name, slices.Concat(before, []byte(begin), []byte(table), []byte(end), after), 0o644); err != nil {
		t.Fatal(err)
	}
}
