package steer

import (
	"net/netip"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// A Topology is a config compiled for deciding: names have become indices,
// places have become classes with an order of sites. Immutable.
type Topology struct {
	// Config is what it was compiled from.
	Config *config.Config
	// Self is the node that decides; SelfSite is the index of its site, −1 when
	// compiled without a node (validate, explain from a file).
	Self     string
	SelfSite int
	// Geo is the database that Table was compiled from.
	Geo *geo.Database
	// Table maps a client address to its class and the ECS scope.
	Table *geo.Table
	// Layout lists every target of the fleet.
	Layout *health.Layout
	// Fleet says which observers exist and at which site.
	Fleet health.Fleet
	// Services is in the order of Config.Services.
	Services []Service

	names    map[string]*config.Name // by FQDN, lower case
	services map[string]int
	sites    map[string]int // index into Config.Sites
	profiles []profile      // by Service.Profile
	places   []geo.Place    // a representative place per class
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
}

// A ServiceSite is a service at one site.
type ServiceSite struct {
	Site int // index into Config.Sites
	// V4 and V6 are the VIPs, in file order.
	V4, V6 []netip.Addr
	// Backends and VIPs are indices into Layout.Targets. Backends is in the
	// order of config.Pool.Backends.
	Backends, VIPs []int
}

// A Probe is one check that a node has to run.
type Probe struct {
	Target health.Target
	Check  config.Check
	// Host overrides the Host header and SNI of the check where it names none (VIP probes of routed
	// services: the route's host).
	Host string
}
