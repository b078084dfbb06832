package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// override gives an operator's orders, or says what they would do.
func (n *Node) override(ctx context.Context, r admin.OverrideRequest) (*admin.OverrideResult, error) {
	began := time.Now()
	result := &admin.OverrideResult{DryRun: r.DryRun, Order: r.Order, Local: r.Local, Matched: []admin.OverrideMatch{}, Effects: []string{}}
	var written []health.Override
	var problem error
	if !n.decider.do(ctx, func() { written, problem = n.decider.obey(r, result) }) {
		return nil, fmt.Errorf("order: %w", ctx.Err())
	}
	if problem != nil || r.DryRun {
		return result, problem
	}
	ack := n.decider.awaitHeld(ctx, written, r.Local)
	if by := ack.overtaken(written); len(by) > 0 {
		status := admin.NewOverrideStatus(by[0])
		return nil, fmt.Errorf("%s: another order was given at the same moment and stands instead: %s at %s; if that is not meant, order again",
			status.Scope, status.Text(), status.Writer)
	}
	result.Acknowledged, result.Of, result.Durable = ack.have, ack.nodes, ack.here
	result.TookMS = float64(time.Since(began).Microseconds()) / 1000
	return result, nil
}

// obey carries a request out on the decider's goroutine, all of it or nothing,
// and returns what it wrote.
func (d *decider) obey(r admin.OverrideRequest, result *admin.OverrideResult) ([]health.Override, error) {
	orders, err := d.ordersOf(r)
	if err != nil {
		return nil, err
	}
	plan := d.core.Plan()
	if plan == nil {
		return nil, errors.New("this node has not decided anything yet; try again in a moment")
	}
	for _, v := range orders {
		match := admin.OverrideMatch{Scope: v.Scope.String()}
		if standing, ok := d.standing(v.Scope); ok {
			status := admin.NewOverrideStatus(standing)
			match.Standing = &status
		}
		result.Matched = append(result.Matched, match)
	}
	next := d.core.With(orders)
	result.Effects = append(result.Effects, effects(plan, next)...)
	var minimums []error
	for _, b := range plan.Breaks(next) {
		if b.Minimum() {
			result.Breaks = append(result.Breaks, b.String())
			minimums = append(minimums, errors.New(b.String()))
		}
	}
	switch {
	case r.DryRun:
		return nil, nil
	case len(minimums) > 0 && !r.Force:
		return nil, fmt.Errorf("%w\nif that is meant, add --force", errors.Join(minimums...))
	}
	written, err := d.core.WriteAll(orders)
	if err != nil {
		return nil, err
	}
	for _, v := range written {
		result.Written = append(result.Written, admin.NewOverrideStatus(v))
	}
	d.logOrders(written)
	d.publishOrders()
	return written, nil
}

// ordersOf returns the registers that a request asks for, sorted by scope.
func (d *decider) ordersOf(r admin.OverrideRequest) ([]health.Override, error) {
	now := d.now()
	known := d.core.Topology().Scopes()
	var ever map[health.Scope]bool // those with a register; only of interest for clearing
	if r.Order == health.OrderNone {
		ever = d.everOrdered()
		for _, v := range d.core.Standing() { // can be cleared even if the configuration has lost it
			known = append(known, v.Scope)
		}
		slices.SortFunc(known, health.Scope.Compare)
		known = slices.Compact(known)
	}
	var scopes []health.Scope
	for _, pattern := range r.Scopes {
		matched, err := health.MatchScopes(pattern, known)
		if err != nil {
			return nil, err
		}
		if ever != nil && health.IsPattern(pattern) { // a register is for ever: none for what never had an order
			matched = slices.DeleteFunc(matched, func(s health.Scope) bool { return !ever[s] })
		}
		scopes = append(scopes, matched...)
	}
	slices.SortFunc(scopes, health.Scope.Compare)
	scopes = slices.Compact(scopes)
	orders := make([]health.Override, len(scopes))
	for i, s := range scopes {
		orders[i] = health.Override{Scope: s, Order: r.Order, By: r.By, Reason: r.Reason, At: now, Keeper: d.keeper(s)}
		if r.For > 0 {
			orders[i].Until = now.Add(r.For)
		}
	}
	return orders, nil
}

// everOrdered returns the scopes that have a register.
func (d *decider) everOrdered() map[health.Scope]bool {
	ever := make(map[health.Scope]bool)
	all, _ := d.core.Overrides()
	for _, v := range all {
		ever[v.Scope] = true
	}
	return ever
}

// standing returns the order that stands on a scope.
func (d *decider) standing(s health.Scope) (health.Override, bool) {
	for _, v := range d.core.Standing() {
		if v.Scope == s {
			return v, true
		}
	}
	return health.Override{}, false
}

// effects says what these orders, in place of the plan's, would change.
func effects(plan *steer.Plan, overrides []health.Override) (out []string) {
	after := plan.Foresee(overrides)
	for i := range plan.Services {
		name := plan.Topology.Services[i].Config.Name
		for k := range plan.Services[i].Sites {
			was, will := &plan.Services[i].Sites[k], &after.Services[i].Sites[k]
			site := plan.Topology.SiteName(i, k)
			switch {
			case was.Eligible && !will.Eligible:
				out = append(out, fmt.Sprintf("service %s: %s is no longer answered (%s)", name, site, will.Why))
			case !was.Eligible && will.Eligible:
				out = append(out, fmt.Sprintf("service %s: %s is answered again (%s)", name, site, will.Why))
			}
			for b := range was.Backends {
				if was.Backends[b].Active == will.Backends[b].Active {
					continue
				}
				verb := "gets new work again"
				if !will.Backends[b].Active {
					verb = "gets no new work"
				}
				target := plan.Topology.Layout.Targets[plan.Topology.Services[i].Sites[k].Backends[b]]
				out = append(out, fmt.Sprintf("backend %s of %s at %s %s", target.Addr, name, site, verb))
			}
		}
	}
	for i := range plan.Routes {
		was, will := &plan.Routes[i], &after.Routes[i]
		switch {
		case was.Announce && !will.Announce:
			out = append(out, fmt.Sprintf("prefix %s is withdrawn by this node (%s)", was.Prefix, will.Why))
		case was.Announce && will.Announce && will.Why != was.Why:
			out = append(out, fmt.Sprintf("prefix %s stays announced by this node (%s)", was.Prefix, will.Why))
		case !was.Announce && will.Announce:
			out = append(out, fmt.Sprintf("prefix %s is announced by this node", was.Prefix))
		}
	}
	return out
}

// overrides lists the orders that stand; with cleared, every register.
func (n *Node) overrides(cleared bool) *admin.OverrideList {
	ack := n.decider.acks.Load()
	out := &admin.OverrideList{Overrides: []admin.OverrideStatus{}, Acknowledged: ack.have, Of: ack.nodes}
	t := n.setup.Load().Topology
	unknown := map[health.Scope]bool{}
	for _, s := range t.UnknownScopes(ack.all) {
		unknown[s] = true
	}
	for _, v := range ack.all {
		if v.Order == health.OrderNone && !cleared {
			continue
		}
		status := admin.NewOverrideStatus(v)
		status.Unknown = unknown[v.Scope]
		out.Overrides = append(out.Overrides, status)
	}
	return out
}
