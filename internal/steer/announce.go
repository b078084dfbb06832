package steer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// A Level is how much a route is to be preferred; the BGP tier has the attributes for it.
type Level uint8

// The levels, best first.
const (
	LevelPreferred Level = iota // as configured
	LevelStandby                // a standby site's: used when no preferred one is there
	LevelDraining               // about to be withdrawn; what still arrives is served
	LevelLast                   // cannot serve; announced because too few sites are left
	levelCount
)

var levelTexts = [levelCount]string{"preferred", "standby", "draining", "last resort"}

// String returns the operator's text.
func (l Level) String() string {
	if l < levelCount {
		return levelTexts[l]
	}
	return "unknown level"
}

// A Route is one prefix at this node.
type Route struct {
	Prefix   netip.Prefix
	Announce bool
	Why      Reason
	// Cause is what speaks against a route that is announced although it is to go; else ReasonNone.
	Cause Reason
	// Blame is the first required service that is not servable here; "" if none. Lacks is what else
	// this node lacks for the prefix: "VIP 198.18.0.80", "listener 198.18.0.80:443".
	Blame, Lacks string
	// Level is how much it is to be preferred while it is announced. LocalOnly: the routers are to
	// keep it in their own AS (no-export).
	Level     Level
	LocalOnly bool
	// Returning: announced again after a drain, a moment ago: names are not answered with this site yet.
	Returning bool
	// Open is how many connections there still are, when that is what a drain waits for or waited for in vain.
	Open int
	// Until is when time alone changes something; zero if nothing is pending.
	Until time.Time
	// Communities are standard communities, high<<16|low. Shared; not to be changed.
	Communities []uint32

	memory routeMemory
	// serves is what this node states of itself: up, down or unknown.
	serves health.Status
}

// A routeMemory is what the next decision has to know of a route. It is of this process
// and this node's clock.
type routeMemory struct {
	well     time.Time // since when nothing speaks against it
	leaving  time.Time // since when it is to go although it is announced
	clear    time.Time // since when enough other sites serve it for that
	draining time.Time // since when it is ordered out, gently
	left     time.Time // when it was withdrawn by such an order
	quiet    time.Time // since when little traffic arrives, once it is announced less preferred for that
	back     time.Time // when it was announced again after that
	open     int       // how many connections there were after it, when that was known last
	aside    bool      // the order was on the prefix alone, so that names went on leading here
	penalty  penalty
	standby  standbyMemory
	gone     bool // it was announced by this process, and is not any more
}

// routes decides what this node announces.
func (j *judgement) routes(previous *Plan) []Route {
	if len(j.t.routes) == 0 {
		return nil
	}
	routes := make([]Route, len(j.t.routes))
	for i := range j.t.routes {
		spec := &j.t.routes[i]
		was := previous.route(spec.prefix)
		r := &routes[i]
		*r = Route{Prefix: spec.prefix, Communities: spec.communities, LocalOnly: spec.localOnly}
		if was != nil {
			r.memory = was.memory
		}
		announced := was != nil && was.Announce
		j.route(spec, r, announced)
		r.Announce = r.Why.Keeps()
		r.memory.gone = !r.Announce && (announced || was != nil && was.memory.gone)
	}
	return routes
}

// route returns the plan's route of a prefix, nil if it, or the plan, has none.
func (p *Plan) route(prefix netip.Prefix) *Route {
	if p == nil {
		return nil
	}
	i := slices.IndexFunc(p.Routes, func(r Route) bool { return r.Prefix == prefix })
	if i < 0 {
		return nil
	}
	return &p.Routes[i]
}

// Announces reports whether this node announces a prefix by this plan.
func (p *Plan) Announces(prefix netip.Prefix) bool {
	r := p.route(prefix)
	return r != nil && r.Announce
}

// timeless reports whether nothing waits: there is no clock, or the end is asked for.
func (j *judgement) timeless() bool { return j.facts.Now.IsZero() || j.facts.Settled }

