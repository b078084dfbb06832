package steer

import (
	"net/netip"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// A Topology is a config compiled for deciding: names have become indices,
// places have become classes with an order of sites. It is immutable; any
// number of goroutines may use it.
type Topology struct {
	// Config is what it was compiled from.
	Config *config.Config
	// Self is the node that decides; SelfSite is the index of its site, −1 when
	// compiled without a node (validate, explain from a file).
	Self     string
	SelfSite int
	// Geo is the database that Table was compiled from; nil without one.
	Geo *geo.Database
	// Table maps a client address to its class and the ECS scope; nil without a
	// database and networks, when every client is at the unknown place.
	Table *geo.Table
	// Layout lists every target of the fleet.
	Layout *health.Layout
	// Fleet says which observers exist and at which site.
	Fleet health.Fleet
	// Services is in the order of Config.Services.
	Services []Service

	names     map[string]*config.Name // by FQDN, lower case
	ancestors map[string]struct{}     // every proper ancestor of a steered name
	services  map[string]int
	sites     map[string]int // index into Config.Sites
	backends  map[netip.AddrPort]struct{}
	vipChecks map[int]vipCheck // how the VIPs of a service are probed, by index in Services
	siteVIPs  [][]siteVIP      // by index in Config.Sites
	owners    []int32          // the service of each target, by index in Layout.Targets; −1 = none
	atlas                      // profiles, classes, orders
	routes    []routeSpec      // of SelfSite, sorted by prefix
	doors     []config.Door    // of this node, for the routes
	leads     []time.Duration  // by service: how long resolvers keep an answer that leads to SelfSite
	words     [][]word         // by service: what sites state of the prefixes that require it
	worded    map[int][]int    // by index in Layout.Targets: the services that such a statement is about
}

// A Service is a config.Service with its sites resolved.
type Service struct {
	Config *config.Service
	// Sites of the service in the order of Config.Sites; positions in this slice are
	// what ServicePlan and orders speak of.
	Sites []ServiceSite
	// Profile numbers the distinct (policy, sites) of the topology.
	Profile int
	// Placed: the answer depends on where the client is; otherwise the ECS scope is 0.
	Placed bool
	// HasA and HasAAAA: some site has a VIP of that family, whatever its health.
	HasA, HasAAAA bool
	// Home is the position of the deciding node's own site, −1 if the service is not there.
	Home int
	// Anycast4 and Anycast6 are the anycast addresses, in file order.
	Anycast4, Anycast6 []netip.Addr
}

// Has reports whether some site has a VIP of the family, whatever its health:
// without one a query for it is NODATA for ever.
func (s *Service) Has(ipv6 bool) bool {
	if ipv6 {
		return s.HasAAAA
	}
	return s.HasA
}

// Anycast returns the anycast addresses of the family, which every site shares.
func (s *Service) Anycast(ipv6 bool) []netip.Addr {
	if ipv6 {
		return s.Anycast6
	}
	return s.Anycast4
}

// A ServiceSite is a service at one site.
type ServiceSite struct {
	Site int // index into Config.Sites
	// Pool is the backends here, nil if the site has only VIPs.
	Pool *config.Pool
	// V4 and V6 are the VIPs, in file order.
	V4, V6 []netip.Addr
	// Backends and VIPs are indices into Layout.Targets. Backends is in the
	// order of config.Pool.Backends. VIPs is the targets of V4, then of V6; empty in a
	// fleet of one site, where nobody outside could probe them.
	Backends, VIPs []int
}

// addresses returns the VIPs of a family and their targets (empty in a fleet of one site).
func (s *ServiceSite) addresses(ipv6 bool) (addrs []netip.Addr, targets []int) {
	addrs, targets = s.V4, s.VIPs
	split := min(len(s.V4), len(s.VIPs))
	if ipv6 {
		return s.V6, targets[split:]
	}
	return addrs, targets[:split]
}

// SiteName returns the name of the site at a position of a service.
func (t *Topology) SiteName(service, position int) string {
	return t.Config.Sites[t.Services[service].Sites[position].Site].Name
}

// Service returns the index of a service by name.
func (t *Topology) Service(name string) (int, bool) { i, ok := t.services[name]; return i, ok }

// Name returns the steered name that answers for an FQDN (lower case, trailing
// dot): itself, or the wildcard at its closest encloser (RFC 4592) as far as
// steered names are concerned; ordinary records, which may also block a
// wildcard, are the zone's business.
func (t *Topology) Name(fqdn string) (*config.Name, bool) {
	if n, ok := t.names[fqdn]; ok {
		return n, true
	}
	if _, exists := t.ancestors[fqdn]; exists { // an empty non-terminal
		return nil, false
	}
	for rest := fqdn; ; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok || after == "" {
			return nil, false
		}
		rest = after
		if n, ok := t.names["*."+rest]; ok {
			return n, true
		}
		_, isName := t.names[rest]
		_, isAncestor := t.ancestors[rest]
		if isName || isAncestor {
			return nil, false // the closest encloser exists and has no wildcard
		}
	}
}

// Locate returns the class of a client and the ECS scope in bits. The scope is
// for services that are Placed; the answers of others have scope 0.
func (t *Topology) Locate(addr netip.Addr) (geo.Class, int) {
	if t.Table == nil {
		return unknownClass, 0
	}
	return t.Table.Lookup(addr)
}
