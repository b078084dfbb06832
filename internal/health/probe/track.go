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
	// Code is the HTTP status, 0 if there was none.
	Code int
	// Inconclusive: the probe failed for local reasons and says nothing about the
	// target. Err says why.
	Inconclusive bool
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
}

// track follows one target through its results. It is arithmetic only.
type track struct {
	state State
	// held is the status that results must argue against: the one decided last,
	// or the initial one, which nobody has confirmed yet.
	held health.Status
	// blind counts inconclusive results in a row.
	blind int
}

// newTrack starts from an initial status (the last known good), StatusNone if
// there is none. It is not stated before a result confirms it.
func newTrack(t health.Target, initial health.Status) track {
	tr := track{state: State{Target: t}}
	if initial == health.StatusUp || initial == health.StatusDown {
		tr.held = initial
	}
	return tr
}

// observe takes one result. It reports whether the stated status changed, and
// whether the next probe should come soon because the result argues against
// the status held.
func (t *track) observe(r Result, rise, fall int) (changed, soon bool) {
	t.state.Last = r
	stated := t.state.Status
	if r.Inconclusive {
		t.blind++
		if stated == health.StatusNone || t.blind >= fall {
			stated = health.StatusUnknown
		}
		return t.say(stated, r.At), false
	}
	t.blind = 0
	found := health.StatusDown
	if r.OK() {
		found = health.StatusUp
		t.state.Streak = max(t.state.Streak, 0) + 1
	} else {
		t.state.Streak = min(t.state.Streak, 0) - 1
	}
	switch {
	case found == health.StatusUp && (t.held == health.StatusNone || t.state.Streak >= rise),
		found == health.StatusDown && -t.state.Streak >= fall:
		t.held = found
	}
	switch {
	case found == t.held:
		stated = found
	case stated == health.StatusNone:
		stated = health.StatusUnknown
	}
	return t.say(stated, r.At), found != t.held
}

// say makes s the stated status.
func (t *track) say(s health.Status, at time.Time) (changed bool) {
	if s == t.state.Status {
		return false
	}
	t.state.Status, t.state.Since = s, at
	return true
}
