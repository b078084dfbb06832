package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Scenario is a script: what is done to the fleet when, and what is expected
// of it. Its text has one step a line:
//
//	# anything after a # is a comment
//	at 2s cut fra iad one-way
//	expect within 5s name www.example.com from client is iad
//	expect within 30s same plan
//	at 10s heal
//	until 20s
//	expect always answered
//	expect never empty
//	expect never stale
//
// Times count from the moment at which the fleet is steady, and do not go back.
// What is expected "within" counts from the `at` above it. The last three hold
// from the beginning to the end.
type Scenario struct {
	Steps []Step
	// Until is how long the run goes on at least.
	Until time.Duration
	// Always are what holds all the time.
	Always []Always
}

// A Step is a fault or an expectation at a moment.
type Step struct {
	At     time.Duration
	Fault  *Fault       // nil for an expectation
	Expect *Expectation // nil for a fault
	Line   int          // in the script; 0 = it was not read from one
}

// An Expectation must come true within a time.
type Expectation struct {
	Within time.Duration
	// SamePlan: every node serves and all plans are the same; else a query's answer.
	SamePlan bool
	Name     string
	From     netip.Addr // invalid = the lab's client
	Node     string     // "" = every node that lives
	Sites    []string   // each node answers with one of them
}

// An Always holds during the whole run.
type Always string

// What can hold all the time.
const (
	AlwaysAnswered Always = "always answered" // 99.99 % of the resolvers' queries
	NeverEmpty     Always = "never empty"
	NeverStale     Always = "never stale" // no site is named that its own nodes know to be down
)

// Limits of a scenario.
const (
	maxScenarioTime  = 24 * time.Hour
	maxScenarioSteps = 10_000
	maxScenarioLine  = 1000 // bytes
)

// ParseScenario reads a script. The error names every line that is wrong.
// Whether its places exist is checked by [Scenario.Check].
func ParseScenario(r io.Reader) (*Scenario, error) {
	s := &Scenario{}
	var errs []error
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxScenarioLine)
	now, n := time.Duration(0), 0
	for lines.Scan() {
		n++
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if err := s.parse(words, &now, n); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
		}
		if len(s.Steps) > maxScenarioSteps {
			return nil, fmt.Errorf("line %d: more than %d steps", n, maxScenarioSteps)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		errs = append(errs, fmt.Errorf("line %d: longer than %d bytes", n+1, maxScenarioLine))
	} else if err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// parse reads one line.
func (s *Scenario) parse(words []string, now *time.Duration, line int) error {
	switch words[0] {
	case "at":
		if len(words) < 3 {
			return errors.New("want: at TIME FAULT")
		}
		at, err := scenarioTime(words[1])
		if err != nil {
			return err
		}
		if at < *now {
			return fmt.Errorf("at %s comes after at %s: time does not go back", at, *now)
		}
		fault, err := ParseFault(words[2:])
		if err != nil {
			return err
		}
		*now = at
		s.Steps = append(s.Steps, Step{At: at, Fault: &fault, Line: line})
		return nil
	case "until":
		if len(words) != 2 {
			return errors.New("want: until TIME")
		}
		at, err := scenarioTime(words[1])
		if err != nil {
			return err
		}
		s.Until = max(s.Until, at)
		return nil
	case "expect":
		return s.parseExpect(words[1:], *now, line)
	}
	return fmt.Errorf("%q: a line begins with at, expect or until", words[0])
}

func (s *Scenario) parseExpect(words []string, now time.Duration, line int) error {
	form := errors.New("want: expect within TIME name NAME [from client|ADDRESS] [at NODE] is SITE[,SITE…]; expect within TIME same plan; " +
		"expect always answered; expect never empty; expect never stale")
	all := Always(strings.Join(words, " "))
	if slices.Contains([]Always{AlwaysAnswered, NeverEmpty, NeverStale}, all) {
		if !slices.Contains(s.Always, all) {
			s.Always = append(s.Always, all)
		}
		return nil
	}
	if len(words) < 4 || words[0] != "within" {
		return form
	}
	within, err := scenarioTime(words[1])
	if err != nil {
		return err
	}
	e := &Expectation{Within: within}
	rest := words[2:]
	if slices.Equal(rest, []string{"same", "plan"}) {
		e.SamePlan = true
	} else if err := e.parse(rest); err != nil {
		return fmt.Errorf("%w; %w", err, form)
	}
	s.Steps = append(s.Steps, Step{At: now, Expect: e, Line: line})
	return nil
}

