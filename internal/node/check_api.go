package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

// check returns who says what of the targets that match, with the evidence of
// whoever probed, as far as they answer.
func (n *Node) check(ctx context.Context, r admin.CheckRequest) (*admin.CheckResult, error) {
	out := &admin.CheckResult{Node: n.opts.Name, Local: r.Local, Targets: []admin.TargetCheck{}}
	if !n.decider.do(ctx, func() { n.decider.opinions(r.Target, out) }) {
		return nil, fmt.Errorf("check: %w", ctx.Err())
	}
	if out.Matching == 0 && r.Target != "" {
		return nil, fmt.Errorf("check %q: no target is like that; `pharos check` without a pattern lists all", r.Target)
	}
	n.addEvidence(ctx, r.Target, out)
	return out, nil
}

// opinions fills in what the newest reports say; it runs on the decider's goroutine.
func (d *decider) opinions(pattern string, out *admin.CheckResult) {
	view, now, orders := d.core.View(), d.now(), ordersOn(d.core.Standing())
	for _, t := range d.core.Topology().Layout.Targets {
		text := t.String()
		// What sites state of themselves is no check: it is shown to who asks for it.
		if !matches(pattern, text) || pattern == "" && t.Kind.Stated() {
			continue
		}
		if out.Matching++; len(out.Targets) == admin.MaxCheckTargets {
			continue
		}
		v := view.Of(t)
		row := admin.TargetCheck{
			Target: text, Service: t.Service, Site: t.Site, Address: t.Addr,
			Status: v.Status.String(), Why: v.Why.String(), Since: v.Since, Up: v.Up, Down: v.Down, Abstain: v.Abstain,
			Override: orders.onTarget(t), Observers: []admin.Observation{},
		}
		for _, o := range d.core.Ledger().Opinions(t, now) {
			seen := admin.Observation{Node: o.Observer, Site: o.Site, Statement: o.Status.String(), Fresh: o.Fresh}
			if o.Abstains != health.AbstainNeverHeard {
				seen.AgeSeconds = o.Age.Seconds()
			}
			if o.Abstains != health.AbstainNot {
				seen.Abstains = o.Abstains.String()
			}
			row.Observers = append(row.Observers, seen)
		}
		out.Targets = append(out.Targets, row)
	}
}

// addEvidence asks those that have a say what they found.
func (n *Node) addEvidence(ctx context.Context, pattern string, out *admin.CheckResult) {
	observers := map[string]bool{}
	for _, t := range out.Targets {
		for _, o := range t.Observers {
			observers[o.Node] = true
		}
	}
	self := n.opts.Name
	delete(observers, self)
	found := map[string]map[string]finding{}
	if !out.Local {
		found = n.ask(ctx, slices.Sorted(maps.Keys(observers)), pattern)
	}
	found[self] = byTarget(n.findings(pattern))
	for i := range out.Targets {
		t := &out.Targets[i]
		for k := range t.Observers {
			o := &t.Observers[k]
			answer, answered := found[o.Node]
			o.NoAnswer = !answered && !out.Local
			if f, ok := answer[t.Target]; ok {
				o.Evidence = f.evidence()
			}
		}
	}
}

// evidence is a finding as the API shows it; nil before the first probe ended.
func (f finding) evidence() *admin.Evidence {
	if f.AgeMS < 0 {
		return nil
	}
	e := &admin.Evidence{
		Error: f.Error, Code: f.Code, Streak: f.Streak, Flapping: f.Flapping,
		AgeSeconds: (time.Duration(f.AgeMS) * time.Millisecond).Seconds(), LatencyMS: float64(f.LatencyUS) / 1000,
	}
	if f.Weight != fullWeight {
		weight := int(f.Weight)
		e.Weight = &weight
	}
	return e
}