// route decides one route; announced: it stands.
//
// To begin, it takes positive evidence (or an order) that every required service works here;
// to end, positive evidence (or an order) that one does not. What other sites say of our VIPs counts for neither:
// when the links between the sites are cut, each goes on announcing.
func (j *judgement) route(spec *routeSpec, r *Route, announced bool) {
	m := &r.memory
	if spec.why != ReasonNone || !j.facts.Ready {
		r.Why, r.memory = ReasonNotReady, routeMemory{penalty: m.penalty}
		if spec.why != ReasonNone {
			r.Why = spec.why
		}
		return
	}
	if vip := j.missing(spec); vip.IsValid() {
		// Whatever the minimum: traffic for an address that is not here is lost, or goes round in circles.
		*m = routeMemory{penalty: m.penalty, left: m.left}
		r.Why, r.Lacks, r.serves = ReasonVIPMissing, "VIP "+vip.String(), health.StatusDown
		return
	}
	index, blame := j.orders.atRoute(j.t, spec)
	order := j.orders.order(index)
	if order != health.OrderDrain {
		m.draining, m.quiet = time.Time{}, time.Time{}
	}
	if order > health.OrderUp {
		m.aside = j.orders.list[index-1].Scope.Kind == health.ScopePrefix
	}
	switch {
	case order == health.OrderDown:
		j.leave(spec, r, announced, ReasonOrderedDown, blame)
	case order == health.OrderDrain:
		j.drain(spec, r, announced, blame)
	default:
		why, blame := j.condition(spec, order, announced)
		switch why {
		case ReasonNone, ReasonOrderedUp:
			j.enter(spec, r, announced, why)
		case ReasonNoEvidence, ReasonDoorUnknown:
			*m = routeMemory{penalty: m.penalty, left: m.left}
			r.Why, r.Blame = why, blame
		default:
			j.leave(spec, r, announced, why, blame)
		}
	}
	if m.aside && (r.Why == ReasonDrained || r.Why == ReasonFinishing || r.Why == ReasonOrderedDown) {
		r.serves = health.StatusUp // names lead here as before
		if !announced && j.othersHere(spec) {
			r.serves = health.StatusUnknown // or their word, that the last of them is about to leave, would not count
		}
	}
	j.returns(r, announced)
	if d := j.closed(spec, announced); d != ReasonNone && (r.Why == d || r.Cause == d) {
		r.Lacks = j.lacks(spec, d)
	}
	if j.facts.Stopping && r.Why.Keeps() {
		r.Why, r.Cause, r.Level, r.serves = ReasonStopping, ReasonNone, LevelDraining, health.StatusDown
	}
}

// condition returns ReasonNone or ReasonOrderedUp if this node can serve the prefix, else why not.
func (j *judgement) condition(spec *routeSpec, order health.Order, announced bool) (why Reason, blame string) {
	if order == health.OrderUp {
		return ReasonOrderedUp, ""
	}
	if j.assumedSite(j.t.SelfSite) {
		return ReasonAssumedDown, ""
	}
	for _, i := range spec.requires {
		why := j.pool(i)
		if why == ReasonNoEvidence && announced {
			continue
		}
		if why != ReasonNone {
			return why, j.t.Services[i].Config.Name
		}
	}
	return j.closed(spec, announced), ""
}

