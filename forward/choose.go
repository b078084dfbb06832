package forward

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// mostCompared is how many backends LeastLoad looks at: all of most pools, and of a
// larger one so many in a row from a place drawn at random, to keep the cost of a pick.
const mostCompared = 32

// pick returns a backend that is not in tried and not full, nil when none is left.
// Among those it prefers one that has not just failed and is not ejected, and where nothing is hashed
// one in its availability zone.
func (p *pool) pick(key uint64, datagram bool, tried []*Backend) *Backend {
	if p.zoned != nil && !p.policy.hashes(datagram) {
		if b := p.zoned.pick(tried); b != nil {
			return b
		}
	}
	if len(p.active) == 1 {
		if b := p.active[0]; len(tried) == 0 && !b.full() {
			return b
		}
		return nil
	}
	algorithm := p.policy.Algorithm
	if p.policy.Auto && datagram {
		algorithm = Maglev
	}
	now := p.rampTime()
	i := 0
	switch algorithm {
	case RoundRobin:
		i = p.next(now)
	case LeastLoad:
		i = p.least(tried, now)
	case Maglev, Bounded, Ring, Source:
		if i = p.hash(key, algorithm == Ring, tried, now); i < 0 {
			i = p.fairest(key, tried)
		}
		if i < 0 {
			return nil
		}
		return p.active[i]
	default:
		i = p.twoChoices(now)
	}
	if b := p.active[i]; b.usable() && !slices.Contains(tried, b) {
		return b
	}
	return p.scan(tried, now)
}

// twoChoices returns the better of two that are drawn by weight.
func (p *pool) twoChoices(now int64) int {
	n := len(p.active)
	i, j := p.drawAt(now), p.drawAt(now)
	if j == i { // the neighbour, so that two are always compared
		j = (i + 1 + rand.IntN(n-1)) % n
		if p.weight(j, now)*8 < p.weight(i, now) {
			return i // too small to be half of a fair pair
		}
	}
	if p.policy.Algorithm == Latency {
		clock := p.now()
		if p.cost(j, now, clock) < p.cost(i, now, clock) {
			return j
		}
		return i
	}
	if p.lessLoaded(j, i, now) {
		return j
	}
	return i
}

// scan goes through all backends: the least loaded one that is neither tried, nor
// full, nor known to fail, else the least loaded one that is neither tried nor full.
func (p *pool) scan(tried []*Backend, now int64) *Backend {
	best, fallback := -1, -1
	offset := rand.IntN(len(p.active))
	for k := range p.active {
		i := (k + offset) % len(p.active)
		b := p.active[i]
		if b.full() || slices.Contains(tried, b) {
			continue
		}
		if fallback < 0 || p.lessLoaded(i, fallback, now) {
			fallback = i
		}
		if b.usable() && (best < 0 || p.lessLoaded(i, best, now)) {
			best = i
		}
	}
	switch {
	case best >= 0:
		return p.active[best]
	case fallback >= 0:
		return p.active[fallback]
	default:
		return nil
	}
}

// least returns the least loaded of up to mostCompared, the first of those that it comes to
// among equals, from a place drawn at random. Of those that carry nothing it is one by weight, as far as two draws
// find one: in a pool with little to do nobody would see the weights otherwise.
func (p *pool) least(tried []*Backend, now int64) int {
	for range 2 {
		i := p.drawAt(now)
		if b := p.active[i]; b.inFlight.Load() <= 0 && b.usable() && !slices.Contains(tried, b) {
			return i
		}
	}
	n := len(p.active)
	i := rand.IntN(n)
	best := -1
	for range min(n, mostCompared) {
		if b := p.active[i]; (best < 0 || p.lessLoaded(i, best, now)) && b.usable() && !slices.Contains(tried, b) {
			best = i
			if b.inFlight.Load() <= 0 {
				break // nobody carries less
			}
		}
		if i++; i == n {
			i = 0
		}
	}
	return max(best, 0)
}

// A sequence is the turns of RoundRobin, made when the first is taken.
type sequence struct {
	once  sync.Once
	order []uint16
}

// next returns whose turn it is. One of whose weight only a share counts leaves turns out.
func (p *pool) next(now int64) int {
	s := &p.turns
	s.once.Do(func() { s.order = turns(p.weights) })
	for range maxDraws {
		i := int(s.order[p.turn.Add(1)%uint64(len(s.order))])
		if (now == 0 || rand.Uint64N(rampFull) < p.ramps[i].share(now)) && p.active[i].usable() {
			return i
		}
	}
	return 0
}

// lessLoaded reports whether backend i carries less for its weight than j, at a
// time of rampTime.
func (p *pool) lessLoaded(i, j int, now int64) bool {
	a := uint64(max(p.active[i].inFlight.Load(), 0))
	b := uint64(max(p.active[j].inFlight.Load(), 0))
	return a*p.weight(j, now) < b*p.weight(i, now)
}

// cost is what Latency compares: how long one more unit of work takes, for its weight.
func (p *pool) cost(i int, now, clock int64) float64 {
	b := p.active[i]
	load := float64(max(b.inFlight.Load(), 0) + 1)
	return b.latency.at(clock, load > 1) * load / float64(p.weight(i, now))
}
