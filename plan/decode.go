package plan

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// maxString bounds one string value in bytes.
const maxString = 1024

// decoder copies a YAML tree into the manifest's types, strictly: each key
// must be a field's json name, each value of the field's kind. It notes the
// line of every value, so that later checks can name it.
type decoder struct {
	*refusals
	lines map[string]int
}

// nodeDecoder is a type that reads its own node, for values of several shapes.
type nodeDecoder interface {
	decodeNode(d *decoder, path string, n ast.Node)
}

// has tells whether the manifest holds a value at path.
func (d *decoder) has(path string) bool { _, ok := d.lines[path]; return ok }

// refuse adds a refusal of the value at path, unless it was refused already: a
// value that could not be read is not also reported as missing.
func (d *decoder) refuse(path, problem, remedy string) {
	for _, e := range d.list {
		if e.Field == path {
			return
		}
	}
	d.add(d.line(path), path, problem, remedy)
}

// line returns the line of the value at path, or of the nearest around it.
func (d *decoder) line(path string) int {
	for p := path; p != ""; {
		if l, ok := d.lines[p]; ok {
			return l
		}
		cut := strings.LastIndexAny(p, ".[")
		if cut < 0 {
			break
		}
		p = p[:cut]
	}
	return 1
}

// decode reads n into v, which is settable.
func (d *decoder) decode(path string, n ast.Node, v reflect.Value) {
	if c, ok := v.Addr().Interface().(nodeDecoder); ok {
		c.decodeNode(d, path, n)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(path, n, v.Elem())
	case reflect.Struct:
		d.decodeStruct(path, n, v)
	case reflect.Slice:
		d.decodeSlice(path, n, v)
	case reflect.String:
		if s, ok := d.str(path, n); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
			return
		}
		d.refuse(path, "is "+kindOf(n)+", not true or false", "write true or false")
	case reflect.Int:
		d.decodeInt(path, n, v)
	default:
		d.refuse(path, "has no decoder", "report this as a defect")
	}
}

func (d *decoder) decodeInt(path string, n ast.Node, v reflect.Value) {
	if i, ok := n.(*ast.IntegerNode); ok {
		if x, err := strconv.ParseInt(i.GetToken().Value, 10, 32); err == nil {
			v.SetInt(x)
			return
		}
	}
	d.refuse(path, "is "+kindOf(n)+" ("+clip(n.GetToken().Value)+"), not a whole decimal number in range", "write a number such as 443, without quotes")
}

// str returns a scalar string, refusing other kinds, control characters and
// values too long.
func (d *decoder) str(path string, n ast.Node) (string, bool) {
	s, ok := "", false
	switch n := n.(type) {
	case *ast.StringNode:
		s, ok = n.Value, true
	case *ast.LiteralNode:
		s, ok = n.Value.Value, true
	}
	switch {
	case !ok && kindOf(n) == "empty":
		d.refuse(path, "is empty", "write a value or remove the key")
	case !ok:
		d.refuse(path, "is "+kindOf(n)+", not a string", "put the value in quotes if that is what is meant")
	case strings.IndexFunc(s, func(c rune) bool { return c == '\t' || isControl(c) }) >= 0:
		d.refuse(path, "holds a line break or another control character", "write the value on one line, without \\r, \\n or \\t")
	case len(s) > maxString:
		d.refuse(path, fmt.Sprintf("has %d bytes, more than %d", len(s), maxString), "shorten it")
	default:
		return s, true
	}
	return "", false
}

func (d *decoder) decodeSlice(path string, n ast.Node, v reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.refuse(path, "is "+kindOf(n)+", not a list", "write a list: one `- value` a line, or [value, value]")
		return
	}
	for i, e := range seq.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = lineOf(e)
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(at, e, item)
		v.Set(reflect.Append(v, item))
	}
}

func (d *decoder) decodeStruct(path string, n ast.Node, v reflect.Value) {
	m := asMapping(n)
	if m == nil {
		d.refuse(path, "is "+kindOf(n)+", not a mapping", "write `key: value` lines below it, with the keys "+strings.Join(keysOf(v.Type()), ", "))
		return
	}
	for _, kv := range m.Values {
		key, ok := keyOf(kv.Key)
		at := join(path, key)
		if !ok {
			d.add(lineOf(kv.Key), path, "a key that is not a plain string ("+clip(kv.Key.String())+")", "write one of "+strings.Join(keysOf(v.Type()), ", "))
			continue
		}
		if first, dup := d.lines[at]; dup {
			d.add(lineOf(kv.Key), at, fmt.Sprintf("the key is there twice, first in line %d", first), "keep one of the two")
			continue
		}
		field, found := fieldOf(v, key)
		if !found {
			d.add(lineOf(kv.Key), at, "unknown key", suggest(key, keysOf(v.Type())))
			continue
		}
		d.lines[at] = lineOf(kv.Key)
		d.decodeField(at, kv.Value, field)
	}
}

// decodeField decodes one field. An empty value is a refusal, except where it
// can only mean less access: a key whose entries were commented out must not
// silently become the wider default.
func (d *decoder) decodeField(at string, n ast.Node, field reflect.Value) {
	if _, null := n.(*ast.NullNode); null || n == nil {
		if at != "egress" && at != "egress.routes" {
			d.refuse(at, "is empty", "write a value or remove the key")
		}
		return
	}
	if seq, ok := n.(*ast.SequenceNode); ok && len(seq.Values) == 0 && at != "egress.routes" {
		d.refuse(at, "is an empty list", "list what is allowed, or remove the key")
		return
	}
	d.decode(at, n, field)
}

// keyOf returns a mapping's key if it is a plain string.
func keyOf(k ast.MapKeyNode) (string, bool) {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value, len(s.Value) <= maxString && strings.IndexFunc(s.Value, isControl) < 0
	}
	return "", false
}

// fieldOf returns the field of struct v whose json name is key.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if jsonName(v.Type().Field(i)) == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// keysOf returns the json names of struct type t, in order.
func keysOf(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if name := jsonName(t.Field(i)); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// jsonName returns the field's name in the manifest, or "" if it has none.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" || !f.IsExported() {
		return ""
	}
	return name
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// suggest says which of the known keys was probably meant.
func suggest(key string, known []string) string {
	best, least := "", 4
	for _, k := range known {
		if n := distance(strings.ToLower(key), k); n < least && n < len(k) {
			best, least = k, n
		}
	}
	all := "known here: " + strings.Join(known, ", ")
	if best == "" {
		return all
	}
	return "did you mean " + best + "? " + all
}

// distance is Levenshtein's edit distance in bytes, at most 64 of each.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, above+1, row[j]+1)
			diagonal = above
		}
	}
	return row[len(b)]
}
