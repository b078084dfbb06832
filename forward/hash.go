package forward

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
)

// hashTries is how many places a key is looked for before every backend is gone
// through. nginx looks at as many.
const hashTries = 20

// A hashing is the part of a pool that algorithms which hash need. It is made when
// the first key comes, since most pools never see one.
type hashing struct {
	once sync.Once
	// Immutable after once: every member by address, and its position in
	// pool.active, −1 if it is not there.
	members []share
	place   []int32
	// all is over every member, so that one that goes down or comes back moves nobody else's
	// work; only who falls to one that is not active looks into rest.
	all, rest tables
	restPlace []int32
}

// note adds a member; place is its position in pool.active or −1.
func (h *hashing) note(m Member, place int) {
	weight := m.Base
	if weight < 1 {
		weight = m.Weight
	}
	h.members = append(h.members, share{m.Address, uint64(max(weight, 1))})
	h.place = append(h.place, int32(place))
}

// build makes the tables.
func (h *hashing) build(g *group, asRing bool) {
	order := make([]int, len(h.members))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return h.members[a].address.Compare(h.members[b].address) })
	members, place := make([]share, len(order)), make([]int32, len(order))
	var rest []share
	for i, from := range order {
		members[i], place[i] = h.members[from], h.place[from]
		if place[i] >= 0 {
			rest = append(rest, members[i])
			h.restPlace = append(h.restPlace, place[i])
		}
	}
	h.members, h.place = members, place
	h.all = g.table(0, members, asRing)
	if len(rest) < len(members) {
		h.rest = g.table(1, rest, asRing)
	}
}

// hash returns the position of the backend that a key falls to, −1 if those that the
// first tries find cannot take it. There are active backends.
func (p *pool) hash(key uint64, asRing bool, tried []*Backend, now int64) int {
	h := &p.hashing
	h.once.Do(func() { h.build(p.group, asRing) })
	if key == 0 {
		key = rand.Uint64()
	}
	bound := p.bound()
	for try := range hashTries {
		i := int(h.place[h.all.find(key, try)])
		if i < 0 {
			i = int(h.restPlace[h.rest.find(key, try)])
		}
		b := p.active[i]
		if !p.takes(i, key, now) || (bound > 0 && p.overloaded(i, bound)) {
			continue
		}
		if b.usable() && !slices.Contains(tried, b) {
			return i
		}
	}
	return -1
}

// bound is what a backend may carry for each unit of its weight; 0 = anything.
func (p *pool) bound() float64 {
	if p.policy.Algorithm != Bounded {
		return 0
	}
	load := p.policy.Load
	if load < 1 {
		load = 1.25
	}
	return load * float64(p.group.inFlight.Load()+1) / float64(p.sums[len(p.sums)-1])
}

// overloaded reports whether one more lease would be above the bound, rounded up
// (Mirrokni et al., "Consistent Hashing with Bounded Loads", 2016).
func (p *pool) overloaded(i int, bound float64) bool {
	return float64(p.active[i].inFlight.Load()+1) > math.Ceil(bound*float64(p.weights[i]))
}

// takes reports whether backend i, while only a share of its weight counts, is among those
// who keep this key: the same keys at the same share, on every node.
func (p *pool) takes(i int, key uint64, now int64) bool {
	if now == 0 && p.parts[i] == rampFull {
		return true
	}
	part := p.parts[i]
	if now != 0 {
		part = part * p.ramps[i].share(now) / rampFull
	}
	return part >= rampFull || mix(key, identityHash(p.active[i].id.address))%rampFull < part
}

// fairest returns who comes first for a key among all who are neither tried nor
// full, those that nothing speaks against before others: the highest random
// weight (Thaler and Ravishankar, 1998). −1 if there is none.
func (p *pool) fairest(key uint64, tried []*Backend) int {
	best, bestRank, bound := -1, rank{}, p.bound()
	for i, b := range p.active {
		if b.full() || slices.Contains(tried, b) {
			continue
		}
		r := rank{b.usable() && (bound == 0 || !p.overloaded(i, bound)), mix(key, identityHash(b.id.address))}
		if best < 0 || r.compare(bestRank) > 0 {
			best, bestRank = i, r
		}
	}
	return best
}

type rank struct {
	usable bool
	hash   uint64
}

func (r rank) compare(o rank) int {
	if r.usable != o.usable {
		if r.usable {
			return 1
		}
		return -1
	}
	return cmp.Compare(r.hash, o.hash)
}
