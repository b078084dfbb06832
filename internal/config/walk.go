package config

import (
	"hash"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A reading is one Parse in progress: the text, what went wrong so far, and the
// references that wait until every name is known.
type reading struct {
	name     string
	src      Sources
	lines    lines
	errs     Errors
	dropped  int // mistakes beyond maxErrors
	searches int // searches for the nearest defined name so far
	refs     []mention
	hidden   []span // secrets in the text
	digest   hash.Hash64
}

// A value is one YAML value after the walk: where it is, and what it holds.
type value struct {
	shape  *shape
	node   *yaml.Node
	key    *yaml.Node // nil in a list and at the top
	parent *value
	index  int // in a list

	keyed   bool     // the key is of the operator's choosing (a dict entry)
	needed  bool     // the key may not be left out
	entries []*value // of a mapping, in file order
	meant   []string // fixed keys that an unknown one was probably meant to be
	items   []*value // of a list
	data    any      // of a scalar; nil if it was refused
	keyData any      // of an operator's key; nil if it was refused
}

// path returns "services.web.backends.fra[0]".
func (v *value) path() string {
	if v.parent == nil {
		return ""
	}
	above := v.parent.path()
	if v.key == nil {
		if v.parent.node.Kind != yaml.SequenceNode { // an item written bare
			return above
		}
		return above + "[" + strconv.Itoa(v.index) + "]"
	}
	return join(above, v.key.Value)
}

func join(path, key string) string {
	key = clip(key)
	if strings.ContainsFunc(key, isControl) || key == "" {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// report notes a mistake at a node. Errors are positioned and excerpted when the
// walk is over, after every secret has been masked.
func (r *reading) report(at *yaml.Node, path string, p *problem) {
	if len(r.errs) >= maxErrors {
		r.dropped++
		return
	}
	r.errs = append(r.errs, &Error{
		File: r.name, Line: at.Line, Column: at.Column, Path: path,
		Message: oneLine(p.message), Hint: oneLine(p.hint),
	})
}

// refuse notes a mistake in a value.
func (r *reading) refuse(v *value, p *problem) {
	if v.parent == nil {
		p.message = "the file " + p.message
	}
	r.report(v.node, v.path(), p)
}

// refuseKey notes a mistake at a value's key, or at the value when it has none.
func (r *reading) refuseKey(v *value, p *problem) {
	at := v.node
	if v.key != nil {
		at = v.key
	}
	r.report(at, v.path(), p)
}

// read walks one value. Nothing it refuses stops it: it goes on to find the
// other mistakes.
func (r *reading) read(v *value) {
	n, s := v.node, v.shape
	if !r.isPlain(v, n) {
		return
	}
	switch {
	case s.nest > 0 && v.depth() > s.nest:
		r.refuse(v, refuse("is too deep: checks are at most %d deep in each other", s.nest))
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		r.refuse(v, refuse("has no value: write %s%s", s.want(), v.orNothing()))
	case n.Kind == yaml.MappingNode && s.mapping:
		r.readMapping(v)
	case n.Kind == yaml.SequenceNode && s.item != nil:
		if len(n.Content) > s.most {
			r.refuse(v, refuse("has %d items: at most %d are allowed", len(n.Content), s.most))
			return
		}
		for i, item := range n.Content {
			r.readItem(v, item, i)
		}
		r.refuseTooFew(v, len(n.Content), "item")
	case n.Kind != yaml.SequenceNode && s.item != nil && s.bare:
		r.readItem(v, n, 0)
	case n.Kind == yaml.ScalarNode && s.scalar != nil:
		v.data = r.readScalar(v, n, s.scalar)
	default:
		r.refuse(v, refuse("is %s: write %s", kindOf(n), s.want()))
	}
}

// depth counts the values of shapes that contain themselves, from v upwards.
func (v *value) depth() int {
	n := 0
	for ; v != nil; v = v.parent {
		if v.shape.nest > 0 {
			n++
		}
	}
	return n
}

func (r *reading) readItem(v *value, n *yaml.Node, i int) {
	item := &value{shape: v.shape.item, node: n, parent: v, index: i}
	v.items = append(v.items, item)
	r.read(item)
}

func (r *reading) refuseTooFew(v *value, n int, noun string) {
	if n >= v.shape.least {
		return
	}
	if n == 0 {
		r.refuse(v, refuse("is empty: write at least %d %s%s", v.shape.least, noun, v.orNothing()))
	} else {
		r.refuse(v, refuse("has %d %ss: write at least %d", n, noun, v.shape.least))
	}
}

// orNothing says that a key may be left out, if it may.
func (v *value) orNothing() string {
	if v.needed || v.key == nil {
		return ""
	}
	return ", or leave the key out"
}

// isPlain refuses what YAML offers beyond plain values: aliases (a short file
// can stand for a huge one), anchors and explicit tags.
func (r *reading) isPlain(v *value, n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.report(n, v.path(), refuse("aliases (*name) are not supported: write the value out, or in quotes if it begins with *"))
	case n.Anchor != "":
		r.report(n, v.path(), refuse("anchors (&name) are not supported: nothing can refer to them"))
	case n.Style&yaml.TaggedStyle != 0:
		r.report(n, v.path(), refuse("tags (!name) are not supported: the key decides the type"))
	default:
		return true
	}
	return false
}

// readScalar reads a single value: expands ${ENV}, checks that YAML and the key
// mean the same type, and lets the scalar read the text.
func (r *reading) readScalar(v *value, n *yaml.Node, s *scalar) any {
	text, expanded, p := expand(n.Value, r.src.Getenv)
	if p != nil {
		r.refuse(v, p)
		return nil
	}
	if s.secret {
		return r.readSecret(v, text, expanded)
	}
	if expanded {
		r.mix(text)
	}
	data, p := s.read(text)
	if p == nil && !expanded {
		p = s.refuseTag(n)
	}
	if p != nil {
		if expanded {
			p.message += ", in " + clip(n.Value)
		}
		r.refuse(v, p)
		return nil
	}
	r.mention(v, n, &v.data, data, s.ref)
	return data
}

// readSecret takes a secret from ${ENV} only. No message shows any of it.
func (r *reading) readSecret(v *value, text string, expanded bool) any {
	key := v.key.Value
	switch {
	case !expanded:
		r.refuse(v, refuse("secrets are not written here: use %s_file, or ${NAME} for an environment variable", key))
	case text == "":
		r.refuse(v, refuse("the environment variable is empty"))
	case len(text) > maxSecretFile:
		r.refuse(v, refuse("is longer than %d bytes", maxSecretFile))
	default:
		return strings.TrimSpace(text)
	}
	return nil
}

// hide keeps every scalar below a node out of what errors show, unless it only names
// an environment variable.
func (r *reading) hide(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode, n.Style&yaml.TaggedStyle != 0, n.Anchor != "":
		r.hidden = append(r.hidden, span{line: n.Line, column: n.Column})
		return
	case n.Kind == yaml.ScalarNode:
		if !isVariable(n.Value) {
			r.hidden = append(r.hidden, span{line: n.Line, column: n.Column, text: n.Value})
		}
		return
	}
	for _, child := range n.Content {
		r.hide(child)
	}
}

// refuseTag compares the type that YAML sees with the one that the key has, so
// that editors, which see YAML's, agree with us.
func (s *scalar) refuseTag(n *yaml.Node) *problem {
	tag := n.Tag
	switch s.kind {
	case kindInteger, kindNumber, kindBoolean:
		if tag == "!!str" {
			return refuse("%q is text: write it without quotes", clip(n.Value))
		}
	case kindString:
		if tag == "!!int" || tag == "!!float" || tag == "!!bool" {
			return refuse("YAML takes %s for %s: put it in quotes", clip(n.Value), kindOf(n)).try(n.Value)
		}
	}
	return nil
}

// kindOf says what a node is.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!null":
		return "empty"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	}
	return "text"
}

// want says what a value should be.
func (s *shape) want() string {
	switch {
	case s.scalar != nil && s.mapping:
		return s.scalar.noun + " or a mapping"
	case s.scalar != nil:
		return s.scalar.noun
	case s.mapping:
		return "a mapping (key: value)"
	case s.bare && s.item.scalar != nil:
		return s.item.scalar.noun + " or a list"
	default:
		return "a list ([…])"
	}
}

func lowerFirst(s string) string {
	first, _, _ := strings.Cut(s, ". ")
	first = strings.TrimSuffix(first, ".")
	if len(first) > 1 && (first[1] >= 'a' || first[1] == ' ') {
		return strings.ToLower(first[:1]) + first[1:]
	}
	return first
}
