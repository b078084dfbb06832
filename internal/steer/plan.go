package steer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// Facts are what a node knows besides verdicts.
type Facts struct {
	// Now is the time of the decision. It is copied into the plan and compared with the times of
	// verdicts, never measured with. While it is zero no removal is held.
	Now time.Time
	// Ready: this node's listeners (DNS, L4, L7) are open. Stopping: it is about to
	// stop, so its routes become less preferred before they go with Ready.
	Ready, Stopping bool
	// Unpeered: none of this node's BGP sessions is established, so what it announces nobody hears.
	Unpeered bool
	// Heard is when the newest report of each site was made, by this node's clock, indexed like
	// Config.Sites; nil = just now. Whoever withdraws a shared prefix needs word of later than its wish.
	Heard []time.Time
	// Stalled is until when this node holds its routes because it stood still a moment ago (frozen, starved): what it
	// found and heard before is of another time. Zero = it did not.
	Stalled time.Time
	// Settled asks what comes of it in the end: as if every wait for a route were over. What-if.
	Settled bool
	// Own is what this node's own probes say, indexed like Topology.Layout.Targets; nil
	// when that is not known. It matters for what this node announces and nothing else.
	Own []health.Status
	// Doors is whether this node answers at each of Topology.Doors, as it finds when it asks
	// itself through the VIP; nil = not known.
	Doors []health.Status
	// Loads is the traffic at the addresses of each of Topology.Prefixes on this node; nil = not known.
	Loads []Load
	// Pools is how many connections each of Topology.Services has on this node; nil = not known.
	Pools []int
	// Missing are VIPs that this node keeps on an interface and that are not there, sorted.
	Missing []netip.Addr
	// Overrides are the operators' standing orders, sorted by scope; not to be changed after. Until
	// is not looked at. Orders on what does not exist are ignored: Topology.UnknownScopes lists them.
	Overrides []health.Override
	// Weights are shares of the configured weight that this node's backends ask
	// for, in percent, indexed like Topology.Layout.Targets; nil = 100 for all.
	// They matter for what this node forwards and nothing else.
	Weights []uint8
	// Current is when this node became current: when it had started, or had left a minority, and
	// heard the others. What it found down within 5 s of that it adopts; it spends no removal
	// budget on it. Zero = long ago.
	Current time.Time
	// AssumeDown are sites or backends ("fra", "10.0.1.10:8080") to be taken as down: what-if.
	// Decide ignores what names nothing; ask Topology.CheckAssumptions first.
	AssumeDown []string
}

// A Load is the traffic at the addresses of a prefix, or of a service, on one node.
type Load struct {
	// Open is how many connections and UDP sessions there are.
	Open int
	// Rate is how many begin in a second, DNS queries there included.
	Rate float64
}

// A Plan is the immutable result of one decision. DNS answers, routes and pools
// all come from it. Any number of goroutines may use it.
type Plan struct {
	// Generation counts the plans of this process from 1 (previous + 1).
	Generation uint64
	Topology   *Topology
	// View and Facts are what was decided on; Facts.AssumeDown is a sorted copy.
	View  *health.View
	Facts Facts
	// Services is indexed like Topology.Services.
	Services []ServicePlan
	// Routes are this node's, sorted by prefix; nil without a node.
	Routes []Route
	// Pools are the services that are drained at this node's site, in the order of Services.
	Pools []DrainedPool
	// Recheck is when time alone could change the plan (a budget opening); zero if nothing is pending.
	Recheck time.Time
	// Distrust is until when removals are not applied because at least half of all
	// sites seemed to fail at once; zero when that is not so, or over.
	Distrust time.Time

	orders *orders     // Facts.Overrides on this topology; nil = none
	held   []time.Time // what distrust found: until when by site; nil = nothing
}

