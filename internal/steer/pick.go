package steer

import "github.com/pharos-lb/pharos/geo"

// Pick chooses the site that a client of class gets for a service: the
// position in Service.Sites, or −1 when no site has an address of the family
// (then the answer is NODATA, whatever the health). random (any value, uniform
// over its range) decides between weighted sites. A class that does not exist counts as unknown. No allocation.
func (p *Plan) Pick(service int, class geo.Class, ipv6 bool, random uint32) int {
	if service < 0 || service >= len(p.Services) {
		return -1
	}
	t := p.Topology
	profile := t.Services[service].Profile
	return p.Services[service].pick(&t.profiles[profile], t.order(profile, class), ipv6, random)
}

// pick walks the groups to the first with a usable site.
func (sp *ServicePlan) pick(prof *profile, o *order, ipv6 bool, random uint32) int {
	if o.ends == nil {
		for _, position := range o.positions {
			if len(sp.Sites[position].answer(ipv6).Addresses) > 0 {
				return int(position)
			}
		}
		return -1
	}
	start := uint16(0)
	for _, end := range o.ends {
		group := o.positions[start:end]
		start = end
		total := uint64(0)
		for _, position := range group {
			if len(sp.Sites[position].answer(ipv6).Addresses) > 0 {
				total += prof.weight(position)
			}
		}
		if total == 0 {
			continue
		}
		mark := uint64(random) * total >> 32 // 0 … total−1
		for _, position := range group {
			if len(sp.Sites[position].answer(ipv6).Addresses) == 0 {
				continue
			}
			w := prof.weight(position)
			if mark < w {
				return int(position)
			}
			mark -= w
		}
	}
	return -1
}

// A Share is how likely Pick is to choose a position.
type Share struct {
	Position    int
	Probability float64 // 0 < … ≤ 1
}

// Shares returns every position that Pick can choose for a client of class,
// with its probability, in the order of preference; empty if Pick returns −1.
func (p *Plan) Shares(service int, class geo.Class, ipv6 bool) []Share {
	if service < 0 || service >= len(p.Services) {
		return nil
	}
	t := p.Topology
	profile := t.Services[service].Profile
	return p.Services[service].shares(&t.profiles[profile], t.order(profile, class), ipv6)
}

func (sp *ServicePlan) shares(prof *profile, o *order, ipv6 bool) []Share {
	for g := range o.groups() {
		var shares []Share
		total := 0.0
		for _, position := range o.group(g) {
			if len(sp.Sites[position].answer(ipv6).Addresses) > 0 {
				w := float64(prof.weight(position))
				shares = append(shares, Share{int(position), w})
				total += w
			}
		}
		for i := range shares {
			shares[i].Probability /= total
		}
		if len(shares) > 0 {
			return shares
		}
	}
	return nil
}
