package steer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// Decide is the one pure decision: the same topology, verdicts and facts give
// the same services on every node and the same routes on this one. previous
// may be nil; from it come the generation, the memory that has not changed and
// the routes that stand. A view of another layout, or none, is read target by target; what it
// does not know is unknown, which is eligible.
func Decide(t *Topology, view *health.View, facts Facts, previous *Plan) *Plan {
	facts.AssumeDown = slices.Compact(slices.Sorted(slices.Values(facts.AssumeDown)))
	p := &Plan{
		Generation: 1,
		Topology:   t,
		View:       view,
		Facts:      facts,
		Services:   make([]ServicePlan, len(t.Services)),
	}
	j := newJudgement(t, view, facts)
	j.distrust()
	if len(facts.Own) == len(t.Layout.Targets) {
		j.own = facts.Own
	}
	p.orders, p.held, p.Distrust = j.orders, j.held, j.distrusted
	if previous != nil {
		p.Generation = previous.Generation + 1
	}
	before := j.before(previous)
	touched := j.touched(before)
	for i := range t.Services {
		if before != nil && previous.Services[i].Recheck.IsZero() && (touched != nil && !touched[i] || touched == nil && j.same(before, i)) {
			p.Services[i] = previous.Services[i]
			continue
		}
		p.Services[i] = j.service(i)
		if previous != nil && previous.Topology == t && p.Services[i].equal(&previous.Services[i]) {
			p.Services[i] = previous.Services[i]
		}
		p.Recheck = earlier(p.Recheck, p.Services[i].Recheck)
	}
	p.Recheck = earlier(p.Recheck, earlier(p.Distrust, j.wake))
	p.Routes = j.routes(previous)
	for i := range p.Routes {
		p.Recheck = earlier(p.Recheck, p.Routes[i].Until)
	}
	p.Pools = j.pools(previous)
	return p
}

// before returns the judgement that previous was decided by, or nil if
// nothing of that plan may be taken over unseen: its facts differ in more than verdicts and orders, or are of a later time.
func (j *judgement) before(previous *Plan) *judgement {
	if previous == nil || previous.Topology != j.t || !slices.Equal(previous.Facts.AssumeDown, j.facts.AssumeDown) ||
		!previous.Facts.Current.Equal(j.facts.Current) || j.facts.Now.Before(previous.Facts.Now) || !sameLeaving(previous.View, j.view) {
		return nil
	}
	before := previous.judgement()
	j.sameOrders = j.orders.equal(before.orders)
	return before
}

// sameLeaving reports whether the same sites are stopping in both views.
func sameLeaving(a, b *health.View) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.Equal(a.Leaving, b.Leaving)
}

// judgement returns what the plan was decided by, but for this node's own probes.
func (p *Plan) judgement() *judgement {
	facts := p.Facts
	facts.Overrides = nil // indexed already
	j := newJudgement(p.Topology, p.View, facts)
	j.orders, j.held = p.orders, p.held
	return j
}

// earlier returns the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// A judgement is the verdicts of one view on the targets of one topology,
// together with what is ordered and assumed.
type judgement struct {
	t        *Topology
	view     *health.View
	facts    Facts
	aligned  bool   // view is indexed like t.Layout
	sites    []bool // by index into Config.Sites: assumed down; nil = none
	backends map[netip.AddrPort]bool
	own      []health.Status // this node's own probes, by target; nil = not known
	orders   *orders

	// Set by distrust.
	held       []time.Time // by index into Config.Sites: until when no removal is applied; nil = none
	distrusted time.Time   // the latest of held that is still to come
	wake       time.Time   // when a verdict of the future is no longer; zero = there is none

	sameOrders bool   // set by before: the orders are those of the judgement before
	trace      *trace // what was held in, for explanations; nil = not asked for
}

func newJudgement(t *Topology, view *health.View, facts Facts) *judgement {
	j := &judgement{t: t, view: view, facts: facts, orders: newOrders(t, facts.Overrides)}
	j.aligned = view != nil && view.Layout != nil && len(view.Verdicts) == len(t.Layout.Targets) &&
		(view.Layout == t.Layout || slices.Equal(view.Layout.Targets, t.Layout.Targets))
	for _, text := range facts.AssumeDown {
		if site, ok := t.sites[text]; ok {
			if j.sites == nil {
				j.sites = make([]bool, len(t.Config.Sites))
			}
			j.sites[site] = true
		} else if addr, err := netip.ParseAddrPort(text); err == nil {
			if j.backends == nil {
				j.backends = make(map[netip.AddrPort]bool)
			}
			j.backends[addr] = true
		}
	}
	return j
}

