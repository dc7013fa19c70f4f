package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// kind is what a YAML value is.
type kind uint8

const (
	null kind = iota
	text
	integer
	decimal
	boolean
	list
	mapping
	broken // reported already; nothing more is to be said of it
)

type position struct{ line, column int }

// value is a node of the file, variables expanded.
type value struct {
	kind   kind
	pos    position
	text   string  // of a scalar
	free   bool    // the text came from a variable or a default: quotes tell nothing of its type
	items  []value // of a list
	fields []field // of a mapping
}

type field struct {
	name string
	pos  position
	value
}

// scalar is a value that stands in no file.
func scalar(s string) value { return value{kind: text, text: s, free: true} }

// untyped is true of a text that may stand for a number or a boolean.
func (v value) untyped() bool { return v.kind == text && v.free }

// describe says what was found. With hide, the value itself is left out.
func (v value) describe(hide bool) string {
	switch v.kind {
	case null:
		return "nothing"
	case text:
		return shown("a text", "the text %q", v.text, hide)
	case integer, decimal:
		return shown("a number", "the number %s", v.text, hide)
	case boolean:
		return shown("true or false", "%s", v.text, hide)
	case list:
		if len(v.items) == 0 {
			return "an empty list"
		}
		return "a list"
	case mapping, broken:
	}
	return "a mapping"
}

func shown(hidden, format, text string, hide bool) string {
	const most = 80
	if hide {
		return hidden
	}
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return fmt.Sprintf(format, text)
}

// tree makes values of YAML. Problems that a value has by itself, whatever key
// it belongs to, are reported on the way.
type tree struct {
	environ Environ
	report  func(pos position, path, message string)
}

// parse returns the file's top-level value; ok is false if there is none to
// go on with.
func (t *tree) parse(raw []byte) (v value, ok bool) {
	file, err := parser.ParseBytes(raw, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		t.reportSyntax(err)
		return value{}, false
	}
	docs := file.Docs
	for len(docs) > 0 && docs[len(docs)-1].Body == nil {
		docs = docs[:len(docs)-1]
	}
	switch len(docs) {
	case 0:
		return value{kind: mapping}, true
	case 1:
		return t.value(docs[0].Body, ""), true
	}
	t.report(positionOf(docs[1].Body), "", "found a second document; accepted: one")
	return value{}, false
}

// reportSyntax takes the parser's message without its excerpt of the source,
// and without what it quotes: either may hold a secret.
func (t *tree) reportSyntax(err error) {
	message, pos := "not YAML", position{}
	if syntax := yaml.Error(nil); errors.As(err, &syntax) {
		message += ": " + regexp.MustCompile(`"[^"]{2,}"`).ReplaceAllString(syntax.GetMessage(), "…")
		pos = tokenPosition(syntax.GetToken())
	}
	t.report(pos, "", message)
}

func (t *tree) value(node ast.Node, path string) value {
	pos := positionOf(node)
	switch n := node.(type) {
	case nil, *ast.NullNode:
		return value{kind: null, pos: pos}
	case *ast.StringNode:
		return t.text(n.Value, pos, path)
	case *ast.LiteralNode:
		return t.text(n.Value.Value, pos, path)
	case *ast.IntegerNode:
		return value{kind: integer, pos: pos, text: n.GetToken().Value}
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return value{kind: decimal, pos: pos, text: n.GetToken().Value}
	case *ast.BoolNode:
		return value{kind: boolean, pos: pos, text: n.GetToken().Value}
	case *ast.SequenceNode:
		return t.list(n, pos, path)
	case ast.MapNode:
		return t.mapping(n, pos, path)
	}
	t.report(pos, path, "found an anchor, alias or tag; accepted: the value itself, in quotes if it begins with &, * or !")
	return value{kind: broken, pos: pos}
}

func (t *tree) text(raw string, pos position, path string) value {
	expanded, err := expand(raw, t.environ)
	if err != nil {
		t.report(pos, path, err.Error())
		return value{kind: broken, pos: pos}
	}
	return value{kind: text, pos: pos, text: expanded, free: strings.Contains(raw, "${")}
}

func (t *tree) list(n *ast.SequenceNode, pos position, path string) value {
	v := value{kind: list, pos: pos}
	for i, item := range n.Values {
		path := fmt.Sprintf("%s[%d]", path, i)
		if glued, ok := gluedText(item); ok {
			v.items = append(v.items, t.text(glued, positionOf(item), path))
			continue
		}
		v.items = append(v.items, t.value(item, path))
	}
	return v
}

// gluedText recognises a text such as host:9092 in a list inside a flow
// mapping, {brokers: [host:9092]}: without a space behind its colon it is one
// text to YAML, but the parser makes a mapping of it.
func gluedText(node ast.Node) (string, bool) {
	pair, ok := node.(*ast.MappingValueNode)
	if m, isMapping := node.(*ast.MappingNode); isMapping && !m.IsFlowStyle && len(m.Values) == 1 {
		pair, ok = m.Values[0], true
	}
	if !ok || pair.Value == nil {
		return "", false
	}
	key, colon, value := pair.Key.GetToken(), pair.Start, pair.Value.GetToken()
	_, isScalar := pair.Value.(ast.ScalarNode)
	glued := isScalar && key.Type == token.StringType && key.Position.Line == colon.Position.Line && value.Position.Line == colon.Position.Line &&
		key.Position.Column+len([]rune(key.Value)) == colon.Position.Column && value.Position.Column == colon.Position.Column+1
	return key.Value + ":" + value.Value, glued
}

func (t *tree) mapping(n ast.MapNode, pos position, path string) value {
	v := value{kind: mapping, pos: pos}
	for entries := n.MapRange(); entries.Next(); {
		key := entries.Key()
		f := field{name: key.GetToken().Value, pos: tokenPosition(key.GetToken())}
		f.value = t.value(entries.Value(), join(path, f.name))
		v.fields = append(v.fields, f)
	}
	return v
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// positionOf is where a node begins; the token of a mapping in block style is
// its first colon.
func positionOf(node ast.Node) position {
	switch n := node.(type) {
	case nil:
		return position{}
	case *ast.MappingNode:
		if entries := n.MapRange(); !n.IsFlowStyle && entries.Next() {
			return tokenPosition(entries.Key().GetToken())
		}
	case *ast.MappingValueNode:
		return tokenPosition(n.Key.GetToken())
	}
	return tokenPosition(node.GetToken())
}

func tokenPosition(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{}
	}
	return position{line: t.Position.Line, column: t.Position.Column}
}
