package health

import "time"

// A Verdict is what this node holds of one target.
type Verdict struct {
	Status Status
	// Why is the typed reason for Status.
	Why Why
	// Restored marks a verdict that stands only because it was on disk: good
	// enough to answer with, never to announce.
	Restored bool
	// Own marks a DOWN that is the word of the target's own site alone, on a backend
	// that other sites observe too.
	Own bool
	// Since is when Status last changed here; zero for never judged.
	Since time.Time
	// Rising is since when a target that is down has had the votes to be up; zero
	// if it has not. It comes up HoldUp later.
	Rising time.Time
	// Up, Down and Abstain count the votes behind the verdict: observers for a
	// backend that only its own site observes, else sites.
	Up, Down, Abstain int
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
	WhyFrozen                 // too few sites are heard: the last verdict stands
	WhyRising                 // down, but the votes say up: they have to last
	WhyOwnSite                // the target's own site says so, alone
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
	case WhyFrozen:
		return "too few sites heard, last verdict stands"
	case WhyRising:
		return "probes say up, waiting for it to last"
	case WhyOwnSite:
		return "its own site says so"
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
	// Sites is how many sites the fleet has, Heard of how many (this node's own
	// among them) a fresh report is held.
	Sites, Heard int
	// Minority: fewer than half of the sites are heard and nothing else says that
	// this node is connected. What other sites observe is not judged; the last
	// verdicts stand.
	Minority bool
	// MinoritySince is when the minority began, zero if this is none; Joined, that
	// half of the sites or more were heard at least once.
	MinoritySince time.Time
	Joined        bool
	// Leaving are the sites whose nodes have all said, in their newest report, that they are
	// stopping; sorted, nil = none. It is their own word, and stands until one speaks again.
	Leaving []string
	// Witnesses is what the next judgement has to know of each observer of the
	// fleet, sorted by name.
	Witnesses []Witness
	// Recheck is when time alone could change a verdict (a report going stale,
	// a hold or a settling ending); zero if nothing is pending.
	Recheck time.Time

	// rewritten is where Verdicts differs from what it was copied from; nil = not known.
	rewritten *rewritten
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
