package steer

import (
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// What the sites of a prefix do together. Each site states whether it can serve the prefix and whether
// it announces it; every node knows these statements by its view, and only those that are fresh count:
// a site that is silent is neither counted on nor taken for gone.
const (
	// settleTime is how long a site that is to withdraw a prefix waits for news of others that
	// are about to do the same: far more than gossip takes.
	settleTime = 500 * time.Millisecond
	// wordAfter is how much later than its own wish what it counts on must have been said: what was
	// said before may have crossed the news of the same wish elsewhere.
	wordAfter = settleTime / 2
	// wordPoll is how often it looks for that.
	wordPoll = 100 * time.Millisecond
	// turnPatience is how long a site lets another go first that does not go.
	turnPatience = 10 * time.Second
	// standbyDelay is how long a standby site waits when the others are merely silent, and before it steps back.
	standbyDelay = 10 * time.Second
)

// stated returns what a site states of one thing; ok is false if that is old, or nothing.
func (j *judgement) stated(target int) (v health.Verdict, ok bool) {
	v = j.verdict(target)
	return v, (v.Why == health.WhyProbes || v.Why == health.WhyForced) && !v.Restored
}

// stands reports whether a site states both that it can serve and that it announces.
func (j *judgement) stands(s *routeSite) bool {
	serves, fresh := j.stated(s.serves)
	route, known := j.stated(s.route)
	return fresh && known && serves.Status == health.StatusUp && route.Status == health.StatusUp
}

// othersHere reports whether this node's site states that it announces. Of a node that does not, it tells of others.
func (j *judgement) othersHere(spec *routeSpec) bool {
	for i := range spec.sites {
		if s := &spec.sites[i]; s.site == j.t.SelfSite {
			route, known := j.stated(s.route)
			return known && route.Status == health.StatusUp
		}
	}
	return false
}

// others counts the other sites that serve the prefix and mean to go on, and said so after a time.
func (j *judgement) others(spec *routeSpec, after time.Time) (n int) {
	for i := range spec.sites {
		s := &spec.sites[i]
		if s.site != j.t.SelfSite && j.stands(s) && (j.facts.Heard == nil || !j.facts.Heard[s.site].Before(after)) {
			n++
		}
	}
	return n
}

// lacking reports whether fewer other sites serve the prefix than are needed at least.
func (j *judgement) lacking(spec *routeSpec) bool {
	return len(spec.sites) > 0 && !j.minority() && j.others(spec, time.Time{}) < spec.config.MinSites
}

func (j *judgement) minority() bool { return j.view != nil && j.view.Minority }

// retained returns why a route that is to go is not withdrawn yet, ReasonNone if it may go now. So no site leaves below the minimum, and no two leave at once: a site that is leaving
// states it first, waits until that is known everywhere, and of several the one goes that has
// been leaving for longest, of equals the first in the configuration.
func (j *judgement) retained(spec *routeSpec, m *routeMemory) (why Reason, until time.Time) {
	switch {
	case j.minority():
		why = ReasonCutOff
	case j.others(spec, time.Time{}) < spec.config.MinSites:
		why = ReasonLastSites
	}
	if why != ReasonNone {
		m.clear = time.Time{}
		return why, time.Time{}
	}
	if j.facts.Settled {
		return ReasonNone, time.Time{}
	}
	if m.clear.IsZero() || m.clear.After(j.facts.Now) {
		m.clear = j.facts.Now
	}
	if settled := m.clear.Add(settleTime); j.facts.Now.Before(settled) {
		return ReasonSettling, settled
	}
	if j.others(spec, m.clear.Add(wordAfter)) < spec.config.MinSites {
		return ReasonSettling, j.facts.Now.Add(wordPoll)
	}
	if until := j.turn(spec, m); j.facts.Now.Before(until) {
		return ReasonTurn, until
	}
	return ReasonNone, time.Time{}
}

// turn returns when a site that is leaving may go, as far as others that leave are concerned.
func (j *judgement) turn(spec *routeSpec, m *routeMemory) (at time.Time) {
	var gone []time.Time
	first := true // of those that are leaving
	for i := range spec.sites {
		s := &spec.sites[i]
		serves, fresh := j.stated(s.serves)
		route, known := j.stated(s.route)
		up := serves.Status != health.StatusDown
		switch {
		case s.site == j.t.SelfSite || !known:
		case route.Status == health.StatusDown:
			// A standby site that steps back serves on, and is no loss.
			if !(up && fresh) && !j.adopted(route.Since) && !route.Since.After(j.facts.Now) {
				gone = append(gone, route.Since)
			}
		case fresh && !up:
			apart := serves.Since.Sub(m.leaving)
			first = first && (apart >= sameMoment || apart > -sameMoment && s.site > j.t.SelfSite)
		}
	}
	at = m.clear
	slices.SortFunc(gone, time.Time.Compare)
	if n := budget(len(spec.sites)); len(gone) >= n {
		if next := gone[len(gone)-n].Add(budgetWindow); next.After(at) {
			at = next
		}
	}
	if !first {
		at = at.Add(turnPatience) // if that one could go as little before, it has gone by then
	}
	return at
}

// A standbyMemory is whether a standby site stands in, and since when the opposite would be right.
type standbyMemory struct {
	promoted bool
	pending  time.Time
}

// promote reports whether a standby site is to stand in for the others.
func (j *judgement) promote(spec *routeSpec, m *standbyMemory) (promoted bool, until time.Time) {
	needed, certain := j.needed(spec)
	switch {
	case j.minority() || needed == m.promoted:
		m.pending = time.Time{}
		return m.promoted, time.Time{}
	case j.timeless() || needed && certain:
		*m = standbyMemory{promoted: needed}
		return needed, time.Time{}
	}
	now := j.facts.Now
	if m.pending.IsZero() || m.pending.After(now) {
		m.pending = now
	}
	if until := m.pending.Add(standbyDelay); now.Before(until) {
		return m.promoted, until
	}
	*m = standbyMemory{promoted: needed}
	return needed, time.Time{}
}

// needed reports whether the sites that come before this standby site serve less than is needed; certain:
// those that do not serve say so themselves.
func (j *judgement) needed(spec *routeSpec) (needed, certain bool) {
	units := 0
	certain = true
	for i := range spec.sites {
		s := &spec.sites[i]
		switch {
		case s.site == j.t.SelfSite || s.standby && s.site > j.t.SelfSite:
		case j.stands(s):
			units += s.units
		case !s.standby:
			serves, fresh := j.stated(s.serves)
			certain = certain && fresh && serves.Status == health.StatusDown
		}
	}
	return units < spec.config.Need, certain
}

// Statements calls state for each thing that this node's site states of itself, with its index in Layout.Targets.
func (p *Plan) Statements(state func(target int, s health.Status)) {
	for i := range p.Routes {
		r, spec := &p.Routes[i], &p.Topology.routes[i]
		for k := range spec.sites {
			s := &spec.sites[k]
			if s.site != p.Topology.SelfSite {
				continue
			}
			state(s.serves, max(r.serves, health.StatusUnknown))
			state(s.route, p.announced(r))
		}
	}
}

// announced returns what this node states of a route itself.
func (p *Plan) announced(r *Route) health.Status {
	switch {
	case r.Announce && r.Returning:
		return health.StatusDown
	case r.Announce && !p.Facts.Unpeered:
		return health.StatusUp
	case r.Why == ReasonNotReady, r.Why == ReasonWarmingUp, r.Why == ReasonDoorUnknown: // what is about to be announced is not there yet
		return health.StatusDown
	case !r.Announce && (r.serves == health.StatusDown || r.Why == ReasonStandby || r.memory.gone):
		return health.StatusDown
	default:
		return health.StatusUnknown
	}
}
