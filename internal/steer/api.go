package steer

import (
	"errors"
	"net/netip"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// SKETCH of the package's API: replaced by the real files.

type profile struct{}

// Compile makes the topology. self is a node's name, or "" for none.
func Compile(cfg *config.Config, db *geo.Database, self string) (*Topology, error) {
	return nil, errors.New("sketch")
}

// Probes returns the checks that node runs: its own site's backends and the other sites' VIPs.
func (t *Topology) Probes(node string) []Probe { return nil }

// Service returns the index of a service by name.
func (t *Topology) Service(name string) (int, bool) { i, ok := t.services[name]; return i, ok }

// Name returns the steered name of an FQDN (lower case, exact or by wildcard).
func (t *Topology) Name(fqdn string) (*config.Name, bool) { n, ok := t.names[fqdn]; return n, ok }

// Locate returns the class of a client and the ECS scope in bits.
func (t *Topology) Locate(addr netip.Addr) (geo.Class, int) { return t.Table.Lookup(addr) }

// Decide is the one pure decision. previous may be nil.
func Decide(t *Topology, view *health.View, facts Facts, previous *Plan) *Plan { return nil }

// Pick chooses the site that a client of class gets for a service: the position in Service.Sites, or −1 when no
// site has an address of the family. random (any value) decides between weighted sites. No allocation.
func (p *Plan) Pick(service int, class geo.Class, ipv6 bool, random uint32) int { return -1 }

// Pool returns the site plan of a service at this node's own site and the addresses' config; ok is false if it has none here.
func (p *Plan) Pool(service int) (pool *config.Pool, plan *SitePlan, ok bool) { return nil, nil, false }

// Question is what Explain explains.
type Question struct {
	Name string
	IPv6 bool
	From netip.Addr
	Prefix int // ECS source prefix length; 0 = full
}

// Explanation is the whole trace.
type Explanation struct{}

// Explain traces one answer of a plan.
func Explain(p *Plan, q Question) (*Explanation, error) { return nil, errors.New("sketch") }