// verdict returns the verdict on target i of the topology's layout.
func (j *judgement) verdict(i int) health.Verdict {
	if j.aligned {
		return j.view.Verdicts[i]
	}
	return j.view.Of(j.t.Layout.Targets[i])
}

func (j *judgement) down(i int) bool {
	if j.aligned {
		return j.view.Verdicts[i].Status == health.StatusDown
	}
	return j.verdict(i).Status == health.StatusDown
}

func (j *judgement) up(i int) bool { return j.verdict(i).Status == health.StatusUp }

// touched returns, by service, whether one of its targets says something else than
// before: those that the judge has rewritten or, if it cannot tell, one pass over the verdicts as they
// lie in memory, where same goes from service to service. It is nil where more than verdicts may differ, or where the two are not indexed alike;
// then same has to be asked.
func (j *judgement) touched(before *judgement) []bool {
	if before == nil || !j.aligned || !before.aligned || !j.sameOrders || j.held != nil || before.held != nil {
		return nil
	}
	touched := make([]bool, len(j.t.Services))
	old := before.view.Verdicts
	look := func(i int) {
		now, then := &j.view.Verdicts[i], &old[i]
		if now.Status == then.Status && (now.Status != health.StatusDown || now.Restored == then.Restored && now.Since.Equal(then.Since)) {
			return
		}
		if owner := j.t.owners[i]; owner >= 0 {
			touched[owner] = true
		}
	}
	for target, services := range j.t.worded {
		was, wasFresh := before.stated(target)
		if is, fresh := j.stated(target); is.Status != was.Status || fresh != wasFresh || (is.Up > 0) != (was.Up > 0) {
			for _, service := range services {
				touched[service] = true
			}
		}
	}
	if few, ok := j.view.Rewritten(before.view); ok {
		for _, i := range few {
			look(i)
		}
		return touched
	}
	for i := range j.view.Verdicts {
		look(i)
	}
	return touched
}

// same reports whether a service's targets, orders and distrust say the same in both. Of
// what time alone changes it knows nothing: that is ServicePlan.Recheck.
func (j *judgement) same(before *judgement, i int) bool {
	s := &j.t.Services[i]
	for position := range s.Sites {
		ss := &s.Sites[position]
		for _, target := range ss.Backends {
			if j.down(target) != before.down(target) || j.up(target) != before.up(target) {
				return false
			}
		}
		for _, target := range ss.VIPs {
			down := j.down(target)
			if down != before.down(target) || down && !j.sameFall(before, target) {
				return false
			}
		}
		if (j.held != nil || before.held != nil) && !j.heldUntil(ss.Site).Equal(before.heldUntil(ss.Site)) {
			return false
		}
		if !j.sameOrders && !j.orderedAlike(before, place{i, position}, ss) {
			return false
		}
		if len(j.t.words[i]) > 0 && j.away(i, ss.Site) != before.away(i, ss.Site) {
			return false
		}
	}
	return true
}

// sameFall reports whether a VIP that is down went down at the same time in both.
func (j *judgement) sameFall(before *judgement, target int) bool {
	a, b := j.verdict(target), before.verdict(target)
	return a.Since.Equal(b.Since) && a.Restored == b.Restored
}

// orderedAlike reports whether the orders on a service at a site and on its backends come to the same.
func (j *judgement) orderedAlike(before *judgement, at place, ss *ServiceSite) bool {
	if j.orders.order(j.orders.atPlace(at, ss.Site)) != before.orders.order(before.orders.atPlace(at, ss.Site)) {
		return false
	}
	for _, target := range ss.Backends {
		if j.orders.order(j.orders.atBackend(target)) != before.orders.order(before.orders.atBackend(target)) {
			return false
		}
	}
	return true
}

func (j *judgement) assumedSite(site int) bool { return j.sites != nil && j.sites[site] }

func (j *judgement) assumedBackend(target int) bool {
	return j.backends != nil && j.backends[j.t.Layout.Targets[target].Addr]
}
