package steer

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// A routeSpec is a config.Prefix as the deciding node's site sees it.
type routeSpec struct {
	config      *config.Prefix
	prefix      netip.Prefix
	communities []uint32
	requires    []int // indices into Services, in the order of config.Prefix.Requires
	doors       []int // indices into Topology.doors: where this node has to answer
	// why is ReasonNone if the site may announce the prefix, else why it never does.
	why Reason
	// standby, hold: this site is one, and holds the prefix back. localOnly: its routers are to keep it to themselves.
	standby, hold, localOnly bool
	// ttl is the longest that a resolver keeps an answer that leads to a required service at this site.
	ttl time.Duration
	// sites are those that may announce it, in the order of Config.Sites.
	sites []routeSite
}

// A routeSite is a site as the others know it: by what it states of a prefix.
type routeSite struct {
	site          int // index into Config.Sites
	standby       bool
	units         int
	serves, route int // indices into Layout.Targets
}

// routeTargets lists what sites state of the prefixes.
func (t *Topology) routeTargets() (targets []health.Target) {
	for i := range t.Config.BGP.Prefixes {
		p := &t.Config.BGP.Prefixes[i]
		for _, site := range p.Sites {
			targets = append(targets, health.PrefixTarget(health.KindServes, p.Prefix, site), health.PrefixTarget(health.KindRoute, p.Prefix, site))
		}
	}
	return targets
}

// compileRoutes resolves the prefixes for the node's own site. References are
// checked also without a node.
func (t *Topology) compileRoutes() error {
	t.indexLeads()
	var errs []error
	for i := range t.Config.BGP.Prefixes {
		p := &t.Config.BGP.Prefixes[i]
		spec := routeSpec{config: p, prefix: p.Prefix}
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
		t.placeRoute(&spec)
		t.routes = append(t.routes, spec)
	}
	slices.SortStableFunc(t.routes, func(a, b routeSpec) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	return errors.Join(errs...)
}

// placeRoute fills in what a prefix is to this node's site.
func (t *Topology) placeRoute(spec *routeSpec) {
	p, bgp, self := spec.config, &t.Config.BGP, t.Config.Sites[t.SelfSite].Name
	if !slices.ContainsFunc(bgp.Peers, func(p config.Peer) bool { return p.Site == self }) {
		spec.why = ReasonNoPeers
	}
	if len(p.Sites) > 0 && !slices.Contains(p.Sites, self) {
		spec.why = ReasonSiteNotAllowed
	}
	spec.standby = slices.Contains(p.Standby, self)
	spec.hold = spec.standby && !p.StandbyAnnounce
	spec.localOnly = slices.Contains(p.LocalOnly, self)
	t.addDoors(spec)
	for _, service := range spec.requires {
		spec.ttl = max(spec.ttl, t.leads[service])
	}
	for _, name := range p.Sites {
		site := routeSite{site: t.sites[name], standby: slices.Contains(p.Standby, name), units: p.CapacityOf(name)}
		site.serves, _ = t.Layout.Index(health.PrefixTarget(health.KindServes, p.Prefix, name))
		site.route, _ = t.Layout.Index(health.PrefixTarget(health.KindRoute, p.Prefix, name))
		spec.sites = append(spec.sites, site)
	}
	slices.SortFunc(spec.sites, func(a, b routeSite) int { return a.site - b.site })
}

// leadsHere reports whether a service has a VIP at this node's site.
func (t *Topology) leadsHere(service int) bool {
	s := &t.Services[service]
	return s.Home >= 0 && len(s.Sites[s.Home].V4)+len(s.Sites[s.Home].V6) > 0
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
