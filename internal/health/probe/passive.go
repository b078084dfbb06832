package probe

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// The bounds of a PassiveRule.
const (
	maxPassiveFall     = 1000
	defaultPassiveFall = 5
	minPassiveFor      = 10 * time.Millisecond
	maxPassiveFor      = 24 * time.Hour
	defaultPassiveFor  = 10 * time.Second
)

// validatePassive returns what is wrong with the rule for traffic.
func (c Check) validatePassive() (errs []error) {
	if c.Passive.Fall < 0 || c.Passive.Fall > maxPassiveFall {
		errs = append(errs, fmt.Errorf("passive fall %d: want 0 (traffic does not count) to %d", c.Passive.Fall, maxPassiveFall))
	}
	if c.Kind == Passive && (c.Passive.For < minPassiveFor || c.Passive.For > maxPassiveFor) {
		errs = append(errs, fmt.Errorf("passive for %v: want %v to %v", c.Passive.For, minPassiveFor, maxPassiveFor))
	}
	return errs
}

// What traffic can have to tell, as bits.
const (
	// lost: a row of failures is complete.
	lost uint32 = 1 << iota
	// welcome: a success that was waited for.
	welcome
)

// Outcomes counts what became of the traffic of one target. It stays the same
// as long as the target has a check. Its methods may be called from any
// goroutine, and a nil Outcomes ignores everything.
type Outcomes struct {
	// Immutable.
	target health.Target
	runner *Runner

	// row is how many failures came in a row. need is how many make a row that is
	// told, 0 while nobody wants to know; longed is whether a success is told.
	row    atomic.Uint32
	need   atomic.Uint32
	longed atomic.Bool
	// told is what the runner has not looked at yet. It looks at each Outcomes that
	// is listed, once, however often traffic told it something.
	told   atomic.Uint32
	listed atomic.Bool
	next   *Outcomes // owned by who set listed, then by the runner
}

// Outcomes returns where the outcomes of target's traffic go, nil if the target
// has no check. It takes no lock. Callers with much traffic keep what it returns
// until the checks change.
func (r *Runner) Outcomes(target health.Target) *Outcomes {
	return (*r.outcomes.Load())[target]
}

// Outcome says how one piece of target's traffic went: a request answered or
// not, a connection made or not. It takes no lock, allocates nothing, and what
// it causes is bounded by the schedule, however many outcomes there are.
func (r *Runner) Outcome(target health.Target, ok bool) { r.Outcomes(target).Note(ok) }

// Note is Runner.Outcome without the look-up.
func (o *Outcomes) Note(ok bool) {
	if o == nil {
		return
	}
	if ok {
		if o.row.Load() != 0 {
			o.row.Store(0)
		}
		if o.longed.Load() && o.longed.CompareAndSwap(true, false) {
			o.tell(welcome)
		}
		return
	}
	need := o.need.Load()
	if need == 0 || o.row.Add(1) < need || !o.need.CompareAndSwap(need, 0) {
		return
	}
	o.tell(lost)
}

// tell puts o on the runner's list, unless it is there already.
func (o *Outcomes) tell(what uint32) {
	o.told.Or(what)
	if !o.listed.CompareAndSwap(false, true) {
		return
	}
	for {
		o.next = o.runner.told.Load()
		if o.runner.told.CompareAndSwap(o.next, o) {
			break
		}
	}
	signal(o.runner.wake)
}

// arm says what is worth telling from now on. What was told and not yet looked at stays told.
func (o *Outcomes) arm(need int, longed bool) {
	if o.need.Load() != uint32(need) {
		o.row.Store(0)
		o.need.Store(uint32(need))
	}
	if o.longed.Load() != longed {
		o.longed.Store(longed)
	}
}

// arm makes the outcomes tell what matters to j as it is now. Called with mu held.
func (j *job) arm() {
	need := j.check.Passive.Fall
	switch {
	case j.check.Kind != Passive && j.track.held == health.StatusDown, need == 0:
		// Nothing to add: it is down already and probed for coming back.
		j.outcomes.arm(0, false)
	case j.check.Kind != Passive:
		j.outcomes.arm(need, false)
	case j.track.state.Status == health.StatusDown:
		j.outcomes.arm(0, false) // late ends of what began before say nothing new
	case j.trial:
		j.outcomes.arm(1, true)
	default:
		j.outcomes.arm(need, j.track.state.Status != health.StatusUp)
	}
}

// heedTraffic takes what traffic told. Called with mu held.
func (r *Runner) heedTraffic(now time.Time) {
	for o := r.told.Swap(nil); o != nil; {
		next := o.next
		o.listed.Store(false)
		told := o.told.Swap(0)
		if j := r.jobs[o.target]; j != nil && j.outcomes == o {
			r.heed(j, told, now)
		}
		o = next
	}
}

// heed takes what traffic told of one target. Called with mu held.
func (r *Runner) heed(j *job, told uint32, now time.Time) {
	rule := j.check.Passive
	failed := told&lost != 0 && rule.Fall > 0
	switch {
	case j.check.Kind == Passive:
		if told&welcome != 0 {
			j.trial = false
			r.take(j, Result{At: now})
		}
		if failed && j.track.state.Status != health.StatusDown {
			r.takeRow(j, now)
			r.awaitTrial(j, now)
		}
		j.arm()
	case failed:
		// It is armed again when the probe that this asks for has ended: one row at
		// most counts between two probes.
		r.takeRow(j, now)
		r.recheck(j, now)
	}
}

// takeRow counts a row of failed traffic as a failed probe. Called with mu held.
func (r *Runner) takeRow(j *job, now time.Time) {
	r.metrics.rows.Inc()
	says := fmt.Sprintf("traffic failed %d times in a row", j.check.Passive.Fall)
	if j.trial {
		says = "traffic failed on trial"
	}
	j.trial = false
	r.take(j, Result{At: now, Err: says})
}

// recheck has j probed at once, or Recheck after its newest probe began. Called with mu held.
func (r *Runner) recheck(j *job, now time.Time) {
	if j.running != nil {
		j.asked = true
		return
	}
	due := j.probed.Add(j.check.Recheck)
	if due.Before(now) {
		due = now
	}
	if due.Before(j.due) {
		r.schedule(j, due)
	}
}

// awaitTrial has a target that is down tried again after Passive.For, or when its
// damping ends. Called with mu held.
func (r *Runner) awaitTrial(j *job, now time.Time) {
	wait := j.check.Passive.For
	if j.track.flap.damped {
		wait = max(wait, j.track.flap.release(j.check.Flap))
	}
	r.schedule(j, now.Add(wait))
}

// try states a target up that only traffic can tell about: the first failure
// sends it down again, the first success confirms it. Called with mu held.
func (r *Runner) try(j *job, now time.Time) {
	if j.track.state.Status != health.StatusDown {
		return
	}
	if j.track.flap.settle(j.check.Flap, now); j.track.flap.damped {
		r.awaitTrial(j, now)
		return
	}
	j.trial = true
	r.take(j, Result{At: now})
	if j.track.state.Status == health.StatusDown { // this change was one too many
		j.trial = false
		r.awaitTrial(j, now)
	}
	j.arm()
}
