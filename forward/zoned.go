package forward

import "math/rand/v2"

// A zoned is what a pool does about availability zones: two pools in it, of which one is drawn first. Who finds nobody there
// that is fit (all full, ejected, just failed) has the whole pool.
type zoned struct {
	stays     float64 // the share of the work that stays in the zone
	near, far *pool   // of this zone's active backends; of the others' that have something to spare
}

func newZoned(p *pool, stays float64) *zoned {
	part := func(i int) *pool {
		return &pool{service: p.service, policy: p.policy, group: p.group, now: p.now, first: -1, turn: &p.group.turns[i]}
	}
	return &zoned{stays: stays, near: part(1), far: part(2)}
}

// add adds an active member. The receiver may be nil.
func (z *zoned) add(b *Backend, m Member, r ramp) {
	switch {
	case z == nil:
	case m.Near:
		z.near.add(b, m, r)
	case m.Far > 0:
		const steps = 1000 // a weight is a whole number
		m.Weight, m.Base = int(m.Far*steps), 0
		z.far.add(b, m, r)
	}
}

// pick returns a backend by zone; nil if none is fit in the zone that was drawn.
func (z *zoned) pick(tried []*Backend) *Backend {
	q := z.near
	if stays := z.stays * z.near.grown(); stays < 1 && rand.Float64() >= stays {
		q = z.far // empty if it is only that the zone's backends are not back whole yet
	}
	if len(q.active) == 0 {
		return nil
	}
	if b := q.pick(0, false, tried); b != nil && b.usable() {
		return b
	}
	return nil
}

// grown returns how much of the pool's weight counts: below 1 while backends are in a slow start.
func (p *pool) grown() float64 {
	now := p.rampTime()
	if now == 0 {
		return 1
	}
	var sum, whole uint64
	for i, w := range p.weights {
		sum += w * p.ramps[i].share(now)
		whole += w * rampFull
	}
	return float64(sum) / float64(whole)
}

// count counts a lease. The receiver may be nil.
func (z *zoned) count(b *Backend) {
	switch {
	case z == nil:
	case b.near.Load():
		b.group.stayed.Add(1)
	default:
		b.group.crossed.Add(1)
	}
}
