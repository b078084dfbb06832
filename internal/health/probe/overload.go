package probe

import "time"

// The bounds of what a node takes for its own slowness.
const (
	// beatEvery is how often the runner's loop runs at least.
	beatEvery = 500 * time.Millisecond
	// slowAfter is how late a probe or the loop may be before this node doubts itself.
	slowAfter = time.Second
	// slowFor is how long it goes on doubting.
	slowFor = 10 * time.Second
)

// pulse notices that the loop, or what it starts, came too late: the machine is
// overloaded, or stood still.
type pulse struct {
	expected time.Time // when the loop is to run next at the latest
	slow     time.Time // when it was last too late
}

// beat says that the loop runs.
func (p *pulse) beat(now time.Time) {
	if !p.expected.IsZero() {
		p.late(now, now.Sub(p.expected))
	}
}

// late says that something due came late by that much.
func (p *pulse) late(now time.Time, by time.Duration) {
	if by > slowAfter {
		p.slow = now
	}
}

// expect says when the loop runs next at the latest.
func (p *pulse) expect(at time.Time) { p.expected = at }

// Lag returns how long the probe that should start next is overdue; 0 if the
// schedule is kept. A node that lags should doubt itself.
func (r *Runner) Lag() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lag(time.Now())
}

// lag is Lag at now. Called with mu held.
func (r *Runner) lag(now time.Time) time.Duration {
	if !r.started || r.stopped || len(r.queue) == 0 {
		return 0
	}
	return max(now.Sub(r.queue[0].due), 0)
}

// Overloaded reports whether this node should doubt what its probes find: a probe
// is more than a second overdue, or one was within the last 10 seconds, or the
// schedule itself stood still for so long (a starved, stopped or suspended
// process). false before Run and after it.
func (r *Runner) Overloaded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !r.started || r.stopped {
		return false
	}
	if !r.pulse.slow.IsZero() && now.Sub(r.pulse.slow) < slowFor {
		return true
	}
	if !r.pulse.expected.IsZero() && now.Sub(r.pulse.expected) > slowAfter {
		return true
	}
	return r.lag(now) > slowAfter
}
