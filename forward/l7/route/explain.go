package route

import (
	"bytes"
	"fmt"
	"strings"
)

// A Reason is why a route takes a request or does not.
type Reason uint8

// The reasons, in the order in which they are looked at.
const (
	Taken         Reason = iota // it takes the request
	HostDiffers                 // it is for another host
	PathDiffers                 // it is for other paths
	MethodDiffers               // it does not take the method
	HeaderFails                 // a condition on a header is not met
	QueryFails                  // a condition on the query is not met
	ClientDiffers               // the client is elsewhere
	Outranked                   // it would take it, but another goes before
	reasonCount
)

var reasonTexts = [reasonCount]string{"taken", "host", "path", "method", "header", "query", "client", "outranked"}

// String returns the reason as one word.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonTexts[r]
	}
	return "unknown"
}

// A Verdict is what one rule says to a request.
type Verdict struct {
	Rule   *Rule
	Reason Reason
	Detail string
}

// Explain returns the rule that takes a request, nil if none does, and what every rule
// says to it, in the order of the routes. It is for people: it goes through all rules.
func (t *Table) Explain(r *Request, s *Space) (*Rule, []Verdict) {
	taken := t.Match(r, s)
	name := bytes.Clone(s.plainHost(r.Host))
	out := make([]Verdict, len(t.rules))
	for i, rule := range t.rules {
		reason, detail := rule.judge(r, s, string(name))
		switch {
		case rule == taken:
			detail = rule.conditionsText()
		case reason == Taken:
			reason, detail = Outranked, outranked(rule, taken)
		}
		out[i] = Verdict{Rule: rule, Reason: reason, Detail: detail}
	}
	return taken, out
}

// judge looks at one rule by itself. s.Path is the plain path.
func (c *Rule) judge(r *Request, s *Space, name string) (Reason, string) {
	switch {
	case !c.takesHost(name):
		return HostDiffers, fmt.Sprintf("%s is not %s", orNone(name), c.Host)
	case !c.takesPath(s.Path):
		return PathDiffers, fmt.Sprintf("%s is not %s", orNone(string(s.Path)), c.pathText())
	case !c.takesMethod(r.Method):
		return MethodDiffers, fmt.Sprintf("%s is not %s", r.Method, strings.Join(c.Methods, " or "))
	}
	if i := c.failing(r, s); i >= c.headers {
		return QueryFails, c.tests[i].text()
	} else if i >= 0 {
		return HeaderFails, c.tests[i].text()
	}
	if !c.takesClient(r.Client) {
		return ClientDiffers, fmt.Sprintf("%s is in none of %v", r.Client, c.Clients)
	}
	return Taken, ""
}

func (c *Rule) takesHost(name string) bool {
	pattern := strings.ToLower(strings.TrimSuffix(c.Host, "."))
	if below, wild := strings.CutPrefix(pattern, "*"); wild {
		return len(name) > len(below) && strings.HasSuffix(name, below)
	}
	return pattern == "" || name == pattern
}

func (c *Rule) takesPath(path []byte) bool {
	switch {
	case c.pattern != nil:
		return len(path) <= MaxPatternPath && c.pattern.Match(path)
	case c.Exact:
		return string(path) == c.compiled.path
	default:
		rest, ok := bytes.CutPrefix(path, []byte(c.compiled.path))
		return ok && (len(rest) == 0 || rest[0] == '/')
	}
}

// outranked says why another rule goes before one that would take the request as well.
func outranked(rule, taken *Rule) string {
	by := fmt.Sprintf("route %d goes before: ", taken.Index+1)
	some := func(n int) bool { return n > 0 }
	switch {
	case !strings.EqualFold(rule.Host, taken.Host):
		return by + "its host is more specific"
	case rule.kind() != taken.kind() || rule.compiled.path != taken.compiled.path:
		return by + "its path is more specific"
	case some(len(rule.Methods)) != some(len(taken.Methods)):
		return by + "it names methods"
	case len(rule.Headers) != len(taken.Headers):
		return by + "it has more header conditions"
	case len(rule.Query) != len(taken.Query):
		return by + "it has more query conditions"
	case some(len(rule.Clients)) != some(len(taken.Clients)):
		return by + "it names clients"
	default:
		return by + "it comes first"
	}
}

// kind ranks the kinds of paths.
func (c *Rule) kind() int {
	switch {
	case c.Exact:
		return 0
	case c.pattern != nil:
		return 1
	default:
		return 2
	}
}

// Title is what the rule is called: its name, or its host and path.
func (c *Rule) Title() string {
	if c.Name != "" {
		return c.Name
	}
	host := c.Host
	if host == "" {
		host = "*"
	}
	return host + c.pathText()
}

func (c *Rule) pathText() string {
	switch {
	case c.pattern != nil:
		return "~" + c.Pattern
	case c.Exact:
		return "=" + c.compiled.path
	case c.compiled.path == "":
		return "/"
	default:
		return c.compiled.path
	}
}

// conditionsText lists what the rule asks for.
func (c *Rule) conditionsText() string {
	parts := []string{"host " + orAny(c.Host), "path " + c.pathText()}
	if len(c.Methods) > 0 {
		parts = append(parts, "method "+strings.Join(c.Methods, " or "))
	}
	for i := range c.tests {
		noun := "header "
		if i >= c.headers {
			noun = "query "
		}
		parts = append(parts, noun+c.tests[i].text())
	}
	if len(c.Clients) > 0 {
		parts = append(parts, fmt.Sprintf("client in %v", c.Clients))
	}
	return strings.Join(parts, ", ")
}

// text says what the test wants.
func (t *test) text() string {
	switch t.Test {
	case Absent:
		return t.Name + " is absent"
	case Equals:
		return fmt.Sprintf("%s is %q", t.Name, t.Value)
	case Prefix:
		return fmt.Sprintf("%s begins with %q", t.Name, t.Value)
	case Matches:
		return fmt.Sprintf("%s matches %q", t.Name, t.Value)
	default:
		return t.Name + " is present"
	}
}

func orAny(s string) string {
	if s == "" {
		return "any"
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
