package health

import (
	"slices"
	"time"
)

// A Moment is what Judge needs to know besides the reports.
type Moment struct {
	Now time.Time
	// Connected: this node has evidence, other than gossip, that it is not cut off
	// (its canaries answer). It may then judge other sites however few it hears.
	Connected bool
}

// Judge makes the view at a moment from the reports and the previous view, which
// may be nil, may have another layout (after a reload) and may be restored from
// disk. It is a pure function of the ledger, prev and m; the order in which
// reports arrived does not matter. The rules:
//
//  1. A vote is a statement up or down in a fresh report. Whoever is stale, in
//     conflict, doubtful, leaving, undecided or speaks by an unknown layout
//     abstains. Silence is never a vote.
//  2. A backend that only its own site observes is judged by the nodes of that
//     site, by majority.
//  3. A backend that other sites observe too (VantageAll, or a number) is down at
//     once when its own site says so, whatever the others say. Otherwise the others
//     judge it like a VIP. Where none of them votes, the own site's UP stands for
//     what is not down, and takes back a DOWN that was its own word alone.
//  4. A VIP is judged by the other sites of its vantage, one vote a site: the
//     majority of its nodes; a site whose nodes are split votes for neither.
//     It is down if at most 18 % of the voting sites say up and more than half say
//     down. It stays up, or comes up for the first time, if more than 18 % say up.
//     Once down it comes up only if moreover more sites say up than down, and that
//     for HoldUp without interruption. A DOWN from disk is not held if more
//     than half of all sites that have a say say up.
//  5. Where a single outside site votes, it cannot down a VIP while the VIP's own
//     site is heard: while a fresh report of one of its nodes says that a backend
//     of the service there is up, or cannot be read, or there is no backend to speak of. If the own site is silent,
//     the single outside site may.
//  6. In a minority (View.Minority) no verdict on what other sites observe
//     changes, but for the own site's word in rule 3.
//  7. An observer that was silent for longer than FreshFor, and every observer when
//     this node leaves a minority, says DOWN of other sites' targets in vain for
//     Settle; only against coming up does it count. So does everybody of the
//     targets of a site that was silent as a whole.
//  8. An observer that contradicts the others on most of what they observe together
//     is distrusted: it has no say on other sites' targets. See distrust.
//  9. In every other case (tie, no votes) the last verdict stands.
//  10. A verdict restored from disk stays marked as such until votes decide.
//
// The time at which it could come out differently without a new report is the
// view's Recheck. Cost: a few milliseconds for 10,000 services at three sites,
// the same whether all is up or all is down; if no verdict differs from prev's,
// the new view shares prev's Verdicts.
func (l *Ledger) Judge(prev *View, m Moment) *View {
	view := &View{Layout: l.layout, At: m.Now}
	before := m.Now
	if prev != nil {
		before = prev.At
	}
	l.attend(view, prev, m.Connected)
	l.distrust(view)
	view.Leaving = l.leaving()
	l.judged = view
	benches := l.benches(view)
	last, shared := previousVerdicts(prev, l.layout)
	view.Verdicts = last
	var t tally
	for i := range l.places {
		p := &l.places[i]
		t = tally{}
		if p.abroad {
			l.tallyAbroad(&t, benches, i, p, &last[i], view.Minority)
		} else {
			t.home(benches, i, p)
		}
		if t.confirms(&last[i]) {
			continue
		}
		v := t.verdict(last[i], before, m.Now)
		if !v.Rising.IsZero() {
			view.recheck(v.Rising.Add(HoldUp))
		}
		if v == last[i] {
			continue
		}
		if shared {
			view.Verdicts, shared = slices.Clone(last), false
			view.rewritten = &rewritten{from: &last[0], to: &view.Verdicts[0]}
		}
		view.Verdicts[i] = v
		if view.rewritten != nil {
			view.rewritten.targets = append(view.rewritten.targets, i)
		}
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
