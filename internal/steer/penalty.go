package steer

import (
	"math"
	"time"
)

// The penalty of a route that goes and comes, as RFC 2439 has it for the routes of others. Each
// withdrawal that health caused costs one; several in short order exceed what is tolerated,
// and the route stays away until the penalty has decayed.
const (
	penaltyOnce     = 1000.0
	penaltySuppress = 3000.0 // above: held down
	penaltyReuse    = 1000.0 // below: announced again
	penaltyMost     = 16000.0
)

// A penalty is what a route has gathered, as of a time.
type penalty struct {
	value float64
	at    time.Time
	held  bool
}

// now returns the penalty at a time.
func (p *penalty) now(halfLife time.Duration, now time.Time) float64 {
	age := now.Sub(p.at)
	if p.at.IsZero() || age <= 0 || halfLife <= 0 {
		return p.value
	}
	return p.value * math.Exp2(-age.Seconds()/halfLife.Seconds())
}

// add counts a withdrawal.
func (p *penalty) add(halfLife time.Duration, now time.Time) {
	if halfLife <= 0 || now.IsZero() {
		*p = penalty{}
		return
	}
	p.value = min(p.now(halfLife, now)+penaltyOnce, penaltyMost)
	p.at = now
	p.held = p.held || p.value > penaltySuppress
}

// until returns until when the route is held down; zero if it is not. It ends the hold when it is over.
func (p *penalty) until(halfLife time.Duration, now time.Time) time.Time {
	if !p.held || halfLife <= 0 {
		p.held = false
		return time.Time{}
	}
	left := p.now(halfLife, now)
	if left <= penaltyReuse {
		p.held = false
		return time.Time{}
	}
	return now.Add(time.Duration(math.Log2(left/penaltyReuse)*float64(halfLife)) + time.Millisecond)
}
