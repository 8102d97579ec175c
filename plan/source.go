package plan

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxManifestBytes bounds one manifest.
	MaxManifestBytes = 1 << 20
	// maxLine bounds one line in bytes, which also bounds how deep a line of
	// "- - - -" can nest, and so the YAML parser's recursion.
	maxLine = 4096
	// maxNesting bounds brackets within brackets.
	maxNesting = 16
	// maxIndent bounds a line's indentation in columns, and so how deep blocks
	// nest; maxTokens bounds the YAML tokens of a file, about 40 for a route.
	// The parser's time grows with the square of both.
	maxIndent = 80
	maxTokens = 50_000
)

// parseSource turns bytes into the one mapping that a manifest is, or adds
// refusals and returns nil. A file without content is an empty mapping's
// error as well: a truncated file must not become a plan.
func parseSource(data []byte, r *refusals) *ast.MappingNode {
	if !checkBytes(data, r) {
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if !checkTokens(tokens, r) {
		return nil
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		addSyntax(err, r)
		return nil
	}
	return rootMapping(f, r)
}

// checkBytes refuses what no token could report well.
func checkBytes(data []byte, r *refusals) bool {
	if len(data) > MaxManifestBytes {
		r.add(0, "", fmt.Sprintf("the file has %d bytes, more than %d", len(data), MaxManifestBytes), "split it into several bottles")
		return false
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		body := bytes.TrimLeft(line, " ")
		switch {
		case !utf8.Valid(line):
			r.add(i+1, "", "the line is not UTF-8", "save the file as UTF-8")
		case len(line) > maxLine:
			r.add(i+1, "", fmt.Sprintf("the line has %d bytes, more than %d", len(line), maxLine), "break the line")
		case len(body) > 0 && len(line)-len(body) > maxIndent:
			r.add(i+1, "", fmt.Sprintf("the line is indented by %d columns, more than %d", len(line)-len(body), maxIndent), "indent by two columns a level")
		case len(body) > 0 && body[0] == '\t':
			r.add(i+1, "", "a tab in the indentation", "indent with spaces")
		case bytes.IndexFunc(line, isControl) >= 0:
			r.add(i+1, "", "a control character in the line", "remove it")
		case bytes.HasPrefix(line, []byte("%")):
			r.add(i+1, "", "a YAML directive", "remove the line")
		}
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		// Half a line may well be valid, and mean another host or a wider path.
		r.add(bytes.Count(data, []byte("\n"))+1, "", "the last line does not end: the file may be cut off", "end it with a newline")
	}
	return len(r.list) == 0
}

// isControl tells control characters other than tab: none belongs in a manifest.
func isControl(c rune) bool {
	return c < 0x20 && c != '\t' || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029 || c == 0xfeff
}

// checkTokens refuses the YAML features by which a short file says much, and
// nesting that would make the parser recurse without bound.
func checkTokens(tokens token.Tokens, r *refusals) bool {
	if len(tokens) > maxTokens {
		r.add(0, "", fmt.Sprintf("the file has %d YAML tokens, more than %d", len(tokens), maxTokens), "split it into several bottles")
		return false
	}
	depth, documents := 0, 0
	for _, t := range tokens {
		line := t.Position.Line
		switch t.Type {
		case token.AnchorType, token.AliasType:
			r.add(line, "", "an anchor or alias ("+clip(strings.TrimSpace(t.Origin))+")", "write the value out where it is needed")
		case token.MergeKeyType:
			r.add(line, "", "a merge key (<<)", "write the keys out where they are needed")
		case token.TagType:
			r.add(line, "", "a tag ("+clip(t.Value)+")", "write the plain value, in quotes if it is a string")
		case token.DocumentHeaderType:
			if documents++; documents > 1 || t.Prev != nil && t.Prev.Type != token.CommentType {
				r.add(line, "", "a second document", "put each bottle into a file of its own")
			}
		case token.DocumentEndType:
			r.add(line, "", "an end of document (...)", "remove the line")
		case token.MappingStartType, token.SequenceStartType:
			if depth++; depth > maxNesting {
				r.add(line, "", fmt.Sprintf("brackets more than %d deep", maxNesting), "a manifest nests no deeper than four")
				return false
			}
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.InvalidType:
			r.add(line, "", "no YAML: "+t.Error, "correct the line")
		}
		if len(r.list) >= maxErrors {
			return false
		}
	}
	return len(r.list) == 0
}

// addSyntax adds the parser's error with its line.
func addSyntax(err error, r *refusals) {
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil && syntax.Token.Position != nil {
		r.add(syntax.Token.Position.Line, "", "no YAML: "+syntax.Message, "correct the line; see the examples")
		return
	}
	r.add(0, "", "no YAML: "+clip(err.Error()), "correct the file; see the examples")
}

// rootMapping returns the file's one document as a mapping.
func rootMapping(f *ast.File, r *refusals) *ast.MappingNode {
	var body ast.Node
	for _, d := range f.Docs {
		if d.Body == nil {
			continue
		}
		if _, ok := d.Body.(*ast.CommentGroupNode); ok {
			continue
		}
		if body != nil {
			r.add(lineOf(d.Body), "", "a second document", "put each bottle into a file of its own")
			return nil
		}
		body = d.Body
	}
	if body == nil {
		r.add(0, "", "the file is empty", "begin with `bottle: NAME`")
		return nil
	}
	m := asMapping(body)
	if m == nil {
		r.add(lineOf(body), "", "the file is "+kindOf(body)+", not a mapping", "begin with `bottle: NAME`")
	}
	return m
}

// asMapping returns n as a mapping, or nil if it is none.
func asMapping(n ast.Node) *ast.MappingNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n
	case *ast.MappingValueNode:
		return &ast.MappingNode{Start: n.Start, Values: []*ast.MappingValueNode{n}}
	}
	return nil
}

// lineOf returns the node's first line, or 0.
func lineOf(n ast.Node) int {
	switch m := n.(type) {
	case *ast.MappingNode:
		if len(m.Values) > 0 && !m.IsFlowStyle {
			return lineOf(m.Values[0].Key)
		}
	case *ast.SequenceNode:
		if m.Start != nil && m.Start.Position != nil {
			return m.Start.Position.Line
		}
	}
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

// kindOf names the node's kind for people.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "empty"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "a string"
	}
	return "something else"
}

// clip shortens text that a message quotes from the file.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