// enter is for a route that nothing speaks against.
func (j *judgement) enter(spec *routeSpec, r *Route, announced bool, why Reason) {
	m, now := &r.memory, j.facts.Now
	leaving, clear := m.leaving, m.clear
	m.leaving, m.clear = time.Time{}, time.Time{}
	if m.well.IsZero() || m.well.After(now) { // a clock was set back
		m.well = now
	}
	r.serves = health.StatusUp
	if !announced && why == ReasonNone && !j.timeless() {
		if until := m.well.Add(spec.config.WarmUp); now.Before(until) {
			r.Why, r.Until, r.serves = ReasonWarmingUp, until, health.StatusUnknown
			return
		}
		if until := m.penalty.until(spec.config.HalfLife, now); !until.IsZero() && !j.lacking(spec) {
			r.Why, r.Until, r.serves = ReasonFlapping, until, health.StatusUnknown
			return
		}
	}
	if !spec.standby || why == ReasonOrderedUp {
		r.Why = why
		return
	}
	promoted, until := j.promote(spec, &m.standby)
	r.Until = until
	switch {
	case promoted:
		r.Why = ReasonPromoted
	case !spec.hold:
		r.Why, r.Level = ReasonStandbyRoute, LevelStandby
	case !announced:
		r.Why = ReasonStandby
	default:
		m.leaving, m.clear = leaving, clear
		j.leave(spec, r, announced, ReasonStandby, "")
		r.serves, r.Level = health.StatusUp, LevelStandby
	}
}

// leave is for a route that is to go for the reason why.
func (j *judgement) leave(spec *routeSpec, r *Route, announced bool, why Reason, blame string) {
	m, now := &r.memory, j.facts.Now
	r.Why, r.Blame, r.serves = why, blame, health.StatusDown
	if why == ReasonNoPool {
		r.serves = health.StatusUnknown // it never did, and nobody is led here for it
	}
	if why != ReasonStandby {
		m.well, m.standby = time.Time{}, standbyMemory{}
	}
	if !announced {
		m.leaving, m.clear = time.Time{}, time.Time{}
		return
	}
	if !j.timeless() && j.facts.Now.Before(j.facts.Stalled) {
		m.clear = time.Time{}
		r.hold(ReasonStalled, why, j.facts.Stalled)
		return
	}
	if len(spec.sites) > 0 && spec.config.MinSites > 0 && !j.facts.Now.IsZero() {
		if m.leaving.IsZero() || m.leaving.After(now) {
			m.leaving = now
		}
		if hold, until := j.retained(spec, m); hold != ReasonNone {
			r.hold(hold, why, until)
			return
		}
	}
	m.leaving, m.clear = time.Time{}, time.Time{}
	switch why {
	case ReasonDrained, ReasonOrderedDown:
		m.left, m.open = now, 0
	case ReasonStandby, ReasonAssumedDown:
	default:
		m.penalty.add(spec.config.HalfLife, now)
	}
}

// hold keeps a route announced, for the reason why, that is to go for another, cause.
func (r *Route) hold(why, cause Reason, until time.Time) {
	r.Why, r.Cause, r.Level, r.Until = why, cause, LevelLast, earlier(r.Until, until)
	if cause == ReasonDrained {
		r.Level = LevelDraining
	}
}

// drain is for a route that is ordered out gently: stage by stage, by this node's clock.
func (j *judgement) drain(spec *routeSpec, r *Route, announced bool, blame string) {
	m, now := &r.memory, j.facts.Now
	if m.draining.IsZero() || m.draining.After(now) {
		m.draining = now
	}
	if !announced || j.timeless() {
		j.leave(spec, r, announced, ReasonDrained, blame)
		j.finish(spec, r)
		return
	}
	if why, blame := j.condition(spec, health.OrderNone, announced); why != ReasonNone { // nothing is left to do gently
		j.leave(spec, r, announced, why, blame)
		return
	}
	unanswered := m.draining.Add(spec.ttl)
	depreferred := unanswered.Add(j.t.Config.Drain.Depreference)
	switch {
	case now.Before(unanswered):
		m.leaving, m.clear = time.Time{}, time.Time{}
		r.Why, r.Blame, r.Until, r.serves = ReasonUnanswered, blame, unanswered, health.StatusUp
	case now.Before(depreferred) && !j.quiet(spec, m, &depreferred):
		m.leaving, m.clear = time.Time{}, time.Time{} // it is not leaving yet: others' word of before does not count when it is
		r.Why, r.Blame, r.Until, r.serves, r.Level = ReasonDepreferred, blame, depreferred, health.StatusUp, LevelDraining
	default:
		j.leave(spec, r, announced, ReasonDrained, blame)
		j.finish(spec, r)
	}
}
