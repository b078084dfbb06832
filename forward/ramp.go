package forward

import (
	"math/rand/v2"
	"time"
)

// Shares of a weight are counted in rampFull-ths.
const (
	rampFull  = 1024
	rampFirst = rampFull / 20 // what a backend that has just come back begins with
)

// maxDraws bounds the search for a backend by share. A draw is refused with a
// probability below 19 in 20, so that this many are refused once in 10⁵ picks.
const maxDraws = 256

// A ramp is the time in which a backend that came back grows into its weight,
// evenly from rampFirst to rampFull. The zero ramp is over.
type ramp struct {
	from int64 // registry time
	over int64 // registry time at which the weight is whole
}

// share returns how much of the weight counts at a time, rampFirst … rampFull.
func (r ramp) share(now int64) uint64 {
	if now >= r.over {
		return rampFull
	}
	const grows = rampFull - rampFirst
	done := float64(max(now-r.from, 0)) / float64(r.over-r.from)
	return rampFirst + uint64(grows*done)
}

// turn notes what a plan says of a backend, and returns its ramp. A backend
// ramps when a plan gives it work again after one that did not; its first
// appearance is none. registry.mu is held.
func (b *Backend) turn(active bool, slowStart time.Duration, now int64) ramp {
	switch {
	case !active:
		b.out = true
		b.back = 0
	case b.out:
		b.out = false
		b.back = now
	}
	var r ramp
	if b.back != 0 && now-b.back < int64(slowStart) {
		r = ramp{from: b.back, over: b.back + int64(slowStart)}
	} else {
		b.back = 0 // a longer slow start that a reload brings is for the next time
	}
	b.ramping.Store(&r)
	return r
}

// rampTime returns the time at which shares are to be counted; 0 while no
// backend of the pool ramps, so that a pick costs no look at the clock.
func (p *pool) rampTime() int64 {
	if !p.ramping.Load() {
		return 0
	}
	now := p.now()
	if now < p.over {
		return now
	}
	p.ramping.Store(false)
	return 0
}

// weight returns what backend i is due at a time of rampTime, relative to the others.
func (p *pool) weight(i int, now int64) uint64 {
	if now == 0 {
		return p.weights[i]
	}
	return p.weights[i] * p.ramps[i].share(now)
}

// drawAt returns an index at random by what backends are due at a time of rampTime.
func (p *pool) drawAt(now int64) int {
	if now == 0 {
		return p.draw()
	}
	return p.drawShare(now)
}

// drawShare returns an index at random, by weight and share: it draws by weight
// and keeps what it drew with a probability of its share. Shares are relative to
// the furthest of all, so a pool in which everybody ramps works like one in which
// nobody does.
func (p *pool) drawShare(now int64) int {
	furthest := uint64(rampFull)
	if p.first >= 0 {
		furthest = p.ramps[p.first].share(now)
	}
	i := p.draw()
	for range maxDraws {
		if share := p.ramps[i].share(now); share >= furthest || rand.Uint64N(furthest) < share {
			break
		}
		i = p.draw()
	}
	return i
}
