package steer

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// A routeSpec is a config.Prefix as the deciding node's site sees it.
type routeSpec struct {
	prefix      netip.Prefix
	communities []uint32
	requires    []int // indices into Services, in the order of config.Prefix.Requires
	// why is ReasonNone if the site may announce the prefix, else why it never does.
	why Reason
}

// compileRoutes resolves the prefixes for the node's own site. References are
// checked also without a node.
func (t *Topology) compileRoutes() error {
	bgp := &t.Config.BGP
	var errs []error
	for i := range bgp.Prefixes {
		p := &bgp.Prefixes[i]
		spec := routeSpec{prefix: p.Prefix}
		for _, c := range p.Communities {
			spec.communities = append(spec.communities, uint32(c.High)<<16|uint32(c.Low))
		}
		for _, name := range p.Requires {
			service, ok := t.services[name]
			if !ok {
				errs = append(errs, fmt.Errorf("bgp.prefixes: %s requires %q: no such service", p.Prefix, name))
				continue
			}
			spec.requires = append(spec.requires, service)
		}
		if t.SelfSite < 0 {
			continue
		}
		site := t.Config.Sites[t.SelfSite].Name
		if !slices.ContainsFunc(bgp.Peers, func(p config.Peer) bool { return p.Site == site }) {
			spec.why = ReasonNoPeers
		}
		if len(p.Sites) > 0 && !slices.Contains(p.Sites, site) {
			spec.why = ReasonSiteNotAllowed
		}
		t.routes = append(t.routes, spec)
	}
	slices.SortStableFunc(t.routes, func(a, b routeSpec) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	return errors.Join(errs...)
}

// routes decides what this node announces.
func (j *judgement) routes(ready bool, previous *Plan) []Route {
	if len(j.t.routes) == 0 {
		return nil
	}
	routes := make([]Route, len(j.t.routes))
	for i := range j.t.routes {
		spec := &j.t.routes[i]
		why, blame := j.route(spec, ready, previous.announces(spec.prefix))
		routes[i] = Route{
			Prefix: spec.prefix, Announce: why.Keeps(), Why: why, Blame: blame, Communities: spec.communities,
		}
	}
	return routes
}

// announces reports whether the plan, which may be nil, announces a prefix.
func (p *Plan) announces(prefix netip.Prefix) bool {
	return p != nil && slices.ContainsFunc(p.Routes, func(r Route) bool { return r.Announce && r.Prefix == prefix })
}

// route returns ReasonNone or ReasonOrderedUp if the prefix is to be announced, else why not.
//
// To begin, it takes positive evidence (or an order) that every required service works here;
// to end, positive evidence (or an order) that one does not. What other sites say of our VIPs counts for neither:
// when the links between the sites are cut, each goes on announcing.
func (j *judgement) route(spec *routeSpec, ready, announced bool) (why Reason, blame string) {
	switch {
	case spec.why != ReasonNone:
		return spec.why, ""
	case !ready:
		return ReasonNotReady, ""
	}
	index, blame := j.orders.atRoute(j.t, spec)
	switch j.orders.order(index) {
	case health.OrderDown:
		return ReasonOrderedDown, blame
	case health.OrderDrain:
		return ReasonDrained, blame
	case health.OrderUp:
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
	return ReasonNone, ""
}

// pool returns ReasonNone if a service works at this node's site, by evidence or order, else why not.
func (j *judgement) pool(service int) Reason {
	s := &j.t.Services[service]
	if s.Home < 0 || len(s.Sites[s.Home].Backends) == 0 {
		return ReasonNoPool
	}
	home := &s.Sites[s.Home]
	why := j.evidence(home.Backends)
	if j.orders.order(j.orders.atPlace(place{service, s.Home}, home.Site)) == health.OrderUp && why != ReasonDrained && why != ReasonOrderedDown {
		return ReasonNone
	}
	if why == ReasonNone && j.unreached(home.Backends) {
		return ReasonUnreachedHere
	}
	return why
}

// unreached reports whether this node's own probes find every backend down that is not out or up by order.
// Asked only while the site's verdict has one up, so another node serves: this
// one stays out of the way, and the prefix is still announced at the site.
func (j *judgement) unreached(backends []int) bool {
	if j.own == nil {
		return false
	}
	for _, target := range backends {
		switch j.orders.order(j.orders.atBackend(target)) {
		case health.OrderUp:
			return false
		case health.OrderDown, health.OrderDrain:
			continue
		}
		if j.own[target] != health.StatusDown {
			return false
		}
	}
	return true
}

// evidence judges a pool for announcing: ReasonNone if a backend is measured or ordered
// up, ReasonNoEvidence if none is but one may be, else why all are out.
func (j *judgement) evidence(backends []int) Reason {
	var found [reasonCount]bool
	for _, target := range backends {
		v := j.verdict(target)
		order := j.orders.order(j.orders.atBackend(target))
		switch {
		case order == health.OrderDown:
			found[ReasonOrderedDown] = true
		case order == health.OrderDrain:
			found[ReasonDrained] = true
		case order == health.OrderUp:
			return ReasonNone
		case v.Status == health.StatusDown:
		case j.assumedBackend(target):
			found[ReasonAssumedDown] = true
		case v.Status == health.StatusUp && !v.Restored:
			return ReasonNone
		default:
			found[ReasonNoEvidence] = true
		}
		found[ReasonBackendDown] = found[ReasonBackendDown] || order == health.OrderNone && v.Status == health.StatusDown
	}
	for _, why := range [...]Reason{ReasonNoEvidence, ReasonAssumedDown} {
		if found[why] {
			return why
		}
	}
	switch {
	case found[ReasonBackendDown]:
		return ReasonBackendsDown
	case found[ReasonDrained]:
		return ReasonDrained
	default:
		return ReasonOrderedDown
	}
}
