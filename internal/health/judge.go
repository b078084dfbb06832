package health

import (
	"slices"
	"time"
)

// upSharePercent is the share of sites that must see a VIP up for it to be up.
// The number is Route 53's: enough that one bad network region cannot keep a
// dead VIP in the answers of a large fleet, little enough that trouble between
// observers and target does not down what most users still reach.
const upSharePercent = 18

// place is what the judge needs to know of one target.
type place struct {
	kind Kind
	site int32 // index into Ledger.sites, -1 if no observer is there
	// backends is, for a VIP, the range of the backends of the same service at
	// the same site in the layout.
	backendsFrom, backendsTo int32
}

// placesOf returns the places of a layout's targets. It uses the order of a
// layout: the backends of a service at a site come right before its VIPs.
func placesOf(layout *Layout, sites []string) []place {
	places := make([]place, len(layout.Targets))
	from, to := 0, 0
	for i, t := range layout.Targets {
		site, found := slices.BinarySearch(sites, t.Site)
		if !found {
			site = -1
		}
		if i == 0 || t.Service != layout.Targets[i-1].Service || t.Site != layout.Targets[i-1].Site {
			from, to = i, i
		}
		if t.Kind == KindBackend {
			to = i + 1
		}
		places[i] = place{kind: t.Kind, site: int32(site), backendsFrom: int32(from), backendsTo: int32(to)}
	}
	return places
}

// observedFrom reports whether nodes of site have a say on a target at p.
func (p place) observedFrom(site int) bool {
	return (int32(site) == p.site) == (p.kind != KindVIP)
}

// bench is what the observers of one site can say at one moment.
type bench struct {
	observers int      // in the fleet
	fresh     int      // heard lately, whether they vote or not
	unread    int      // fresh and trusted, but speaking by another layout
	voters    [][]byte // the states of those that vote
}

// Judge makes the view at now from the reports and the previous view, which may
// be nil, may have another layout (after a reload) and may be restored from
// disk. It is a pure function of the ledger, prev and now; the order in which
// reports arrived does not matter. The rules:
//
//  1. A vote is a statement up or down in a fresh report. Whoever is stale, in
//     conflict, doubtful, leaving, undecided or speaks by an unknown layout
//     abstains. Silence is never a vote.
//  2. A backend is judged by the nodes of its own site, by majority.
//  3. A VIP is judged by the other sites, one vote a site: the majority of its
//     nodes; a site whose nodes are split votes for neither.
//     The VIP is up if more than 18 % of the voting sites say up. It is down if
//     at most 18 % say up and more than half say down.
//  4. Where a single outside site votes, it cannot down a VIP while the VIP's own
//     site is heard: while a fresh report of one of its nodes says that a backend
//     of the service there is up, or cannot be read. If the own site is silent,
//     the single outside site may.
//  5. In every other case (tie, no votes) the last verdict stands.
//  6. A verdict restored from disk stays marked as such until votes decide.
//
// The time at which it could come out differently without a new report is the
// view's Recheck. Cost: a few milliseconds for 10,000 services at three sites; if
// no verdict differs from prev's, the new view shares prev's Verdicts.
func (l *Ledger) Judge(prev *View, now time.Time) *View {
	benches, recheck := l.benches(now)
	view := &View{Layout: l.layout, At: now, Recheck: recheck}
	last, shared := previousVerdicts(prev, l.layout)
	view.Verdicts = last
	for i, p := range l.places {
		var t tally
		if p.kind == KindVIP {
			t = tallyVIP(benches, i, p)
		} else {
			t = tallyBackend(benches, i, p)
		}
		if t.confirms(&last[i]) {
			continue
		}
		v := t.verdict(last[i], now)
		if v == last[i] {
			continue
		}
		if shared {
			view.Verdicts, shared = slices.Clone(last), false
		}
		view.Verdicts[i] = v
	}
	return view
}

// previousVerdicts returns the last verdicts in the order of layout, and
// whether they are shared with prev and therefore must not be written to.
func previousVerdicts(prev *View, layout *Layout) (last []Verdict, shared bool) {
	n := len(layout.Targets)
	if prev == nil || prev.Layout == nil {
		return make([]Verdict, n), false
	}
	if sameLayout(prev.Layout, layout) && len(prev.Verdicts) == n {
		return prev.Verdicts, true
	}
	last = make([]Verdict, n)
	for i, t := range layout.Targets {
		last[i] = prev.Of(t)
	}
	return last, false
}

