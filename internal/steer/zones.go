package steer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/internal/config"
)

// A ZoneSplit is how a node shares the work of a pool between its own availability zone and the rest of the site. It is
// another one in each zone.
type ZoneSplit struct {
	// Zone is this node's.
	Zone string
	// Stays is the share of this node's work that its zone's backends get, 0 … 1.
	Stays float64
	// Near says which backends are in the zone, by index in the Pool.
	Near []bool
	// Far is how much of the rest each backend gets, relative to the others; 0 for those in the zone, and in zones that have
	// no more than they need for themselves.
	Far []float64
}

// Zones returns how this node splits the work of a service's own pool by availability zones; nil where its site, or the pool, has
// none. Work stays in a zone as far as the zone's share of the pool's weight, of what is in use, covers the
// zone's share of the site's nodes, those that are heard of; the rest goes to the zones that have more than they need, by how much
// more. Routers spread clients evenly over the nodes, so every backend of the site gets what its weight is due all the same.
func (p *Plan) Zones(service int) *ZoneSplit {
	pool, plan, ok := p.Pool(service)
	if !ok || p.Topology.SelfSite < 0 || !slices.ContainsFunc(pool.Backends, func(b config.Backend) bool { return b.Zone != "" }) {
		return nil
	}
	split := &ZoneSplit{Near: make([]bool, len(pool.Backends)), Far: make([]float64, len(pool.Backends))}
	site := &p.Topology.Config.Sites[p.Topology.SelfSite]
	nodes := make(map[string]float64)
	var all float64
	for _, n := range site.Nodes {
		if n.Name == p.Topology.Self {
			split.Zone = n.Zone
		}
		if n.Name == p.Topology.Self || p.heard(n.Name) {
			nodes[n.Zone]++
			all++
		}
	}
	if split.Zone == "" {
		return nil
	}
	weights := make(map[string]float64)
	var sum float64
	for i, b := range pool.Backends {
		split.Near[i] = b.Zone == split.Zone
		if plan.Backends[i].Active {
			w := float64(p.Weight(service, i))
			weights[b.Zone] += w
			sum += w
		}
	}
	if sum == 0 {
		return nil
	}
	const rounding = 1e-9
	if split.Stays = (weights[split.Zone] / sum) / (nodes[split.Zone] / all); split.Stays > 1-rounding {
		split.Stays = 1
		return split
	}
	for i, b := range pool.Backends {
		if spare := weights[b.Zone]/sum - nodes[b.Zone]/all; spare > rounding && plan.Backends[i].Active {
			split.Far[i] = float64(p.Weight(service, i)) * spare / weights[b.Zone]
		}
	}
	return split
}

// heard reports whether a node has been heard of lately; while nobody knows it is taken to be.
func (p *Plan) heard(node string) bool {
	if p.View == nil || len(p.View.Witnesses) == 0 {
		return true
	}
	for i := range p.View.Witnesses {
		if w := &p.View.Witnesses[i]; w.Name == node {
			return w.Fresh
		}
	}
	return true
}

// Text says what becomes of the work: "zone a: 50 % stays, the rest to zones b, c".
func (s *ZoneSplit) Text(pool *config.Pool) string {
	if s.Stays == 1 {
		return "zone " + s.Zone + ": all stays"
	}
	var others []string
	for i, b := range pool.Backends {
		name := b.Zone
		if name == "" {
			name = "none"
		}
		if s.Far[i] > 0 && !slices.Contains(others, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return fmt.Sprintf("zone %s: %.0f %% stays, the rest to %s", s.Zone, 100*s.Stays, strings.Join(others, ", "))
}

// zones says how this node splits the work of its own pool.
func (d details) zones(position int) string {
	split := d.p.Zones(d.service())
	if position != d.s.Home || split == nil {
		return ""
	}
	return split.Text(d.s.Sites[position].Pool)
}