// parse reads pairs of a word and its value: name, from, at, is.
func (e *Expectation) parse(words []string) error {
	if len(words)%2 != 0 {
		return fmt.Errorf("%q stands alone", words[len(words)-1])
	}
	seen := map[string]bool{}
	for ; len(words) > 0; words = words[2:] {
		key, value := words[0], words[1]
		if seen[key] {
			return fmt.Errorf("%s is given twice", key)
		}
		seen[key] = true
		var err error
		switch key {
		case "name":
			e.Name = strings.ToLower(strings.TrimSuffix(value, "."))
			_, err = newQuery(0, Question{Name: e.Name})
			if err == nil && e.Name == "" {
				err = errors.New("the name is empty")
			}
		case "from":
			e.From, err = parseFrom(value)
			if e.From.Zone() != "" {
				err = fmt.Errorf("client address %q: without a zone", value)
			}
		case "at":
			e.Node = value
		case "is":
			e.Sites = strings.Split(value, ",")
			if slices.Contains(e.Sites, "") {
				err = fmt.Errorf("%q has an empty site", value)
			}
		default:
			err = fmt.Errorf("%q is not known here", key)
		}
		if err != nil {
			return err
		}
	}
	if e.Name == "" || e.Sites == nil {
		return errors.New("name and is are needed")
	}
	return nil
}

// scenarioTime reads a time of at most a day.
func scenarioTime(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxScenarioTime {
		return 0, fmt.Errorf("%q: want a time like 2s or 1m30s, up to %s", text, maxScenarioTime)
	}
	return d, nil
}

// Check finds everything that the lab does not have. It is done before
// anything is done to the fleet.
func (s *Scenario) Check(l *Layout) error {
	var errs []error
	for _, step := range s.Steps {
		if err := step.check(l); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", step.Line, err))
		}
	}
	return errors.Join(errs...)
}

func (step Step) check(l *Layout) error {
	if step.Fault != nil {
		return step.Fault.check(l)
	}
	e := step.Expect
	if e.SamePlan {
		return nil
	}
	if e.Node != "" {
		if _, err := l.node(e.Node); err != nil {
			return err
		}
	}
	for _, site := range e.Sites {
		if !slices.ContainsFunc(l.Members, func(m Member) bool { return m.Site == site }) {
			return fmt.Errorf("the lab has no site %q; it has %v", site, l.SiteNames())
		}
	}
	for _, z := range l.Config.Zones {
		for _, n := range z.Names {
			if n.FQDN == e.Name+"." {
				return nil
			}
		}
	}
	return fmt.Errorf("%s is no steered name of the configuration", e.Name)
}

// check finds out whether the lab has what the fault names.
func (f Fault) check(l *Layout) error {
	switch f.Kind {
	case FaultCut, FaultDrop, FaultIsolate, FaultHeal:
		for _, name := range []string{f.A, f.B} {
			if name == "" {
				continue
			}
			if _, err := l.Find(name); err != nil {
				return err
			}
		}
	case FaultBackend:
		if !slices.ContainsFunc(l.Backends, func(b BackendPlan) bool { return b.named(f.A) }) {
			return fmt.Errorf("the lab has no backend %q; name an address:port, a site, or service@site", f.A)
		}
	default:
		_, err := l.node(f.A)
		return err
	}
	return nil
}

// named reports whether a backend is among those that a name means: an
// address, a site, or the pool of a service at a site ("web@fra").
func (p BackendPlan) named(name string) bool {
	service, site, isPool := strings.Cut(name, "@")
	return p.Address.String() == name || p.Site == name || isPool && p.Service == service && p.Site == site
}

// String writes what ParseScenario reads.
func (s *Scenario) String() string {
	var b strings.Builder
	for _, step := range s.Steps {
		b.WriteString(step.String() + "\n")
	}
	if s.Until > 0 {
		fmt.Fprintf(&b, "until %s\n", s.Until)
	}
	for _, a := range s.Always {
		fmt.Fprintf(&b, "expect %s\n", a)
	}
	return b.String()
}

// String writes the step's line.
func (step Step) String() string {
	if step.Fault != nil {
		return fmt.Sprintf("at %s %s", step.At, step.Fault)
	}
	e := step.Expect
	if e.SamePlan {
		return fmt.Sprintf("expect within %s same plan", e.Within)
	}
	text := fmt.Sprintf("expect within %s name %s", e.Within, e.Name)
	if e.From.IsValid() {
		text += " from " + e.From.String()
	}
	if e.Node != "" {
		text += " at " + e.Node
	}
	return text + " is " + strings.Join(e.Sites, ",")
}
