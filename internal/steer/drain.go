package steer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

const (
	// quietFor is how long little traffic must arrive before that counts.
	quietFor = 3 * time.Second
	// returnTime is how long a route that is back after a drain is left alone: what the routers need to
	// take it, before names lead to the site again.
	returnTime = time.Second
)

// Prefixes are the prefixes of Plan.Routes, in their order. Facts.Loads is indexed like them.
func (t *Topology) Prefixes() []netip.Prefix {
	out := make([]netip.Prefix, len(t.routes))
	for i := range t.routes {
		out[i] = t.routes[i].prefix
	}
	return out
}

// load is the traffic of a prefix; ok is false while it is not known.
func (j *judgement) load(spec *routeSpec) (l Load, ok bool) {
	for i := range j.t.routes {
		if &j.t.routes[i] == spec && len(j.facts.Loads) == len(j.t.routes) {
			return j.facts.Loads[i], true
		}
	}
	return l, false
}

// quiet reports whether so little traffic arrives at a prefix that is announced less preferred that it can be
// withdrawn before its time; until is then no later than when that will be so.
func (j *judgement) quiet(spec *routeSpec, m *routeMemory, until *time.Time) bool {
	below := j.t.Config.Drain.TrafficBelow
	l, known := j.load(spec)
	if below == 0 || !known || l.Rate >= below {
		m.quiet = time.Time{}
		return false
	}
	if m.quiet.IsZero() || m.quiet.After(j.facts.Now) {
		m.quiet = j.facts.Now
	}
	end := m.quiet.Add(quietFor)
	*until = earlier(*until, end)
	return !j.facts.Now.Before(end)
}

// finish is for a route that was withdrawn by order: connections may end for a while.
func (j *judgement) finish(spec *routeSpec, r *Route) {
	m, now := &r.memory, j.facts.Now
	if r.Why != ReasonDrained || m.left.IsZero() || j.timeless() {
		return
	}
	if m.left.After(now) {
		m.left = now
	}
	if l, known := j.load(spec); known { // while it is not, what was known last goes on
		m.open = l.Open
	}
	if m.open == 0 {
		return
	}
	r.Open = m.open
	if end := m.left.Add(j.t.Config.Drain.Connections); now.Before(end) {
		r.Why, r.Until = ReasonFinishing, end
	}
}

// returns follows a route that was withdrawn by order, and is not ordered out any more, until it has been
// announced for a moment. Names led elsewhere meanwhile lead here again only then.
func (j *judgement) returns(r *Route, announced bool) {
	m, now := &r.memory, j.facts.Now
	switch {
	case m.left.IsZero() || !m.draining.IsZero() || now.IsZero():
		return
	case r.Why == ReasonStandby: // it is back where it belongs
		m.left, m.back, m.aside = time.Time{}, time.Time{}, false
		return
	case m.aside || j.facts.Settled:
		if r.Why.Keeps() {
			m.left, m.aside = time.Time{}, false
		} else if m.aside && r.serves == health.StatusUnknown {
			r.serves = health.StatusUp // it waits with the route, and served all along
		}
		return
	case !r.Why.Keeps():
		m.back = time.Time{}
		return
	}
	if !announced || m.back.IsZero() || m.back.After(now) {
		m.back = now
	}
	if end := m.back.Add(returnTime); now.Before(end) {
		r.Returning, r.serves, r.Until = true, health.StatusUnknown, earlier(r.Until, end)
		return
	}
	m.left, m.back = time.Time{}, time.Time{}
}

// A DrainedPool is a service that is ordered out, gently, at this node's own site.
type DrainedPool struct {
	Service int       // index into Topology.Services
	Since   time.Time // by this node's clock
}

