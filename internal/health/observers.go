package health

import (
	"cmp"
	"slices"
	"time"
)

// Abstention is the reason why an observer has no vote, on anything or on one
// target.
type Abstention uint8

// The reasons to abstain.
const (
	AbstainNot         Abstention = iota // it votes
	AbstainNeverHeard                    // no report has ever arrived
	AbstainStale                         // its report is older than FreshFor
	AbstainConflict                      // two different reports claim the same epoch and seq
	AbstainLeaving                       // it is stopping on purpose
	AbstainDoubt                         // it doubts itself, or sets a flag not known here
	AbstainOtherLayout                   // its report speaks of targets by a layout not known here
	AbstainUndecided                     // it has no finding on this target (yet)
	AbstainReturning                     // heard again only now: its DOWN on other sites' targets waits
	AbstainDistrusted                    // it contradicts the others: no say on other sites' targets
)

// String returns the reason in the words of explanations.
func (a Abstention) String() string {
	switch a {
	case AbstainNot:
		return "votes"
	case AbstainNeverHeard:
		return "never heard"
	case AbstainStale:
		return "silent"
	case AbstainConflict:
		return "contradicts itself"
	case AbstainLeaving:
		return "leaving"
	case AbstainDoubt:
		return "doubts itself"
	case AbstainOtherLayout:
		return "has other targets configured"
	case AbstainUndecided:
		return "undecided"
	case AbstainReturning:
		return "back only now"
	case AbstainDistrusted:
		return "contradicts the others"
	default:
		return "abstains"
	}
}

// ObserverStatus is what the ledger knows of one observer, for status displays.
type ObserverStatus struct {
	Name, Site string
	// Heard is false if no report has ever arrived; the rest is then zero but for
	// Abstains.
	Heard bool
	// Epoch and Seq are those of its newest report.
	Epoch, Seq uint64
	// Config is the hash of its configuration, to show who runs another one.
	Config uint64
	// Age is how old its newest report is; Fresh if at most FreshFor.
	Age   time.Duration
	Fresh bool
	// Doubts, Leaving: the flags of its newest report.
	Doubts, Leaving bool
	// Conflict: another report with the same Epoch and Seq exists.
	Conflict bool
	// LayoutMatches: it has exactly the targets that we have.
	LayoutMatches bool
	// Abstains says why its votes do not count, AbstainNot if they do. The votes of
	// AbstainReturning and AbstainDistrusted count at its own site.
	Abstains Abstention
}

// abroad returns why the vote of the observer at k on other sites' targets did not
// count when the ledger was last judged, or does not count for another reason at now.
func (l *Ledger) abroad(k int, s Status, now time.Time) Abstention {
	e := l.held[k]
	if why := e.abstains(now); why != AbstainNot {
		return why
	}
	switch w := l.judged.witness(e.name, k); {
	case w.Distrusted:
		return AbstainDistrusted
	case s == StatusDown && settling(w.Returned, now):
		return AbstainReturning
	default:
		return AbstainNot
	}
}

// Observers returns the status of every observer of the fleet at now, sorted by
// site and name.
func (l *Ledger) Observers(now time.Time) []ObserverStatus {
	out := make([]ObserverStatus, 0, len(l.held))
	for k, e := range l.held {
		o := ObserverStatus{Name: e.name, Site: l.sites[e.site], Abstains: l.abroad(k, StatusDown, now)}
		if r := e.report; r != nil {
			o.Heard, o.Epoch, o.Seq, o.Config = true, r.Epoch, r.Seq, r.Config
			o.Age, o.Fresh = e.ageAt(now), e.freshAt(now)
			o.Doubts, o.Leaving = r.Flags&FlagDoubt != 0, r.Flags&FlagLeaving != 0
			o.Conflict, o.LayoutMatches = e.conflict, r.Layout == l.layout.Hash
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b ObserverStatus) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Opinion is what one observer that has a say on a target holds of it.
type Opinion struct {
	Observer, Site string
	// Status is its statement, however old; StatusNone if it made none.
	Status Status
	// Age is how old its report is, 0 if none was heard; Fresh: at most FreshFor.
	Age   time.Duration
	Fresh bool
	// Abstains says why the statement is no vote, AbstainNot if it is one.
	Abstains Abstention
}

// Opinions returns what each observer that has a say on target holds of it at
// now, sorted by site and name: the nodes of the sites of its vantage. It returns
// nil for a target that is not in the layout.
func (l *Ledger) Opinions(target Target, now time.Time) []Opinion {
	i, ok := l.layout.Index(target)
	if !ok {
		return nil
	}
	var out []Opinion
	p := &l.places[i]
	for k, e := range l.held {
		if !l.observedFrom(*p, e.site) {
			continue
		}
		o := Opinion{
			Observer: e.name, Site: l.sites[e.site],
			Status: statusAt(e.states, i), Age: e.ageAt(now), Fresh: e.freshAt(now), Abstains: e.abstains(now),
		}
		if p.abroad && int32(e.site) != p.site {
			o.Abstains = l.abroad(k, o.Status, now)
		}
		if o.Abstains == AbstainNot && o.Status != StatusUp && o.Status != StatusDown {
			o.Abstains = AbstainUndecided
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b Opinion) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Observer, b.Observer))
	})
	return out
}

// HeldReport is a report as the ledger holds it.
type HeldReport struct {
	Report *Report // not to be changed
	Age    time.Duration
}

// Reports returns every report held and its age at now, stale ones too, sorted
// by observer: what a node tells another that joins.
func (l *Ledger) Reports(now time.Time) []HeldReport {
	var out []HeldReport
	for _, e := range l.held {
		if e.report != nil {
			out = append(out, HeldReport{e.report, e.ageAt(now)})
		}
	}
	return out
}

// Held returns the newest report of an observer, nil if there is none. A node
// that finds here a report of its own with a larger Epoch than it has must
// raise its epoch above it, or nobody will listen to it.
func (l *Ledger) Held(observer string) *Report {
	if i, ok := l.byName[observer]; ok {
		return l.held[i].report
	}
	return nil
}

// Latest returns when the newest report was made of those by which a site has a say at now: by
// this node's clock, and not before it was made. Zero if there is none.
func (l *Ledger) Latest(site string, now time.Time) (at time.Time) {
	k, ok := slices.BinarySearch(l.sites, site)
	if !ok {
		return at
	}
	for _, e := range l.held {
		if e.site == k && e.abstains(now) == AbstainNot && e.born.After(at) {
			at = e.born
		}
	}
	return at
}
