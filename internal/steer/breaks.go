package steer

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/health"
)

// A Break is something that orders would take below what it needs: of a service or of a
// prefix. `drain` and `down` refuse such orders unless forced.
type Break struct {
	Service string `json:"service,omitempty"`
	// Sites is how many sites of the service would be fit, of Need.
	Sites int `json:"sites,omitempty"`
	Need  int `json:"need,omitempty"`
	// FailOpen: none would be fit, so sites would be answered with against the order.
	FailOpen bool `json:"fail_open,omitempty"`

	// Prefix would no longer be announced by this node, for Reason; with Need, it would be
	// served by Sites sites of the Need that it has to be.
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Reason Reason       `json:"reason"`
}

// Minimum reports whether it is a minimum that would break: then an order is refused. That
// this node withdraws a route is what an order on it or its site is for.
func (b Break) Minimum() bool { return b.Service != "" || b.Need > 0 }

// String says it in one line.
func (b Break) String() string {
	switch {
	case b.Prefix.IsValid() && b.Need > 0:
		return fmt.Sprintf("prefix %s would be served by %d sites, it needs %d", b.Prefix, b.Sites, b.Need)
	case b.Prefix.IsValid():
		return fmt.Sprintf("prefix %s would be withdrawn by this node: %s", b.Prefix, b.Reason)
	case b.FailOpen:
		return fmt.Sprintf("service %s would have no fit site left, so sites would be answered with against the order", b.Service)
	default:
		return fmt.Sprintf("service %s would have %d fit sites, it needs %d", b.Service, b.Sites, b.Need)
	}
}

// Breaks returns what these orders, in place of the plan's, would break that is not broken now, on the
// verdicts and facts of the plan: services in the order of the topology, then this node's prefixes. An
// empty result says that they do no harm. Cost: one full decision.
func (p *Plan) Breaks(overrides []health.Override) []Break {
	after := p.Foresee(overrides)
	var breaks []Break
	for i := range p.Services {
		b := Break{Service: p.Topology.Services[i].Config.Name}
		b.FailOpen = after.Services[i].FailOpen && !p.Services[i].FailOpen
		broken := b.FailOpen
		is, will := p.fitness(i), after.fitness(i)
		for k := range will {
			if will[k].sites < is[k].sites && will[k].sites < will[k].need && (b.Need == 0 || will[k].sites < b.Sites) {
				broken, b.Sites, b.Need = true, will[k].sites, will[k].need
			}
		}
		if broken {
			breaks = append(breaks, b)
		}
	}
	for i := range p.Routes {
		prefix := p.Routes[i].Prefix
		spec := &p.Topology.routes[i]
		is, will := p.standing(spec), after.standing(spec)
		if will < is && will < spec.config.MinSites {
			breaks = append(breaks, Break{Prefix: prefix, Reason: after.Routes[i].Cause, Sites: will, Need: spec.config.MinSites})
		} else if p.Routes[i].Announce && !after.Routes[i].Announce {
			breaks = append(breaks, Break{Prefix: prefix, Reason: after.Routes[i].Why})
		}
	}
	return breaks
}

// Foresee returns the plan that these orders, in place of the plan's, lead to in the end: when every
// wait is over, on the verdicts and facts of the plan. Cost: one full decision.
func (p *Plan) Foresee(overrides []health.Override) *Plan {
	facts := p.Facts
	facts.Overrides, facts.Settled = overrides, true
	return Decide(p.Topology, p.View, facts, p)
}

// standing counts the sites that serve a prefix and are not ordered out.
func (p *Plan) standing(spec *routeSpec) (n int) {
	j := p.judgement()
	for i := range spec.sites {
		s := &spec.sites[i]
		if j.stands(s) && severity(j.orders.order(j.orders.atPrefix(j.t, spec, s.site))) <= severity(health.OrderUp) {
			n++
		}
	}
	return n
}

// A fitness is how many sites of a service are fit and how many it needs.
type fitness struct{ sites, need int }

// fitness returns that for IPv4, for IPv6 and, of a service that anycast addresses alone lead to, for
// the sites that could serve. Zero for what the service has not.
func (p *Plan) fitness(service int) (f [3]fitness) {
	s, sp := &p.Topology.Services[service], &p.Services[service]
	for i := range sp.Sites {
		for k, a := range [2]*AnswerPlan{&sp.Sites[i].V4, &sp.Sites[i].V6} {
			if a.Why != ReasonNoAddress {
				f[k].need++
			}
			if a.Why.onMerits() {
				f[k].sites++
			}
		}
		if !s.HasA && !s.HasAAAA {
			f[2].need++
			drained := severity(p.orders.order(p.orders.atPlace(place{service, i}, s.Sites[i].Site))) > severity(health.OrderUp)
			if !drained && slices.ContainsFunc(sp.Sites[i].Backends, func(b BackendPlan) bool { return b.Active }) {
				f[2].sites++
			}
		}
	}
	for k := range f {
		f[k].need = min(f[k].need, max(1, s.Config.MinSites))
	}
	return f
}