// sameLayout reports whether a and b have the same targets.
func sameLayout(a, b *Layout) bool {
	return a == b || a.Hash == b.Hash && len(a.Targets) == len(b.Targets)
}

// benches returns what each site's observers can say at now, and when the next
// of their reports goes stale.
func (l *Ledger) benches(now time.Time) (benches []bench, recheck time.Time) {
	benches = make([]bench, len(l.sites))
	for _, e := range l.held {
		b := &benches[e.site]
		b.observers++
		if !e.freshAt(now) {
			continue
		}
		b.fresh++
		if stale := e.born.Add(FreshFor + time.Nanosecond); recheck.IsZero() || stale.Before(recheck) {
			recheck = stale
		}
		switch e.abstains(now) {
		case AbstainNot:
			b.voters = append(b.voters, e.states)
		case AbstainOtherLayout:
			b.unread++
		}
	}
	return benches, recheck
}

// tally is a count of votes and what follows from it.
type tally struct {
	decided Status // StatusUp or StatusDown; StatusNone: the last verdict stands
	heard   bool   // somebody who has a say was heard lately
	voted   bool   // at least one of them voted
	up      int
	down    int
	abstain int
}

// count returns the up and down votes of a site's observers on target i.
func (b *bench) count(i int) (up, down int) {
	at, shift := uint(i)/4, uint(i)%4*2
	for _, states := range b.voters {
		switch Status(states[at]>>shift) & 3 {
		case StatusUp:
			up++
		case StatusDown:
			down++
		}
	}
	return up, down
}

// tallyBackend applies rule 2.
func tallyBackend(benches []bench, i int, p place) tally {
	if p.site < 0 {
		return tally{}
	}
	b := &benches[p.site]
	t := tally{heard: b.fresh > 0}
	t.up, t.down = b.count(i)
	t.voted = t.up+t.down > 0
	t.abstain = b.observers - t.up - t.down
	switch {
	case t.up > t.down:
		t.decided = StatusUp
	case t.down > t.up:
		t.decided = StatusDown
	}
	return t
}

// tallyVIP applies rules 3 and 4.
func tallyVIP(benches []bench, i int, p place) tally {
	var t tally
	voting := 0
	for site := range benches {
		if int32(site) == p.site {
			continue
		}
		b := &benches[site]
		t.heard = t.heard || b.fresh > 0
		up, down := b.count(i)
		if up+down > 0 {
			voting++
		}
		switch {
		case up > down:
			t.up++
		case down > up:
			t.down++
		default:
			t.abstain++
		}
	}
	t.voted = voting > 0
	switch {
	case 100*t.up > upSharePercent*voting:
		t.decided = StatusUp
	case 2*t.down > voting && !(voting == 1 && ownSiteHeard(benches, p)):
		t.decided = StatusDown
	}
	return t
}

// ownSiteHeard is the guard of rule 4.
func ownSiteHeard(benches []bench, p place) bool {
	if p.site < 0 {
		return false
	}
	own := &benches[p.site]
	if own.unread > 0 {
		return true
	}
	for i := p.backendsFrom; i < p.backendsTo; i++ {
		if up, _ := own.count(int(i)); up > 0 {
			return true
		}
	}
	return false
}

// confirms reports whether the votes only repeat what made the last verdict: the
// usual case, told apart cheaply.
func (t *tally) confirms(last *Verdict) bool {
	return t.decided != StatusNone && t.decided == last.Status && last.Why == WhyProbes && !last.Restored &&
		t.up == last.Up && t.down == last.Down && t.abstain == last.Abstain
}

// verdict returns what follows from the tally and the last verdict at now.
func (t tally) verdict(last Verdict, now time.Time) Verdict {
	v := Verdict{Status: last.Status, Since: last.Since, Up: t.up, Down: t.down, Abstain: t.abstain}
	switch {
	case t.decided != StatusNone:
		v.Why = WhyProbes
		if v.Status != t.decided {
			v.Status, v.Since = t.decided, now
		}
		return v
	case last.Restored:
		v.Why, v.Restored = WhyRestored, true
	case v.Status != StatusUp && v.Status != StatusDown && !t.voted:
		v.Why = WhyNeverProbed
	case t.heard:
		v.Why = WhyHeld
	default:
		v.Why = WhyStale
	}
	if v.Status == StatusNone {
		v.Status = StatusUnknown
	}
	return v
}
