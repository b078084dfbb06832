package route

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// New compiles routes. All mistakes are returned at once.
func New(routes []Route) (*Table, error) {
	t := &Table{exact: make(map[string]*host), wildcard: make(map[string]*host), any: newHost()}
	var errs []error
	seen := make(map[string]int, len(routes))
	patterns := 0
	for i := range routes {
		rule := &Rule{Route: routes[i], Index: i}
		if err := t.add(rule, seen); err != nil {
			errs = append(errs, fmt.Errorf("route %d: %w", i+1, err))
			continue
		}
		t.rules = append(t.rules, rule)
		if rule.pattern != nil || slices.ContainsFunc(rule.tests, func(t test) bool { return t.pattern != nil }) {
			patterns++
		}
	}
	if patterns > MaxPatterns {
		errs = append(errs, fmt.Errorf("%d routes have patterns: at most %d may", patterns, MaxPatterns))
	}
	for _, h := range t.exact {
		h.sort()
	}
	for below, h := range t.wildcard {
		h.sort()
		t.labels = max(t.labels, strings.Count(below, ".")+1)
	}
	t.any.sort()
	return t, errors.Join(errs...)
}

func newHost() *host { return &host{exact: make(map[string][]*Rule), prefix: make(map[string][]*Rule)} }

// sort puts every list into the order of precedence.
func (h *host) sort() {
	slices.SortStableFunc(h.patterns, before)
	for _, rules := range h.exact {
		slices.SortStableFunc(rules, before)
	}
	for _, rules := range h.prefix {
		slices.SortStableFunc(rules, before)
	}
}

// before compares two rules of the same host and kind of path by precedence.
func before(a, b *Rule) int {
	some := func(n int) int { return min(n, 1) }
	return cmp.Or(
		some(len(b.Methods))-some(len(a.Methods)),
		len(b.Headers)-len(a.Headers),
		len(b.Query)-len(a.Query),
		some(len(b.Clients))-some(len(a.Clients)),
		a.Index-b.Index,
	)
}

// add compiles a rule and files it.
func (t *Table) add(r *Rule, seen map[string]int) error {
	if err := errors.Join(r.checkAction(), r.compile()); err != nil {
		return err
	}
	h, name, err := t.host(r.Host)
	if err != nil {
		return err
	}
	key := name + "\n" + r.conditions()
	if first, twice := seen[key]; twice {
		return fmt.Errorf("host %q and path %q are routed twice: route %d has the same conditions", r.Host, cmp.Or(r.Pattern, r.Path), first+1)
	}
	seen[key] = r.Index
	switch {
	case r.pattern != nil:
		h.patterns = append(h.patterns, r)
	case r.Exact:
		h.exact[r.compiled.path] = append(h.exact[r.compiled.path], r)
	default:
		h.prefix[r.compiled.path] = append(h.prefix[r.compiled.path], r)
		h.depth = max(h.depth, strings.Count(r.compiled.path, "/"))
	}
	return nil
}

// conditions is the same for rules that take the same requests, but for their host.
func (c *Rule) conditions() string {
	methods := slices.Clone(c.Methods)
	slices.Sort(methods)
	clients := slices.Clone(c.Clients)
	slices.SortFunc(clients, netip.Prefix.Compare)
	var tests []string
	for i, t := range c.tests {
		tests = append(tests, fmt.Sprintf("%v %q %d %q", i < c.headers, cmp.Or(t.lower, t.Name), t.Test, t.Value))
	}
	slices.Sort(tests)
	return fmt.Sprintf("%v %q %q %q %v %v", c.Exact, c.compiled.path, c.Pattern, methods, tests, clients)
}

// host returns the routes of a host pattern, made if need be, and its plain name.
func (t *Table) host(pattern string) (*host, string, error) {
	if pattern == "" {
		return t.any, "", nil
	}
	hosts, plain := t.exact, strings.ToLower(strings.TrimSuffix(pattern, "."))
	name := plain
	if below, ok := strings.CutPrefix(plain, "*."); ok {
		hosts, name = t.wildcard, below
	}
	if !validHost(name) {
		return nil, "", fmt.Errorf("host %q is neither a host name nor a wildcard below one", pattern)
	}
	h := hosts[name]
	if h == nil {
		h = newHost()
		hosts[name] = h
	}
	return h, plain, nil
}

func validHost(name string) bool {
	if inner, ok := strings.CutPrefix(name, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil && addr.Is6() && strings.HasSuffix(inner, "]")
	}
	for i := range len(name) {
		if !isUnreserved(name[i]) {
			return false
		}
	}
	return name != "" && len(name) <= MaxHost
}

// compile makes the conditions ready.
func (c *Rule) compile() error {
	var errs []error
	errs = append(errs, c.compilePath())
	for _, m := range c.Methods {
		if !isToken(m) {
			errs = append(errs, fmt.Errorf("method %q is none", m))
		}
	}
	if len(c.Headers) > MaxConditions || len(c.Query) > MaxConditions {
		errs = append(errs, fmt.Errorf("more than %d conditions on headers or on the query", MaxConditions))
	}
	c.headers = len(c.Headers)
	for i, condition := range slices.Concat(c.Headers, c.Query) {
		t := test{Condition: condition}
		if i < c.headers {
			t.lower = strings.ToLower(condition.Name)
			if !isToken(condition.Name) {
				errs = append(errs, fmt.Errorf("header %q is none", condition.Name))
			}
		}
		if condition.Test == Matches {
			var err error
			t.pattern, err = whole(condition.Value)
			errs = append(errs, err)
		}
		c.tests = append(c.tests, t)
	}
	c.plain = len(c.Methods)+len(c.tests)+len(c.Clients) == 0
	return errors.Join(errs...)
}

func (c *Rule) compilePath() (err error) {
	if c.Pattern != "" {
		if c.Path != "" && c.Path != "/" || c.Exact {
			return errors.New("has both a path and a pattern")
		}
		c.pattern, err = whole(c.Pattern)
		return err
	}
	path := c.Path
	if !c.Exact {
		path = strings.TrimRight(path, "/")
	} else if path == "" {
		path = "/"
	}
	if path != "" && path[0] != '/' {
		return fmt.Errorf("path %q does not start with a slash", c.Path)
	}
	if len(path) > MaxPath {
		return fmt.Errorf("path %q is too long", c.Path)
	}
	if wrong := CheckPath([]byte(path)); wrong != "" {
		return fmt.Errorf("path %q: %s", c.Path, wrong)
	}
	c.compiled.path = string(plainPath(nil, []byte(path)))
	return nil
}

// whole compiles an expression that has to match everything.
func whole(expression string) (*regexp.Regexp, error) {
	if len(expression) > MaxPattern {
		return nil, fmt.Errorf("pattern of %d bytes: at most %d are allowed", len(expression), MaxPattern)
	}
	if _, err := regexp.Compile(expression); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", expression, err)
	}
	return regexp.Compile(`^(?:` + expression + `)$`)
}
