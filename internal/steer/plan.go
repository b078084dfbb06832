package steer

import (
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// Facts are what a node knows besides verdicts.
type Facts struct {
	// Now is the time of the decision. It is copied into the plan and compared, never measured with.
	Now time.Time
	// Ready: this node's listeners (DNS, L4, L7) are open.
	Ready bool
	// AssumeDown are sites or backends ("fra", "10.0.1.10:8080") to be taken as down: what-if.
	AssumeDown []string
}

// A Plan is the immutable result of one decision. DNS answers, routes and pools
// all come from it.
type Plan struct {
	// Generation counts the plans of this process from 1 (previous + 1).
	Generation uint64
	Topology   *Topology
	// View and Facts are what was decided on.
	View  *health.View
	Facts Facts
	// Services is indexed like Topology.Services.
	Services []ServicePlan
	// Routes are this node's, sorted by prefix; nil without a node.
	Routes []Route
	// Recheck is when time alone could change this plan; zero if never.
	Recheck time.Time
}

// A ServicePlan is one service's decision.
type ServicePlan struct {
	// Sites is indexed like Service.Sites.
	Sites []SitePlan
	// FailOpen: no site was fit, so all are used.
	FailOpen bool
}

// A SitePlan is a service at one site.
type SitePlan struct {
	// Eligible: DNS may answer with this site's VIP.
	Eligible bool
	// Why is ReasonNone when eligible on its merits, ReasonFailOpen when
	// eligible because nothing is, else the reason of the exclusion.
	Why Reason
	// Backends is indexed like ServiceSite.Backends.
	Backends []BackendPlan
}

// A BackendPlan is one backend's decision.
type BackendPlan struct {
	Active bool // takes new connections
	Why    Reason
}

// A Route is one prefix at this node.
type Route struct {
	Prefix   netip.Prefix
	Announce bool
	Why      Reason
	// Blame is the first required service that is not servable here; "" if none.
	Blame string
	// Communities are standard communities, high<<16|low.
	Communities []uint32
}