// pools notes the services that are ordered out, gently, at this node's own site.
func (j *judgement) pools(previous *Plan) (pools []DrainedPool) {
	if j.orders == nil || j.facts.Now.IsZero() {
		return nil
	}
	for i := range j.t.Services {
		s := &j.t.Services[i]
		if s.Home < 0 || j.orders.order(j.orders.atPlace(place{i, s.Home}, s.Sites[s.Home].Site)) != health.OrderDrain {
			continue
		}
		p := DrainedPool{Service: i, Since: previous.poolSince(s.Config.Name)}
		if p.Since.IsZero() || p.Since.After(j.facts.Now) {
			p.Since = j.facts.Now
		}
		pools = append(pools, p)
	}
	return pools
}

// PoolStage returns how far the drain of one of Pools has come at a time, until when that lasts at most (zero: it is
// over), and how many connections there are. Nothing is decided by it.
func (p *Plan) PoolStage(pool int, now time.Time) (stage Stage, until time.Time, open int) {
	drained := p.Pools[pool]
	if len(p.Facts.Pools) == len(p.Topology.Services) {
		open = p.Facts.Pools[drained.Service]
	}
	unanswered := drained.Since.Add(p.Topology.leads[drained.Service])
	end := unanswered.Add(p.Topology.Config.Drain.Connections)
	switch {
	case now.Before(unanswered):
		return StageUnanswered, unanswered, open
	case open > 0 && now.Before(end):
		return StageFinishing, end, open
	}
	return StageDone, time.Time{}, open
}

// poolSince is since when a service has been drained here, as the plan knows; zero if it is not.
func (p *Plan) poolSince(service string) time.Time {
	if p == nil {
		return time.Time{}
	}
	for _, s := range p.Pools { // the plan may be of another topology, with other indices
		if s.Service < len(p.Topology.Services) && p.Topology.Services[s.Service].Config.Name == service {
			return s.Since
		}
	}
	return time.Time{}
}

// Leads is the longest that a resolver keeps an answer that leads to this node's site; zero if no name does.
func (t *Topology) Leads() (longest time.Duration) {
	for _, ttl := range t.leads {
		longest = max(longest, ttl)
	}
	return longest
}

// indexLeads finds, for each service, the longest TTL of the names that lead to this node's site.
func (t *Topology) indexLeads() {
	t.leads = make([]time.Duration, len(t.Services))
	for z := range t.Config.Zones {
		for n := range t.Config.Zones[z].Names {
			name := &t.Config.Zones[z].Names[n]
			if service, ok := t.services[name.Service]; ok && !name.Anycast && t.leadsHere(service) {
				t.leads[service] = max(t.leads[service], name.TTL)
			}
		}
	}
}

// A Stage is how far a drain has come.
type Stage uint8

// The stages.
const (
	StageNone        Stage = iota // nothing is drained
	StageUnanswered               // DNS leads elsewhere; resolvers still know the way here
	StageDepreferred              // announced less preferred
	StageWaiting                  // to be withdrawn, and kept for the minimum of sites
	StageFinishing                // withdrawn; connections are still open
	StageDone
	StageReturning // not ordered out any more, and not answered again yet: first the route
	stageCount
)

var stageTexts = [stageCount]string{"none", "unanswered", "depreferred", "waiting", "finishing", "done", "returning"}

// String returns the stage in one word.
func (s Stage) String() string {
	if s < stageCount {
		return stageTexts[s]
	}
	return "unknown stage"
}

// Draining reports whether something at this node is ordered out, gently.
func (p *Plan) Draining() bool {
	return len(p.Pools) > 0 || slices.ContainsFunc(p.Routes, func(r Route) bool { return !r.memory.draining.IsZero() })
}

// Stage returns how far the drain of the route has come, StageNone if it is not ordered.
func (r *Route) Stage() Stage {
	switch {
	case r.Why == ReasonUnanswered:
		return StageUnanswered
	case r.Why == ReasonDepreferred:
		return StageDepreferred
	case r.Cause == ReasonDrained:
		return StageWaiting
	case r.Why == ReasonFinishing:
		return StageFinishing
	case r.Why == ReasonDrained, !r.memory.draining.IsZero() && !r.Announce:
		return StageDone
	case !r.memory.left.IsZero() && r.memory.draining.IsZero() && r.Why != ReasonOrderedDown:
		return StageReturning
	}
	return StageNone
}
