package route

import (
	"bytes"
	"net/netip"
	"regexp"
	"slices"
)

// compiled is what a Rule has been made ready for.
type compiled struct {
	path    string // without a trailing slash, plain; of an exact path with it
	pattern *regexp.Regexp
	tests   []test // of headers, then of the query
	headers int    // how many of them are of headers
	plain   bool   // there are no conditions besides host and path
}

// A test is a compiled Condition.
type test struct {
	Condition
	lower   string // the name in lower case, for headers
	pattern *regexp.Regexp
}

// A Table finds routes. Immutable.
type Table struct {
	rules    []*Rule // in the order they were given in
	exact    map[string]*host
	wildcard map[string]*host // by the part behind "*."
	labels   int              // the most labels of such a part
	any      *host
}

// A host is the routes of one host pattern, each list in the order of precedence.
type host struct {
	exact    map[string][]*Rule
	patterns []*Rule
	prefix   map[string][]*Rule // by path without a trailing slash; "" is the root
	depth    int                // the most segments of a prefix
}

// Rules returns the rules in the order of the routes. They must not be changed.
func (t *Table) Rules() []*Rule { return t.rules }

// Match returns the rule that takes a request, nil if none does. It does not allocate,
// but for rules with patterns.
func (t *Table) Match(r *Request, s *Space) *Rule {
	s.Path = plainPath(s.path[:0], r.Path)
	name := s.plainHost(r.Host)
	if len(t.exact) > 0 {
		if found := t.exact[string(name)].match(r, s); found != nil {
			return found
		}
	}
	if t.labels > 0 {
		for below := t.below(name); below != nil; below = parent(below) {
			if found := t.wildcard[string(below)].match(r, s); found != nil {
				return found
			}
		}
	}
	return t.any.match(r, s)
}

// plainHost returns a host as it is compared: in lower case, without a last dot.
func (s *Space) plainHost(name []byte) []byte {
	out := s.host[:0]
	for _, c := range name[:min(len(name), MaxHost)] {
		out = append(out, lowered(c))
	}
	return bytes.TrimSuffix(out, []byte("."))
}

// below returns the longest proper suffix of a name that can be in t.wildcard.
func (t *Table) below(name []byte) []byte {
	at := len(name)
	for range t.labels {
		dot := bytes.LastIndexByte(name[:at], '.')
		if dot < 0 {
			return parent(name) // all of the name has no more labels than that
		}
		at = dot
	}
	if at == len(name) {
		return nil
	}
	return name[at+1:]
}

// parent cuts the first label off; nil if it is the only one.
func parent(name []byte) []byte {
	dot := bytes.IndexByte(name, '.')
	if dot < 0 {
		return nil
	}
	return name[dot+1:]
}

// match returns the rule of this host that takes a request.
func (h *host) match(r *Request, s *Space) *Rule {
	if h == nil {
		return nil
	}
	path := s.Path
	if len(h.exact) > 0 {
		if found := first(h.exact[string(path)], r, s); found != nil {
			return found
		}
	}
	if len(path) <= MaxPatternPath {
		for _, rule := range h.patterns {
			if rule.pattern.Match(path) && rule.meets(r, s) {
				return rule
			}
		}
	}
	if len(h.prefix) == 0 {
		return nil
	}
	for path = head(path, h.depth); ; path = path[:max(bytes.LastIndexByte(path, '/'), 0)] {
		if n := len(path); n > 0 && path[n-1] == '/' {
			path = path[:n-1]
		}
		if found := first(h.prefix[string(path)], r, s); found != nil || len(path) == 0 {
			return found
		}
	}
}

// head returns the first segments of a path.
func head(path []byte, segments int) []byte {
	at := 0
	for range segments {
		if at >= len(path) {
			return path
		}
		next := bytes.IndexByte(path[at+1:], '/')
		if next < 0 {
			return path
		}
		at += 1 + next
	}
	return path[:at]
}

func first(rules []*Rule, r *Request, s *Space) *Rule {
	for _, rule := range rules {
		if rule.meets(r, s) {
			return rule
		}
	}
	return nil
}

// meets reports whether the conditions besides host and path are met.
func (c *Rule) meets(r *Request, s *Space) bool {
	if c.plain {
		return true
	}
	return c.takesMethod(r.Method) && c.failing(r, s) < 0 && c.takesClient(r.Client)
}

func (c *Rule) takesMethod(method []byte) bool {
	if len(c.Methods) == 0 {
		return true
	}
	for _, m := range c.Methods {
		if string(method) == m {
			return true
		}
	}
	return false
}

func (c *Rule) takesClient(a netip.Addr) bool {
	if len(c.Clients) == 0 {
		return true
	}
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(c.Clients, func(p netip.Prefix) bool { return p.Contains(a) })
}

// failing returns the index of the first test that fails, −1 if none does.
func (c *Rule) failing(r *Request, s *Space) int {
	for i := range c.tests {
		t := &c.tests[i]
		met := false
		if i < c.headers {
			met = t.header(r.Fields)
		} else {
			met = t.query(r.Query, s)
		}
		if met == (t.Test == Absent) {
			return i
		}
	}
	return -1
}

// header reports whether a field is there and passes.
func (t *test) header(fields Fields) bool {
	if fields == nil {
		return false
	}
	for from := 0; ; {
		value, next := fields.Field(t.lower, from)
		if next < 0 {
			return false
		}
		if t.passes(value) {
			return true
		}
		from = next
	}
}

// query reports whether a parameter is there and passes.
func (t *test) query(query []byte, s *Space) bool {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte("&"))
		name, value, _ := bytes.Cut(pair, []byte("="))
		if string(s.decode(name)) == t.Name && t.passes(s.decode(value)) {
			return true
		}
	}
	return false
}

// decode undoes the escapes of a name or value of a query. A bad one stays as it is.
func (s *Space) decode(p []byte) []byte {
	if bytes.IndexByte(p, '%') < 0 && bytes.IndexByte(p, '+') < 0 {
		return p
	}
	out := s.value[:0]
	for i := 0; i < len(p) && len(out) < len(s.value); i++ {
		c := p[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(p) && hexValue(p[i+1]) >= 0 && hexValue(p[i+2]) >= 0:
			c = byte(hexValue(p[i+1])<<4 | hexValue(p[i+2]))
			i += 2
		}
		out = append(out, c)
	}
	return out
}

func (t *test) passes(value []byte) bool {
	switch t.Test {
	case Equals:
		return string(value) == t.Value
	case Prefix:
		return len(value) >= len(t.Value) && string(value[:len(t.Value)]) == t.Value
	case Matches:
		return len(value) <= MaxPatternPath && t.pattern.Match(value)
	default:
		return true
	}
}
