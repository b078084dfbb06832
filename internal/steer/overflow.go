package steer

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/geo"
)

// An OverflowSite is another site that takes what a node's own pool cannot.
type OverflowSite struct {
	Site      string
	Addresses []netip.Addr // its VIPs that are fit, of both families
}

// Overflow returns where this node forwards what is for a service while its own pool has nobody for
// it, in order of preference: the VIPs of the sites that are named by the service's overflow, or of all in
// the order of their distance, as far as they answer on their merits. One that answers only because something has
// to would hand on what it cannot do either. Nil without overflow, and where the service has no pool.
// It is the same on every node of a site.
func (p *Plan) Overflow(service int) []OverflowSite {
	if service < 0 || service >= len(p.Services) {
		return nil
	}
	s := &p.Topology.Services[service]
	if !s.Config.Overflow.On || s.Home < 0 || s.Sites[s.Home].Pool == nil {
		return nil
	}
	var all []OverflowSite
	for _, position := range p.Topology.overflowOrder(s) {
		plan := &p.Services[service].Sites[position]
		site := OverflowSite{Site: p.Topology.SiteName(service, position)}
		for _, a := range [2]*AnswerPlan{&plan.V4, &plan.V6} {
			if a.Why.onMerits() {
				site.Addresses = append(site.Addresses, a.Addresses...)
			}
		}
		if len(site.Addresses) > 0 {
			all = append(all, site)
		}
	}
	return all
}

// overflowOrder returns the positions of the sites that a service overflows to, most preferred first.
func (t *Topology) overflowOrder(s *Service) []int {
	var order []int
	if to := s.Config.Overflow.To; len(to) > 0 {
		for _, name := range to {
			i := slices.IndexFunc(s.Sites, func(ss ServiceSite) bool { return t.Config.Sites[ss.Site].Name == name })
			if i >= 0 && i != s.Home {
				order = append(order, i)
			}
		}
		return order
	}
	for i := range s.Sites {
		if i != s.Home {
			order = append(order, i)
		}
	}
	here := t.Config.Sites[s.Sites[s.Home].Site].Location.Point
	distance := func(i int) float64 { return geo.Distance(here, t.Config.Sites[s.Sites[i].Site].Location.Point) }
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(distance(a), distance(b)) })
	return order
}

// FleetAddresses returns the addresses of every node, sorted: what comes from them has been
// forwarded once already.
func (t *Topology) FleetAddresses() []netip.Addr {
	var all []netip.Addr
	for i := range t.Config.Sites {
		for _, n := range t.Config.Sites[i].Nodes {
			for _, a := range [2]netip.Addr{n.Address, n.Second} {
				if a.IsValid() {
					all = append(all, a.Unmap())
				}
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}
