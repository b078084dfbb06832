package health

import "time"

// A Verdict is what this node holds of one target.
type Verdict struct {
	Status Status
	// Since is when Status last changed here; zero for never judged.
	Since time.Time
	// Why is the typed reason for Status.
	Why Why
	// Up, Down and Abstain count the votes behind the verdict: observers for a
	// backend, sites for a VIP.
	Up, Down, Abstain int
	// Restored marks a verdict that stands only because it was on disk: good
	// enough to answer with, never to announce.
	Restored bool
}

// Why is the reason for a Verdict.
type Why uint8

// The reasons of a verdict.
const (
	WhyNeverProbed Why = iota // nobody has said anything yet
	WhyProbes                 // the observers' majority says so
	WhyHeld                   // no quorum either way: the last verdict stands
	WhyStale                  // every observer is silent: the last verdict stands
	WhyRestored               // the last known good from disk
	WhyForced                 // asked for ("what if"), not measured
)

// String returns the reason in the words of explanations.
func (w Why) String() string {
	switch w {
	case WhyProbes:
		return "probes agree"
	case WhyHeld:
		return "no quorum, last verdict stands"
	case WhyStale:
		return "observers silent, last verdict stands"
	case WhyRestored:
		return "last known good from disk"
	case WhyForced:
		return "assumed"
	default:
		return "not probed yet"
	}
}

// A View is every verdict at one moment, the input of a decision. It is
// immutable: the judge makes a new one.
type View struct {
	// Layout names the targets; Verdicts is indexed like Layout.Targets.
	Layout   *Layout
	Verdicts []Verdict
	// At is the time the view was judged at.
	At time.Time
	// Recheck is when time alone could change a verdict (a report going stale,
	// a hold ending); zero if nothing is pending.
	Recheck time.Time
}

// Of returns the verdict on t, or the zero Verdict if t is not in the layout.
func (v *View) Of(t Target) Verdict {
	if v == nil || v.Layout == nil {
		return Verdict{}
	}
	i, ok := v.Layout.Index(t)
	if !ok || i >= len(v.Verdicts) {
		return Verdict{}
	}
	return v.Verdicts[i]
}
