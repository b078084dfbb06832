package steer

import (
	"math"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
)

// A profile is one distinct pair of a policy and a list of sites. Its chain is
// a lexicographic ordering: each step only refines what the steps before left tied.
type profile struct {
	sites  []int  // indices into Config.Sites, by position
	steps  []step // all but weighted
	policy []config.Policy
	// weights by position, from a final weighted step; nil without one.
	weights []uint16
	// byName is the rank of each position in the order of site names, the last
	// tie-break; named is its inverse.
	byName, named []uint16
	// placed: some step depends on where the client is.
	placed bool
	// orders is every distinct order of the profile over all classes. Only
	// classify adds to it.
	orders []order
	// sums are the hashes of orders, index finds orders by hash once they are
	// many; both nil after compiling.
	sums  []uint64
	index map[uint64][]uint32
}

// An order is the preference for one place: positions, best first, in groups.
// The positions of a group share the answers by weight; without a weighted
// step every group is one position.
type order struct {
	positions []uint16
	ends      []uint16 // the end of each group in positions; nil = each position is a group
}

// groups returns the number of groups.
func (o *order) groups() int {
	if o.ends == nil {
		return len(o.positions)
	}
	return len(o.ends)
}

// group returns the positions of group g.
func (o *order) group(g int) []uint16 {
	if o.ends == nil {
		return o.positions[g : g+1]
	}
	start := uint16(0)
	if g > 0 {
		start = o.ends[g-1]
	}
	return o.positions[start:o.ends[g]]
}

func (o *order) equal(p *order) bool {
	return slices.Equal(o.positions, p.positions) && slices.Equal(o.ends, p.ends)
}

func (o *order) clone() order {
	return order{positions: slices.Clone(o.positions), ends: slices.Clone(o.ends)}
}

// A step gives each site a value for a place; smaller is better.
type step struct {
	kind config.PolicyKind
	// fixed is the ranking of a failover step.
	fixed *ranking
	// rules, for geo with rules: the ranking for each place named.
	rules map[where]*ranking
}

// A ranking is an operator's list of sites: the place in the list for each
// position of a profile.
type ranking struct {
	values  []uint16
	unnamed uint16 // the value of sites that are not in the list: its length
}

// The values of a bare geo step.
const (
	tierCountry uint16 = iota
	tierContinent
	tierRest
)

// where is a parsed GeoRule.Where.
type where struct {
	kind whereKind
	text string
}

type whereKind uint8

const (
	whereDefault whereKind = iota
	whereContinent
	whereCountry
	whereRegion // "US-CA"
	whereNetwork
)

func parseWhere(text string) where {
	switch {
	case text == "default":
		return where{kind: whereDefault}
	case strings.HasPrefix(text, "continent:"):
		return where{whereContinent, strings.ToUpper(text[len("continent:"):])}
	case strings.HasPrefix(text, "network:"):
		return where{whereNetwork, text[len("network:"):]}
	case strings.Contains(text, "-"):
		return where{whereRegion, strings.ToUpper(text)}
	default:
		return where{whereCountry, strings.ToUpper(text)}
	}
}

// newProfile compiles a policy for the sites of a service.
func newProfile(cfg *config.Config, policy []config.Policy, sites []int) profile {
	p := profile{sites: sites, policy: policy, byName: make([]uint16, len(sites)), named: make([]uint16, len(sites))}
	positions := make(map[string]uint16, len(sites))
	names := make([]string, len(sites))
	for i, site := range sites {
		names[i] = cfg.Sites[site].Name
		positions[names[i]] = uint16(i)
	}
	slices.Sort(names)
	for rank, name := range names {
		p.byName[positions[name]] = uint16(rank)
		p.named[rank] = positions[name]
	}
	// listed gives listed sites their place in the list and the others the place after it.
	listed := func(list []string) *ranking {
		r := &ranking{values: make([]uint16, len(sites)), unnamed: uint16(len(list))}
		for i := range r.values {
			r.values[i] = r.unnamed
		}
		for rank, name := range slices.Backward(list) {
			if i, ok := positions[name]; ok {
				r.values[i] = uint16(rank)
			}
		}
		return r
	}
	for _, pol := range policy {
		st := step{kind: pol.Kind}
		switch pol.Kind {
		case config.PolicyWeighted:
			p.weights = make([]uint16, len(sites))
			for i := range p.weights {
				p.weights[i] = 1
			}
			for _, w := range pol.Weights {
				if i, ok := positions[w.Site]; ok {
					p.weights[i] = uint16(min(max(w.Weight, 0), math.MaxUint16))
				}
			}
			continue
		case config.PolicyFailover:
			st.fixed = listed(pol.Order)
		case config.PolicyGeo:
			p.placed = len(sites) > 1
			if len(pol.Rules) > 0 {
				st.rules = make(map[where]*ranking, len(pol.Rules))
				for _, rule := range slices.Backward(pol.Rules) { // the first of equal rules wins
					st.rules[parseWhere(rule.Where)] = listed(rule.Sites)
				}
			}
		default:
			p.placed = len(sites) > 1
		}
		p.steps = append(p.steps, st)
	}
	return p
}

