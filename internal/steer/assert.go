package steer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// A TestResult is what became of one entry of the config's `tests:`.
type TestResult struct {
	Test config.Test
	OK   bool
	// Got is the sites that clients from Test.From would get, in the order of preference.
	Got []string
	// Err says why the test could not be asked at all: an unknown name, place or site.
	Err error
	// Explanation traces the answer of a test that failed; nil otherwise.
	Explanation *Explanation
}

// Check asks one of the config's `tests:` of a topology in which everything is
// up but what the test takes down. It holds if every site that could answer is expected.
func Check(t *Topology, test config.Test) TestResult {
	r := TestResult{Test: test}
	fqdn := strings.ToLower(strings.TrimSuffix(test.Name, ".")) + "."
	name, ok := t.Name(fqdn)
	if !ok {
		r.Err = &NotSteeredError{Name: fqdn, Nearest: nearest(fqdn, t.steeredNames(), 3)}
		return r
	}
	if name.Anycast {
		r.Err = fmt.Errorf("%s is answered with anycast addresses: which site a client gets is up to the network", fqdn)
		return r
	}
	var ipv6 bool
	switch strings.ToUpper(test.Type) {
	case "", "A":
	case "AAAA":
		ipv6 = true
	default:
		r.Err = fmt.Errorf("type %q: only A and AAAA are steered", test.Type)
		return r
	}
	if r.Err = t.CheckAssumptions(test.Down); r.Err != nil {
		return r
	}
	from, err := t.parseOrigin(test.From)
	if err != nil {
		r.Err = err
		return r
	}
	// Only the service in question is decided: a config may have a test for each of thousands.
	i := t.services[name.Service]
	s := &t.Services[i]
	plan := newJudgement(t, nil, Facts{AssumeDown: test.Down}).service(i)
	r.OK = true
	for _, share := range plan.shares(&t.profiles[s.Profile], t.orderFrom(s.Profile, from), ipv6) {
		site := t.SiteName(i, share.Position)
		r.Got = append(r.Got, site)
		r.OK = r.OK && slices.Contains(test.Expect, site)
	}
	r.OK = r.OK && len(r.Got) > 0
	if !r.OK {
		full := Decide(t, t.allUp(), Facts{Ready: true, AssumeDown: test.Down}, nil)
		r.Explanation = full.explain(fqdn, name, ipv6, from)
	}
	return r
}

// String says in one line what was asked, expected and got.
func (r TestResult) String() string {
	kind := r.Test.Type
	if kind == "" {
		kind = "A"
	}
	text := fmt.Sprintf("%s %s from %s", r.Test.Name, kind, r.Test.From)
	if len(r.Test.Down) > 0 {
		text += " with " + strings.Join(r.Test.Down, ", ") + " down"
	}
	switch {
	case r.Err != nil:
		return text + ": " + r.Err.Error()
	case r.OK:
		return text + ": " + strings.Join(r.Got, ", ")
	case len(r.Got) == 0:
		return fmt.Sprintf("%s: expected %s, got no answer", text, strings.Join(r.Test.Expect, " or "))
	}
	return fmt.Sprintf("%s: expected %s, got %s", text, strings.Join(r.Test.Expect, " or "), strings.Join(r.Got, " or "))
}

// allUp is a view in which everything is taken to be up.
func (t *Topology) allUp() *health.View {
	view := &health.View{Layout: t.Layout, Verdicts: make([]health.Verdict, len(t.Layout.Targets))}
	for i := range view.Verdicts {
		view.Verdicts[i] = health.Verdict{Status: health.StatusUp, Why: health.WhyForced}
	}
	return view
}

// AllUp decides on a topology in which everything is taken to be up and this
// node to be ready: what `explain` and `plan` show for a config file alone.
func AllUp(t *Topology, facts Facts) *Plan {
	facts.Ready = true
	return Decide(t, t.allUp(), facts, nil)
}
