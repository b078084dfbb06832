package steer

import (
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/health"
)

// orders is the operators' standing orders on one topology. The nil *orders has none.
//
// Several orders may cover one thing: a backend is covered by those on itself, its
// pool, its service and its site. The rule is total: DOWN wins over DRAIN, DRAIN over UP,
// whatever their scopes. So a narrow order may take out more than a wide one says, and an
// UP never brings back what another order took out.
type orders struct {
	list []health.Override
	// The rest are indices into list plus 1, 0 for none.
	sites    []int         // by index in Config.Sites
	services []int         // by index in Topology.Services
	pools    map[place]int // a service at a site
	backends map[int]int   // by target
	prefixes map[netip.Prefix]int
}

// A place is a position of a service.
type place struct{ service, position int }

// newOrders finds what the overrides speak of; those on nothing are passed over.
func newOrders(t *Topology, list []health.Override) *orders {
	if len(list) == 0 {
		return nil
	}
	o := &orders{
		list: list, sites: make([]int, len(t.Config.Sites)), services: make([]int, len(t.Services)),
		pools: make(map[place]int), backends: make(map[int]int), prefixes: make(map[netip.Prefix]int),
	}
	for i := range list {
		if list[i].Order == health.OrderNone || list[i].Order > health.OrderDrain {
			continue
		}
		where, ok := t.find(list[i].Scope)
		if !ok {
			continue
		}
		switch list[i].Scope.Kind {
		case health.ScopeSite:
			o.sites[where.site] = i + 1
		case health.ScopeService:
			o.services[where.service] = i + 1
		case health.ScopePool:
			o.pools[where.place] = i + 1
		case health.ScopeBackend:
			o.backends[where.target] = i + 1
		case health.ScopePrefix:
			o.prefixes[list[i].Scope.Prefix] = i + 1
		}
	}
	return o
}

// severity orders the orders: the one that takes most away wins.
func severity(o health.Order) int {
	switch o {
	case health.OrderUp:
		return 1
	case health.OrderDrain:
		return 2
	case health.OrderDown:
		return 3
	}
	return 0
}

// strictest returns the severest of the orders at these indices, of equals the first; 0 for none.
func (o *orders) strictest(indices ...int) int {
	best := 0
	for _, i := range indices {
		if i != 0 && (best == 0 || severity(o.list[i-1].Order) > severity(o.list[best-1].Order)) {
			best = i
		}
	}
	return best
}

// order returns the order at an index plus 1.
func (o *orders) order(i int) health.Order {
	if o == nil || i == 0 {
		return health.OrderNone
	}
	return o.list[i-1].Order
}

// override returns the register at an index plus 1.
func (o *orders) override(i int) (health.Override, bool) {
	if o == nil || i == 0 {
		return health.Override{}, false
	}
	return o.list[i-1], true
}

// atPlace returns the index plus 1 of what is ordered of a service at a site, the narrowest of equals.
func (o *orders) atPlace(at place, site int) int {
	if o == nil {
		return 0
	}
	pool := 0
	if len(o.pools) > 0 {
		pool = o.pools[at]
	}
	return o.strictest(pool, o.services[at.service], o.sites[site])
}

// atBackend returns the index plus 1 of what is ordered of a backend itself.
func (o *orders) atBackend(target int) int {
	if o == nil || len(o.backends) == 0 {
		return 0
	}
	return o.backends[target]
}

// atRoute returns the index plus 1 of what is ordered of a prefix at this node, as atPrefix does; blame
// is the service that the order is on, "" if it is on none.
func (o *orders) atRoute(t *Topology, spec *routeSpec) (index int, blame string) {
	index = o.atPrefix(t, spec, t.SelfSite)
	if order, ok := o.override(index); ok {
		blame = order.Scope.Service
	}
	return index, blame
}

// atPrefix returns the index plus 1 of what is ordered of a prefix at a site: of the prefix,
// of the site, of the required services there. Only the prefix itself can be
// ordered up; the others count when they take out.
func (o *orders) atPrefix(t *Topology, spec *routeSpec, site int) (index int) {
	if o == nil {
		return 0
	}
	index = o.prefixes[spec.prefix]
	if at := o.sites[site]; o.strictest(index, at) != index && o.order(at) != health.OrderUp {
		index = at
	}
	for _, i := range spec.requires {
		position := slices.IndexFunc(t.Services[i].Sites, func(ss ServiceSite) bool { return ss.Site == site })
		if position < 0 {
			continue
		}
		pool := o.strictest(o.pools[place{i, position}], o.services[i])
		if o.order(pool) != health.OrderUp && o.strictest(index, pool) != index {
			index = pool
		}
	}
	return index
}

// equal reports whether both order the same, whoever gave the orders.
func (o *orders) equal(p *orders) bool {
	if o == nil || p == nil {
		return o == p
	}
	return slices.EqualFunc(o.list, p.list, func(a, b health.Override) bool { return a.Scope == b.Scope && a.Order == b.Order })
}

// SiteOrder returns the order that holds for a service at a position of Service.Sites: the
// severest (DOWN, DRAIN, UP) of those on its pool, the service and the site, of equals the
// narrowest. ok is false if there is none.
func (p *Plan) SiteOrder(service, position int) (order health.Override, ok bool) {
	return p.orders.override(p.orders.atPlace(place{service, position}, p.Topology.Services[service].Sites[position].Site))
}

// BackendOrder returns the order on a backend itself, by its index in ServiceSite.Backends.
func (p *Plan) BackendOrder(service, position, backend int) (order health.Override, ok bool) {
	return p.orders.override(p.orders.atBackend(p.Topology.Services[service].Sites[position].Backends[backend]))
}

// RouteOrder returns the order that holds for a route of Plan.Routes, by its
// index: on the prefix, or one that takes out this site or a required service here.
func (p *Plan) RouteOrder(route int) (order health.Override, ok bool) {
	index, _ := p.orders.atRoute(p.Topology, &p.Topology.routes[route])
	return p.orders.override(index)
}
