package decide

import (
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A Step is what followed from one look at all the facts.
type Step struct {
	// View is the newest verdicts; Changed the positions in its layout whose status changed.
	View    *health.View
	Changed []int
	// Plan is the newest plan; Decided: it was made in this step.
	Plan    *steer.Plan
	Decided bool
	// Ended are orders that ended by themselves in this step: to be saved and told
	// to the others like any other.
	Ended []health.Override
}

// Step judges what is known at m and decides, if there is anything to decide.
func (c *Core) Step(m health.Moment) Step {
	s := Step{Ended: c.end(m.Now)}
	prev := c.view
	c.view = c.ledger.Judge(prev, m)
	s.View, s.Changed = c.view, c.view.Changed(prev)
	c.noteCurrent(prev, m.Now)
	confirmed := c.confirmed() // counts, so it is asked whatever else there is
	if len(s.Changed) > 0 || c.redecide || confirmed || c.due(m.Now) || c.heardOtherwise(prev) {
		c.facts.Now, c.facts.Heard = m.Now, c.heard(m.Now)
		c.plan = steer.Decide(c.topology, c.view, c.facts, c.plan)
		c.redecide, s.Decided = false, true
	}
	s.Plan = c.plan
	return s
}

// heardOtherwise reports whether other sites' statements on their routes became old, or
// fresh again, or the first or last node of one says otherwise than the others, or this node's being cut off began or ended: no status changes with it, but what
// a shared route may count on does.
func (c *Core) heardOtherwise(prev *health.View) bool {
	now := c.view
	if prev == nil && len(now.Leaving) > 0 {
		return true
	}
	if prev == nil || len(prev.Verdicts) != len(now.Verdicts) || len(now.Verdicts) == 0 {
		return prev == nil
	}
	if prev.Minority != now.Minority || !slices.Equal(prev.Leaving, now.Leaving) {
		return true
	}
	if &prev.Verdicts[0] == &now.Verdicts[0] {
		return false
	}
	for i, t := range now.Layout.Targets {
		if !t.Kind.Stated() {
			continue
		}
		was, is := &prev.Verdicts[i], &now.Verdicts[i]
		if (was.Why == health.WhyProbes) != (is.Why == health.WhyProbes) || (was.Up > 0) != (is.Up > 0) {
			return true
		}
	}
	return false
}

// heard returns when the newest report of each site was made.
func (c *Core) heard(now time.Time) []time.Time {
	sites := c.topology.Config.Sites
	out := make([]time.Time, len(sites))
	for i := range sites {
		out[i] = c.ledger.Latest(sites[i].Name, now)
	}
	return out
}

// due reports whether time alone may have changed the plan.
func (c *Core) due(now time.Time) bool {
	return c.plan != nil && !c.plan.Recheck.IsZero() && !now.Before(c.plan.Recheck)
}

// noteCurrent keeps when this node last became current: with its first view, or
// when it hears enough sites again. What it then learns is old news to others.
func (c *Core) noteCurrent(prev *health.View, now time.Time) {
	if prev == nil || c.facts.Current.IsZero() || prev.Minority && !c.view.Minority {
		c.facts.Current = now
	}
}

// confirmed reports whether measurements replaced restored verdicts, which
// changes no status but what may be announced.
func (c *Core) confirmed() bool {
	if !c.restored {
		return false
	}
	left := 0
	for i := range c.view.Verdicts {
		if c.view.Verdicts[i].Restored {
			left++
		}
	}
	fewer := left < c.unconfirmed
	c.unconfirmed = left
	return fewer
}

// Next returns when Step, or Observe, has something to do even if nothing is heard.
func (c *Core) Next() time.Time {
	next := c.lastReport.Add(ReportEvery)
	if c.Unsaid() {
		return c.lastReport
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if c.view != nil {
		sooner(c.view.Recheck)
	}
	if c.plan != nil {
		sooner(c.plan.Recheck)
	}
	return next
}

// Undecided returns how many of the positions in the layout that this node
// probes have no verdict yet, neither measured nor known from before.
func (c *Core) Undecided() int {
	n := 0
	for _, p := range c.topology.Probes(c.name) {
		if !decided(c.view.Of(p.Target).Status) {
			n++
		}
	}
	return n
}

// SelfSite returns the name of this node's site.
func (c *Core) SelfSite() string { return c.topology.Fleet.Sites[c.name] }

// end clears the orders whose time is over and that are this site's to end.
func (c *Core) end(now time.Time) []health.Override {
	due := c.overrides.Due(c.SelfSite(), now)
	var ended []health.Override
	for _, v := range due {
		v.Order, v.Writer, v.Reason, v.At, v.Until = health.OrderNone, c.name, "its time was over", now, time.Time{}
		if w, err := c.overrides.Write(v); err == nil {
			ended = append(ended, w)
		}
	}
	if len(ended) > 0 {
		c.setOrders()
	}
	return ended
}

// setOrders puts the standing orders before the next decision.
func (c *Core) setOrders() {
	c.facts.Overrides = slices.Clip(c.overrides.Standing())
	c.redecide = true
}
