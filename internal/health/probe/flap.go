package probe

import (
	"fmt"
	"math"
	"time"
)

// The bounds of a FlapRule.
const (
	minFlapLimit, maxFlapLimit = 2, 100
	minHalfLife, maxHalfLife   = time.Second, time.Hour
	defaultHalfLife            = time.Minute
	// penaltyCap bounds the penalty to this many times Limit, so that a target
	// comes back three half-lives after its last change at the latest.
	penaltyCap = 4
)

// validateFlap returns what is wrong with the damping.
func (c Check) validateFlap() (errs []error) {
	if c.Flap.Limit == 0 {
		return nil
	}
	if c.Flap.Limit < minFlapLimit || c.Flap.Limit > maxFlapLimit {
		errs = append(errs, fmt.Errorf("flap limit %d: want 0 (no damping) or %d to %d", c.Flap.Limit, minFlapLimit, maxFlapLimit))
	}
	if c.Flap.HalfLife < minHalfLife || c.Flap.HalfLife > maxHalfLife {
		errs = append(errs, fmt.Errorf("flap half-life %v: want %v to %v", c.Flap.HalfLife, minHalfLife, maxHalfLife))
	}
	return errs
}

// flap is the penalty of one target for changing. It is arithmetic only.
type flap struct {
	penalty float64
	at      time.Time // when penalty was right
	damped  bool
}

// settle brings the penalty to its value at now and ends the damping when that
// is below half of the limit.
func (f *flap) settle(rule FlapRule, now time.Time) {
	if rule.Limit == 0 {
		*f = flap{}
		return
	}
	if past := now.Sub(f.at); f.penalty > 0 && past > 0 {
		f.penalty *= math.Exp2(-float64(past) / float64(rule.HalfLife))
		if f.penalty < 0.01 {
			f.penalty = 0
		}
	}
	f.at = now
	if f.penalty < float64(rule.Limit)/2 {
		f.damped = false
	}
}

// change counts one change of status at now.
func (f *flap) change(rule FlapRule, now time.Time) {
	f.settle(rule, now)
	if rule.Limit == 0 {
		return
	}
	f.penalty = min(f.penalty+1, float64(penaltyCap*rule.Limit))
	if f.penalty > float64(rule.Limit) {
		f.damped = true
	}
}

// release returns how long after f.at the damping ends if nothing changes any more.
func (f *flap) release(rule FlapRule) time.Duration {
	if !f.damped {
		return 0
	}
	halvings := math.Log2(f.penalty / (float64(rule.Limit) / 2))
	return time.Duration(halvings*float64(rule.HalfLife)) + time.Millisecond
}
