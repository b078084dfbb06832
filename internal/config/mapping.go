package config

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readMapping walks a mapping: its fixed keys, the operator's, and which of them
// go together.
func (r *reading) readMapping(v *value) {
	n, s := v.node, v.shape
	pairs := len(n.Content) / 2
	if s.most > 0 && pairs > s.most+len(s.fields) {
		r.refuse(v, refuse("has %d entries: at most %d are allowed", pairs, s.most))
		return
	}
	v.entries = make([]*value, 0, pairs)
	seen := make(map[string]*yaml.Node, pairs)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		entry := &value{node: n.Content[i+1], key: key, parent: v}
		if !r.isKey(v, entry, seen) {
			continue
		}
		f := s.field(key.Value)
		if f == nil && namesSecret(key.Value, s.rest == nil) || f != nil && f.shape.scalar != nil && f.shape.scalar.secret {
			r.hide(entry.node)
		}
		switch {
		case f != nil:
			entry.shape, entry.needed = f.shape, f.required
		case s.rest != nil:
			entry.shape, entry.keyed = s.rest, true
			entry.keyData = r.readKey(entry, s.key)
		default:
			p, near := refuseUnknown(key.Value, s)
			r.refuseKey(entry, p)
			if near != "" {
				v.meant = append(v.meant, near)
			}
			continue
		}
		v.entries = append(v.entries, entry)
		r.read(entry)
	}
	for i := range s.fields {
		if f := &s.fields[i]; f.required && seen[f.key] == nil && !v.isMeant(f.key) {
			r.refuseKey(v, refuse("%s is missing: %s", f.key, lowerFirst(f.doc)))
		}
	}
	if s.rest != nil {
		r.refuseTooFew(v, pairs, "entry")
	}
	for _, c := range s.choices {
		r.checkChoice(v, c, seen)
	}
}

// isKey reports whether an entry's key can be one, and refuses it if not.
func (r *reading) isKey(v, entry *value, seen map[string]*yaml.Node) bool {
	key := entry.key
	if key.Kind != yaml.ScalarNode {
		r.report(key, v.path(), refuse("a key is %s: keys are single words", kindOf(key)))
		return false
	}
	if key.Tag == "!!merge" {
		r.report(key, v.path(), refuse("merge keys (<<) are not supported: write the keys out"))
		return false
	}
	if !r.isPlain(entry, key) {
		return false
	}
	if key.Tag == "!!null" && key.Value == "" {
		r.report(key, v.path(), refuse("a key is missing before the colon"))
		return false
	}
	if first := seen[key.Value]; first != nil {
		r.refuseKey(entry, refuse("is given twice: the first is on line %d", first.Line))
		return false
	}
	seen[key.Value] = key
	return true
}

// readKey reads a key of the operator's choosing.
func (r *reading) readKey(entry *value, s *scalar) any {
	data, p := s.read(entry.key.Value)
	if p != nil {
		r.refuseKey(entry, p)
		return nil
	}
	r.mention(entry, entry.key, &entry.keyData, data, s.ref)
	return data
}

// refuseUnknown refuses a key, and returns the one that was probably meant; "" if
// none is near.
func refuseUnknown(key string, s *shape) (p *problem, near string) {
	p = refuse("unknown key")
	if near = nearest(key, s.keys); near != "" {
		return p.try(near), near
	}
	var known []string
	for k := range s.keys {
		known = append(known, k)
	}
	switch {
	case len(known) == 0:
		p.message += ": nothing can be set here"
	default:
		p.message += ": the keys here are " + strings.Join(known, ", ")
	}
	return p, ""
}

// isMeant reports whether one of the keys was probably misspelt here: the unknown
// key has been refused, and that the right one is missing is the same mistake.
func (v *value) isMeant(keys ...string) bool {
	return v != nil && slices.ContainsFunc(keys, func(key string) bool { return slices.Contains(v.meant, key) })
}

func (r *reading) checkChoice(v *value, c choice, seen map[string]*yaml.Node) {
	given := make(map[string]*yaml.Node)
	for _, key := range c.keys {
		if seen[key] != nil {
			given[key] = seen[key]
		}
	}
	if len(given) == 0 && c.must && !v.isMeant(c.keys...) {
		r.refuseKey(v, refuse("write one of %s", either(c.keys)))
	}
	if len(given) > 1 {
		last := ""
		for key := range maps.Keys(given) {
			if last == "" || given[last].Line < given[key].Line ||
				given[last].Line == given[key].Line && given[last].Column < given[key].Column {
				last = key
			}
		}
		r.report(given[last], join(v.path(), last), refuse("write only one of %s", either(c.keys)))
	}
}