// A ServicePlan is one service's decision.
type ServicePlan struct {
	// Sites is indexed like Service.Sites.
	Sites []SitePlan
	// FailOpen: for some family no site was fit, so sites that are not are used.
	FailOpen bool
	// Degraded: a site or an address is out, or in although not fit. Answers then live half as long.
	Degraded bool
	// Recheck is when time alone could change this: when the removal of a site that is
	// held in is due. Zero = never. It goes by this node's clock, so nodes differ in it.
	Recheck time.Time
}

// A SitePlan is a service at one site.
type SitePlan struct {
	// Eligible: DNS may answer with this site's VIP, of either family.
	Eligible bool
	// Why is ReasonNone when eligible on its merits, a reason that Keeps when
	// eligible all the same, else the reason of the exclusion.
	Why Reason
	// V4 and V6 are the same for each family.
	V4, V6 AnswerPlan
	// Backends is indexed like ServiceSite.Backends.
	Backends []BackendPlan
}

// An AnswerPlan is a service's VIPs of one family at one site.
type AnswerPlan struct {
	// Addresses are what DNS may answer, in file order; empty if the site must not be
	// answered for this family. An address that is down is left out while another is not.
	Addresses []netip.Addr
	// Why as in SitePlan.
	Why Reason
}

// answer returns the plan for one family.
func (s *SitePlan) answer(ipv6 bool) *AnswerPlan {
	if ipv6 {
		return &s.V6
	}
	return &s.V4
}

// Panics reports whether backends that are down get work, because so few are up.
func (s *SitePlan) Panics() bool {
	return slices.ContainsFunc(s.Backends, func(b BackendPlan) bool { return b.Why == ReasonPanic })
}

// A BackendPlan is one backend's decision.
type BackendPlan struct {
	Active bool // takes new connections
	// Why is ReasonNone when active on its merits, a reason that Keeps when active all the
	// same, else the reason of the exclusion. ReasonOrderedDown: existing connections need not be waited for.
	Why Reason
}

// Pool returns the pool of a service at this node's own site and its plan
// (SitePlan.Backends is indexed like Pool.Backends); ok is false if it has none here.
func (p *Plan) Pool(service int) (pool *config.Pool, plan *SitePlan, ok bool) {
	if service < 0 || service >= len(p.Services) {
		return nil, nil, false
	}
	s := &p.Topology.Services[service]
	if s.Home < 0 || s.Sites[s.Home].Pool == nil {
		return nil, nil, false
	}
	return s.Sites[s.Home].Pool, &p.Services[service].Sites[s.Home], true
}

// Addresses returns what DNS answers for a service at a position of
// Service.Sites, as Pick returns it. Shared; not to be changed. No allocation.
func (p *Plan) Addresses(service, position int, ipv6 bool) []netip.Addr {
	if service < 0 || service >= len(p.Services) || position < 0 || position >= len(p.Services[service].Sites) {
		return nil
	}
	return p.Services[service].Sites[position].answer(ipv6).Addresses
}

// TTL returns the TTL of a steered name in seconds, at least 1: the configured
// one while every site of the service is healthy, half of it while one is
// excluded or kept in although it is not, so that clients come back sooner to what
// is about to change. Anycast names do not change with health.
func (p *Plan) TTL(name *config.Name) uint32 {
	ttl := uint32(name.TTL / time.Second)
	if i, ok := p.Topology.Service(name.Service); ok && !name.Anycast && p.Services[i].Degraded {
		ttl /= 2
	}
	return max(ttl, 1)
}

func (s *ServicePlan) equal(o *ServicePlan) bool {
	return s.FailOpen == o.FailOpen && s.Degraded == o.Degraded && s.Recheck.Equal(o.Recheck) && slices.EqualFunc(s.Sites, o.Sites, SitePlan.equal)
}

func (s SitePlan) equal(o SitePlan) bool {
	return s.Eligible == o.Eligible && s.Why == o.Why && s.V4.equal(o.V4) && s.V6.equal(o.V6) &&
		slices.Equal(s.Backends, o.Backends)
}

func (a AnswerPlan) equal(o AnswerPlan) bool {
	return a.Why == o.Why && slices.Equal(a.Addresses, o.Addresses)
}