// A vantage is what the bare steps need to know of a place, computed once per
// place and shared by every profile. Indexed like Config.Sites.
type vantage struct {
	place geo.Place
	tiers []uint16
	km    []uint16 // whole kilometres; all 0 from an unknown point
}

func newVantage(sites []config.Site, place geo.Place) *vantage {
	v := &vantage{place: place, tiers: make([]uint16, len(sites)), km: make([]uint16, len(sites))}
	for i := range sites {
		at := &sites[i].Location
		switch {
		case place.Country != "" && place.Country == at.Country:
			v.tiers[i] = tierCountry
		case place.Continent != "" && place.Continent == at.Continent:
			v.tiers[i] = tierContinent
		default:
			v.tiers[i] = tierRest
		}
		if !place.Point.IsZero() && !at.Point.IsZero() {
			v.km[i] = uint16(math.Round(geo.Distance(place.Point, at.Point)))
		}
	}
	return v
}

// rule returns the ranking of the most specific rule for a place, and the rule
// itself; nil if none matches.
func (st *step) rule(place geo.Place) (*ranking, where) {
	candidates := [...]where{
		{whereNetwork, place.Network},
		{whereRegion, place.Country + "-" + place.Region},
		{whereCountry, place.Country},
		{whereContinent, place.Continent},
		{kind: whereDefault},
	}
	for _, w := range candidates {
		if r, ok := st.rules[w]; ok {
			return r, w
		}
	}
	return nil, where{}
}

// column returns the values of a step for a place, indexed by position, or
// like Config.Sites if bySite; nil if all sites are tied.
func (st *step) column(v *vantage) (values []uint16, bySite bool) {
	ranked := st.fixed
	if st.rules != nil {
		ranked, _ = st.rule(v.place)
	}
	switch {
	case ranked != nil:
		return ranked.values, false
	case st.rules != nil:
		return nil, false // no rule for this place
	case st.kind == config.PolicyNearest:
		return v.km, true
	default:
		return v.tiers, true
	}
}

// value returns a step's value for the site at a position.
func (p *profile) value(st *step, v *vantage, position uint16) uint16 {
	values, bySite := st.column(v)
	switch {
	case values == nil:
		return 0
	case bySite:
		return values[p.sites[position]]
	default:
		return values[position]
	}
}

// A scratch is the memory that orderFor works in, to be used again.
type scratch struct {
	keys, sorted []uint64
	order        order
}

// orderFor runs the whole chain for one place. The result lies in tmp.
//
// Each site gets one number that sorts as the chain orders: the values of the
// steps, 16 bits each, then a bit for weight 0, then the rank of its name.
func (p *profile) orderFor(v *vantage, tmp *scratch) *order {
	const nameBits = 15 // MaxSites fits
	keys := slices.Grow(tmp.keys[:0], len(p.sites))[:len(p.sites)]
	tmp.keys = keys
	clear(keys)
	for i := range p.steps {
		if i > 2 {
			tmp.rank() // make room: 48 bits are taken
		}
		p.fold(&p.steps[i], v, keys)
	}
	for i := range keys {
		keys[i] <<= 1
		if p.weights != nil && p.weights[i] == 0 {
			keys[i]++
		}
		keys[i] = keys[i]<<nameBits | uint64(p.byName[i])
	}
	slices.Sort(keys)
	o := &tmp.order
	o.positions, o.ends = o.positions[:0], nil
	for _, key := range keys {
		o.positions = append(o.positions, p.named[key&(1<<nameBits-1)])
	}
	if p.weights == nil {
		return o
	}
	o.ends = make([]uint16, 0, len(p.sites))
	for i := 1; i <= len(keys); i++ {
		if i == len(keys) || keys[i]>>nameBits != keys[i-1]>>nameBits {
			o.ends = append(o.ends, uint16(i))
		}
	}
	return o
}

// fold appends 16 bits, the step's value, to the key of each position.
func (p *profile) fold(st *step, v *vantage, keys []uint64) {
	values, bySite := st.column(v)
	switch {
	case values == nil:
		for i := range keys {
			keys[i] <<= 16
		}
	case bySite:
		for i, site := range p.sites {
			keys[i] = keys[i]<<16 | uint64(values[site])
		}
	default:
		for i := range keys {
			keys[i] = keys[i]<<16 | uint64(values[i])
		}
	}
}

// rank replaces the keys by their ranks, equal keys by equal ranks: 14 bits.
func (tmp *scratch) rank() {
	tmp.sorted = append(tmp.sorted[:0], tmp.keys...)
	slices.Sort(tmp.sorted)
	tmp.sorted = slices.Compact(tmp.sorted)
	for i, key := range tmp.keys {
		rank, _ := slices.BinarySearch(tmp.sorted, key)
		tmp.keys[i] = uint64(rank)
	}
}

// weight returns the weight of a position within its group, at least 1: sites
// of weight 0 are only ever grouped with their like, and then share equally.
func (p *profile) weight(position uint16) uint64 {
	if p.weights == nil {
		return 1
	}
	return uint64(max(p.weights[position], 1))
}
