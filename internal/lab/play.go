package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// answeredAtLeast is the share of queries that "always answered" asks for.
const answeredAtLeast = 0.9999

// A Verdict is how a run went.
type Verdict struct {
	Figures Figures `json:"figures"`
	// Failed are the expectations that did not come true, one line each.
	Failed []string `json:"failed"`
	// Agreed is how long the slowest `same plan` took.
	Agreed time.Duration `json:"agreed"`
}

// OK reports whether everything expected came true.
func (v *Verdict) OK() bool { return len(v.Failed) == 0 }

// Text is the verdict for people.
func (v *Verdict) Text() string {
	var b strings.Builder
	b.WriteString(v.Figures.Text())
	for _, f := range v.Failed {
		b.WriteString("FAILED " + f + "\n")
	}
	if v.OK() {
		b.WriteString("everything expected came true\n")
	}
	return b.String()
}

// Play plays a scenario on a lab that has been started and judges it. The
// error is for what kept it from being played, not for what failed.
func (l *Lab) Play(ctx context.Context, s *Scenario) (*Verdict, error) {
	if err := s.Check(l.layout); err != nil {
		return nil, err
	}
	w := newWatch(l)
	p, err := newProber(l, w)
	if err != nil {
		return nil, err
	}
	run := &run{lab: l, verdict: &Verdict{}}
	inner, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	failed := make(chan error, 2)
	for _, part := range []func(context.Context) error{w.Run, p.Run} {
		background.Go(func() {
			if err := part(inner); err != nil {
				failed <- err
			}
		})
	}
	err = run.steps(ctx, s, failed)
	cancel()
	background.Wait()
	run.expectations.Wait()
	v := run.verdict
	v.Figures = p.result()
	v.Figures.add(w.result())
	v.judge(s.Always)
	return v, err
}

// A run is one scenario under way.
type run struct {
	lab          *Lab
	expectations sync.WaitGroup

	mu      sync.Mutex // guards verdict
	verdict *Verdict
}

func (r *run) fail(step Step, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := step.String() + ": " + why
	if step.Line > 0 {
		text = fmt.Sprintf("line %d: %s", step.Line, text)
	}
	r.verdict.Failed = append(r.verdict.Failed, text)
	r.lab.say("FAILED %s", text)
}

// steps does the faults at their times, starts the expectations at theirs and
// waits for the end.
func (r *run) steps(ctx context.Context, s *Scenario, failed <-chan error) error {
	start := time.Now()
	waitUntil := func(at time.Duration) error {
		timer := time.NewTimer(time.Until(start.Add(at)))
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, step := range s.Steps {
		if err := waitUntil(step.At); err != nil {
			return err
		}
		if step.Fault == nil {
			r.expectations.Go(func() { r.expect(ctx, step) })
			continue
		}
		if _, err := r.lab.Do(*step.Fault); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	if err := waitUntil(s.Until); err != nil {
		return err
	}
	r.expectations.Wait()
	return ctx.Err()
}

// expect waits until an expectation comes true.
func (r *run) expect(ctx context.Context, step Step) {
	e := step.Expect
	start := time.Now()
	if e.SamePlan {
		took, err := r.lab.Agree(ctx, e.Within)
		if err != nil {
			r.fail(step, err.Error())
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.verdict.Agreed = max(r.verdict.Agreed, took)
		return
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong := r.lab.unanswered(ctx, e)
		if wrong == "" {
			r.lab.say("%s: after %s", step, time.Since(start).Round(time.Millisecond))
			return
		}
		if time.Since(start) > e.Within || ctx.Err() != nil {
			r.fail(step, wrong)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// unanswered says which node does not answer as expected, "" if all do.
func (l *Lab) unanswered(ctx context.Context, e *Expectation) string {
	answers, err := l.Query(ctx, Question{Name: e.Name, From: e.From, Node: e.Node, IPv6: l.isIPv6(e.Name)})
	if err != nil {
		return err.Error()
	}
	for _, a := range answers {
		if e.Node == "" && !l.nodes[l.index[a.Node]].lives() {
			continue // nobody expects an answer of the dead
		}
		if len(a.Sites) == 0 || slices.ContainsFunc(a.Sites, func(s string) bool { return !slices.Contains(e.Sites, s) }) {
			return fmt.Sprintf("%s answers %v %v %s", a.Node, a.Sites, a.Addresses, strings.TrimSpace(a.RCode+" "+a.Error))
		}
	}
	return ""
}

// isIPv6 reports whether a steered name has AAAA answers only.
func (l *Lab) isIPv6(name string) bool {
	for _, z := range l.layout.Config.Zones {
		for _, n := range z.Names {
			if n.FQDN == name+"." {
				return onlyIPv6(l.answersOf(n.Service, n.Anycast))
			}
		}
	}
	return false
}

// judge holds the figures against what was to hold all the time.
func (v *Verdict) judge(always []Always) {
	f := &v.Figures
	for _, a := range always {
		switch {
		case a == AlwaysAnswered && f.Answered() < answeredAtLeast:
			v.Failed = append(v.Failed, fmt.Sprintf("%s: %d of %d queries were not", a, f.Unresolved, f.Resolved))
		case a == NeverEmpty && f.Empty > 0:
			v.Failed = append(v.Failed, fmt.Sprintf("%s: %d answers were", a, f.Empty))
		case a == NeverStale && f.Stale > 0:
			v.Failed = append(v.Failed, fmt.Sprintf("%s: %d answers named a site that its own nodes knew to be down", a, f.Stale))
		}
	}
}

// RunScenario starts a lab, plays a scenario and takes the lab down.
func RunScenario(ctx context.Context, opts Options, s *Scenario) (v *Verdict, err error) {
	l, err := open(opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := s.Check(l.layout); err != nil {
		return nil, fmt.Errorf("the scenario does not fit %s:\n%w", opts.ConfigFile, err)
	}
	if err := l.Start(ctx); err != nil {
		return nil, err
	}
	v, err = l.Play(ctx, s)
	if v != nil {
		v.Failed = append(v.Failed, l.crashes()...)
	}
	return v, err
}
