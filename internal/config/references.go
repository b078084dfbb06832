package config

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A mention is a place that names a site, a service or a network.
type mention struct {
	value *value
	at    *yaml.Node
	held  *any // where the name was read to; nil'ed when nothing has that name
	name  string
	ref   reference
}

// mention notes a reference, to be checked when every name is known.
func (r *reading) mention(v *value, at *yaml.Node, held *any, data any, ref reference) {
	name, ok := data.(string)
	if ref == refNone || !ok {
		return
	}
	if ref == refNetwork {
		if name, ok = strings.CutPrefix(name, whereNetwork); !ok {
			return
		}
	}
	r.refs = append(r.refs, mention{value: v, at: at, held: held, name: name, ref: ref})
}

// resolveMentions refuses every reference to what the file does not define. A
// definition with mistakes in it still counts, so that one mistake is one error.
func (r *reading) resolveMentions(top *value) {
	defined := map[reference]map[string]bool{
		refSite:    top.entry("sites").keys(),
		refService: top.entry("services").keys(),
		refNetwork: top.entry("networks").keys(),
	}
	nouns := map[reference]string{refSite: "site", refService: "service", refNetwork: "network"}
	for _, m := range r.refs {
		if defined[m.ref][m.name] {
			continue
		}
		*m.held = nil
		if top.isMeant(nouns[m.ref] + "s") {
			continue // they are under the misspelt key
		}
		p := r.refuseMissing(nouns[m.ref], m.name, maps.Keys(defined[m.ref]), len(defined[m.ref]))
		r.report(m.at, m.value.path(), p)
	}
}

// refuseMissing says that nothing is called name, and what is.
func (r *reading) refuseMissing(noun, name string, known iter.Seq[string], count int) *problem {
	p := refuse("there is no %s %q", noun, clip(name))
	if r.searches < maxSearches {
		r.searches++
		p.try(nearest(name, known))
	}
	const few = 8
	switch {
	case p.hint != "":
	case count == 0:
		p.message += ": the file defines none"
	case count <= few:
		p.message += ": there is " + listed(slices.Sorted(known))
	}
	return p
}

// listed joins words: "a, b and c".
func listed(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// entry returns the value under a key, nil when it is absent or v is nil.
func (v *value) entry(key string) *value {
	if v == nil {
		return nil
	}
	for _, e := range v.entries {
		if !e.keyed && e.key.Value == key {
			return e
		}
	}
	return nil
}

// keys returns the operator's keys of a dict, well formed or not.
func (v *value) keys() map[string]bool {
	if v == nil {
		return nil
	}
	all := make(map[string]bool, len(v.entries))
	for _, e := range v.entries {
		if e.keyed {
			all[e.key.Value] = true
		}
	}
	return all
}

// chosen yields a dict's entries whose keys were read, in file order.
func (v *value) chosen(yield func(string, *value) bool) {
	if v == nil {
		return
	}
	for _, e := range v.entries {
		if name, ok := e.keyData.(string); e.keyed && ok && !yield(name, e) {
			return
		}
	}
}

// section returns the mapping under a fixed key, or an empty one in its place, so
// that its defaults can be taken.
func (v *value) section(key string) *value {
	if e := v.entry(key); e != nil {
		return e
	}
	at := *v.node
	return &value{
		shape: v.shape.field(key).shape, node: &at, parent: v,
		key: &yaml.Node{Kind: yaml.ScalarNode, Value: key, Line: at.Line, Column: at.Column},
	}
}

// given reports whether a key is there and its scalar was read.
func (v *value) given(key string) bool {
	e := v.entry(key)
	return e != nil && e.data != nil
}

// sound reports whether each of the keys is absent or was read, so that a check
// across them does not repeat a mistake already reported.
func (v *value) sound(keys ...string) bool {
	for _, key := range keys {
		if e := v.entry(key); e != nil && e.data == nil {
			return false
		}
	}
	return true
}

// list returns the items under a key.
func (v *value) list(key string) []*value {
	e := v.entry(key)
	if e == nil {
		return nil
	}
	return e.items
}

// get returns the scalar under a key, its default when the key is absent, and
// the zero value when it was refused or there is no default.
func get[T any](v *value, key string) T {
	if e := v.entry(key); e != nil {
		data, _ := e.data.(T)
		return data
	}
	if f := v.shape.field(key); f != nil {
		data, _ := f.def.(T)
		return data
	}
	var none T
	return none
}

// each returns the scalars of a list that were read.
func each[T any](items []*value) []T {
	var all []T
	for _, item := range items {
		if data, ok := item.data.(T); ok {
			all = append(all, data)
		}
	}
	return all
}
