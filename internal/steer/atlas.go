package steer

import (
	"encoding/binary"
	"slices"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
)

// unknownClass is the class of the zero Place; it always exists.
const unknownClass geo.Class = 0

// An atlas is the order of sites for every profile and class of places. It is
// filled while the geo table is compiled and immutable after.
type atlas struct {
	cfg      *config.Config
	profiles []profile   // by Service.Profile
	places   []geo.Place // a representative place per class
	// rows is, for each class, the index in profile.orders for every profile.
	rows []uint32

	reads   placeFields             // what the policies look at
	classes map[geo.Place]geo.Class // by place, reduced to reads
	bySum   map[uint64][]geo.Class  // by hash of the row
	tmp     scratch
}

// placeFields says which fields of a place any policy looks at: places that
// agree on them need not be told apart.
type placeFields struct{ network, region, country, point bool }

// newAtlas numbers the profiles of the services and makes the unknown class.
func newAtlas(cfg *config.Config, services []Service) atlas {
	a := atlas{
		cfg:     cfg,
		classes: make(map[geo.Place]geo.Class),
		bySum:   make(map[uint64][]geo.Class),
	}
	known := make(map[string]int)
	var key []byte
	for i := range services {
		s := &services[i]
		key = appendProfileKey(key[:0], s)
		number, ok := known[string(key)]
		if !ok {
			number = len(a.profiles)
			known[string(key)] = number
			sites := make([]int, len(s.Sites))
			for j := range s.Sites {
				sites[j] = s.Sites[j].Site
			}
			a.profiles = append(a.profiles, newProfile(cfg, s.Config.Policy, sites))
			a.reads.add(s.Config.Policy)
		}
		s.Profile = number
	}
	a.classify(geo.Place{})
	return a
}

func (f *placeFields) add(policy []config.Policy) {
	for _, p := range policy {
		switch p.Kind {
		case config.PolicyNearest:
			f.point = true
		case config.PolicyGeo:
			f.country = true
			for _, rule := range p.Rules {
				switch parseWhere(rule.Where).kind {
				case whereNetwork:
					f.network = true
				case whereRegion:
					f.region = true
				}
			}
		}
	}
}

func (f placeFields) reduce(p geo.Place) geo.Place {
	var r geo.Place
	if f.network {
		r.Network = p.Network
	}
	if f.country {
		r.Country, r.Continent = p.Country, p.Continent
	}
	if f.region {
		r.Region = p.Region
	}
	if f.point {
		r.Point = p.Point
	}
	return r
}

// classify returns the class of a place, a new one if its orders are new. It
// is called one place at a time, while the topology is compiled.
func (a *atlas) classify(place geo.Place) geo.Class {
	place = a.reads.reduce(place)
	if class, ok := a.classes[place]; ok {
		return class
	}
	v := newVantage(a.cfg.Sites, place)
	row := make([]uint32, len(a.profiles))
	for i := range a.profiles {
		p := &a.profiles[i]
		if !p.placed && len(p.orders) > 0 {
			continue // the same order for everybody
		}
		row[i] = p.intern(p.orderFor(v, &a.tmp))
	}
	class := a.merge(place, row)
	a.classes[place] = class
	return class
}

// seal frees what only classify needs.
func (a *atlas) seal() {
	a.classes, a.bySum, a.tmp = nil, nil, scratch{}
	for i := range a.profiles {
		a.profiles[i].sums, a.profiles[i].index = nil, nil
	}
}

// fewOrders is how many orders of a profile are searched one by one.
const fewOrders = 32

// intern returns the index of an order of the profile, adding a copy if it is new.
func (p *profile) intern(o *order) uint32 {
	sum := hashOf(hashOf(hashSeed, o.positions), o.ends)
	if p.index == nil {
		for i := range p.sums {
			if p.sums[i] == sum && p.orders[i].equal(o) {
				return uint32(i)
			}
		}
	}
	for _, i := range p.index[sum] {
		if p.orders[i].equal(o) {
			return i
		}
	}
	number := uint32(len(p.orders))
	p.orders, p.sums = append(p.orders, o.clone()), append(p.sums, sum)
	switch {
	case p.index != nil:
		p.index[sum] = append(p.index[sum], number)
	case len(p.orders) > fewOrders:
		p.index = make(map[uint64][]uint32, 2*fewOrders)
		for i, s := range p.sums {
			p.index[s] = append(p.index[s], uint32(i))
		}
	}
	return number
}

const hashSeed uint64 = 0x9e3779b97f4a7c15

// hashOf adds numbers to a hash. It only narrows a search: what has equal
// hashes is compared.
func hashOf[N uint16 | uint32](sum uint64, numbers []N) uint64 {
	for _, n := range numbers {
		sum = (sum ^ uint64(n)) * 0xff51afd7ed558ccd
		sum ^= sum >> 32
	}
	return sum
}

// merge returns the class with exactly this row, a new one if there is none.
func (a *atlas) merge(place geo.Place, row []uint32) geo.Class {
	sum := hashOf(hashSeed, row)
	for _, class := range a.bySum[sum] {
		if slices.Equal(a.row(class), row) {
			return class
		}
	}
	class := geo.Class(len(a.places))
	a.places = append(a.places, place)
	a.rows = append(a.rows, row...)
	a.bySum[sum] = append(a.bySum[sum], class)
	return class
}

func (a *atlas) row(class geo.Class) []uint32 {
	n := len(a.profiles)
	return a.rows[int(class)*n : int(class)*n+n]
}

// order returns the order of a profile for a class; a class that does not
// exist counts as unknown.
func (a *atlas) order(profile int, class geo.Class) *order {
	if int(class) >= len(a.places) {
		class = unknownClass
	}
	return &a.profiles[profile].orders[a.rows[int(class)*len(a.profiles)+profile]]
}

// orderAt returns the order of a profile for any place, also one that no
// address has.
func (a *atlas) orderAt(profile int, place geo.Place) *order {
	return a.profiles[profile].orderFor(newVantage(a.cfg.Sites, place), new(scratch))
}

// appendProfileKey appends an unambiguous encoding of a service's policy and sites.
func appendProfileKey(b []byte, s *Service) []byte {
	text := func(t string) {
		b = binary.AppendUvarint(b, uint64(len(t)))
		b = append(b, t...)
	}
	list := func(l []string) {
		b = binary.AppendUvarint(b, uint64(len(l)))
		for _, t := range l {
			text(t)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(s.Sites)))
	for i := range s.Sites {
		b = binary.AppendUvarint(b, uint64(s.Sites[i].Site))
	}
	for _, p := range s.Config.Policy {
		text(string(p.Kind))
		list(p.Order)
		b = binary.AppendUvarint(b, uint64(len(p.Rules)))
		for _, r := range p.Rules {
			text(r.Where)
			list(r.Sites)
		}
		b = binary.AppendUvarint(b, uint64(len(p.Weights)))
		for _, w := range p.Weights {
			text(w.Site)
			b = binary.AppendUvarint(b, uint64(w.Weight))
		}
	}
	return b
}
