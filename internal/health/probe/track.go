package probe

import (
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// Result is what one probe found.
type Result struct {
	// At is when the probe ended, Latency how long it took in all.
	At      time.Time
	Latency time.Duration
	// Err says in a few plain words what was wrong; "" if nothing was.
	Err string
	// Code is the HTTP status, or the exit status of a command; 0 if there was none.
	Code int
	// Inconclusive: the probe failed for local reasons and says nothing about the
	// target. Err says why.
	Inconclusive bool
	// Weight is the share of its weight that the target asks for, in percent, if
	// HasWeight. It counts only in a Result that is OK.
	Weight    uint8
	HasWeight bool
}

// OK reports whether the target did what its check wants.
func (r Result) OK() bool { return r.Err == "" && !r.Inconclusive }

// State is what this node says of one target.
type State struct {
	Target health.Target
	// Status is StatusNone before the first result, StatusUnknown while nothing
	// is decided, then StatusUp or StatusDown.
	Status health.Status
	// Since is when Status last changed; zero before the first result.
	Since time.Time
	// Last is the newest result; zero before the first.
	Last Result
	// Streak counts the newest results of the same kind in a row: successes as
	// positive, failures as negative numbers. Inconclusive results are not counted.
	Streak int
	// Weight is the share of its weight that the target asks for, 0 … 100 percent:
	// 100 unless its answers say otherwise, else what they say in steps of 5. A
	// target of weight 0 is up, but wants no new work.
	Weight uint8
	// Degraded: Weight is below 100.
	Degraded bool
	// Flapping: it changed so often that it is held down, whatever its probes find.
	Flapping bool
	// Penalty is its Check.Flap penalty as of the newest conclusive result; 0 without damping.
	Penalty float64
}

// fullWeight is the Weight of a target that does not ask for less.
const fullWeight = 100

// weightStep is the grain of State.Weight: load figures are noisy, and what
// follows from a new weight should not be done for a percent.
const weightStep = 5

// track follows one target through its results. It is arithmetic only.
type track struct {
	state State
	// held is the status that results must argue against: the one decided last,
	// or the initial one, which nobody has confirmed yet.
	held health.Status
	// blind counts inconclusive results in a row.
	blind int
	flap  flap
}

// news is what a result brought.
type news struct {
	// status and weight: what is stated changed.
	status, weight bool
	// soon: the next probe should come soon, because the result argues against
	// the status held.
	soon bool
	// suppressed: the target would have come up if it did not flap.
	suppressed bool
}

// newTrack starts from an initial status (the last known good), StatusNone if
// there is none. It is not stated before a result confirms it.
func newTrack(t health.Target, initial health.Status) track {
	tr := track{state: State{Target: t, Weight: fullWeight}}
	if initial == health.StatusUp || initial == health.StatusDown {
		tr.held = initial
	}
	return tr
}

// observe takes one result of c.
func (t *track) observe(r Result, c *Check) (n news) {
	t.state.Last = r
	stated := t.state.Status
	if r.Inconclusive {
		t.blind++
		if stated == health.StatusNone || t.blind >= c.Fall {
			stated = health.StatusUnknown
		}
		n.status = t.say(stated, r.At)
		return n
	}
	t.blind = 0
	t.flap.settle(c.Flap, r.At)
	found := health.StatusDown
	if r.OK() {
		found = health.StatusUp
		t.state.Streak = max(t.state.Streak, 0) + 1
		n.weight = t.weigh(r)
	} else {
		t.state.Streak = min(t.state.Streak, 0) - 1
	}
	switch {
	case found == health.StatusUp && (t.held == health.StatusNone || t.state.Streak >= c.Rise),
		found == health.StatusDown && -t.state.Streak >= c.Fall:
		if t.held != health.StatusNone && t.held != found {
			t.flap.change(c.Flap, r.At)
			n.suppressed = t.flap.damped && found == health.StatusUp
		}
		t.held = found
	}
	switch {
	case found == t.held && t.flap.damped:
		stated = health.StatusDown
	case found == t.held:
		stated = found
	case stated == health.StatusNone:
		stated = health.StatusUnknown
	}
	t.state.Flapping, t.state.Penalty = t.flap.damped, t.flap.penalty
	n.status, n.soon = t.say(stated, r.At), found != t.held
	return n
}

// say makes s the stated status.
func (t *track) say(s health.Status, at time.Time) (changed bool) {
	if s == t.state.Status {
		return false
	}
	t.state.Status, t.state.Since = s, at
	return true
}

// weigh takes the weight of a success. The stated one moves when the two differ
// by a step, to the nearest one; to 0 and away from it at once, because 0 is not
// less work but none.
func (t *track) weigh(r Result) (changed bool) {
	asked, stated := fullWeight, int(t.state.Weight)
	if r.HasWeight {
		asked = min(int(r.Weight), fullWeight)
	}
	near := max(asked-stated, stated-asked) < weightStep
	if near && (asked == 0) == (stated == 0) {
		return false
	}
	to := (asked + weightStep/2) / weightStep * weightStep
	if asked > 0 {
		to = max(to, weightStep)
	}
	if to == stated {
		return false
	}
	t.state.Weight, t.state.Degraded = uint8(to), to < fullWeight
	return true
}
