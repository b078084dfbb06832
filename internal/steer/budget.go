package steer

import (
	"cmp"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// The removal budget. Sites that only others find dead are taken out a few at a time: what
// the others share (a network, a resolver, a bad release of ours) may be what is broken.
const (
	// budgetPercent of a service's sites, at least one, may go in a budgetWindow.
	budgetPercent = 15
	budgetWindow  = time.Minute
	// sameMoment is the spread of verdicts that count as one: nodes hear the same reports at
	// slightly different times, and must come to the same order.
	sameMoment = 5 * time.Second
)

// A removal is a site that the others' verdicts take out of a family.
type removal struct {
	position int
	// since is when the newest of its VIPs went down; zero if that counts as long ago.
	since time.Time
	out   time.Time // when it is taken out; zero = long ago
}

// trace collects the removals that are held, for explanations.
type trace struct{ held []heldSite }

// A heldSite is a site that is held in.
type heldSite struct {
	position int
	ipv6     bool
	until    time.Time
}

// budget returns how many of n sites may be taken out in a budgetWindow.
func budget(n int) int { return max(1, n*budgetPercent/100) }

// hold puts sites back in that others' verdicts took out before that is due. known: some site of the
// family is measured; then a site that is not would not be in anyway.
//
// It is a pure function of the verdicts and their times, so nodes agree without
// telling each other: each removal is due when fewer than the budget happened in
// the window before it, in the order of the verdicts.
func (j *judgement) hold(i int, sp *ServicePlan, ipv6, known bool) {
	s := &j.t.Services[i]
	var removals []removal
	sites := 0
	for position := range s.Sites {
		a := sp.Sites[position].answer(ipv6)
		if a.Why != ReasonNoAddress {
			sites++
		}
		if a.Why == ReasonVIPDown && (!known || j.measured(&s.Sites[position], &sp.Sites[position])) {
			_, vips := s.Sites[position].addresses(ipv6)
			since := j.fellAt(vips)
			if since.After(j.facts.Now) { // a clock was set back: do not wait for it
				sp.Recheck = earlier(sp.Recheck, since)
				since = time.Time{}
			}
			removals = append(removals, removal{position: position, since: since})
		}
	}
	j.schedule(s, removals, budget(sites))
	for _, r := range removals {
		if !j.facts.Now.Before(r.out) {
			continue
		}
		ss := &s.Sites[r.position]
		why := ReasonBudget
		if j.facts.Now.Before(j.heldUntil(ss.Site)) {
			why = ReasonMassFailure
		}
		addrs, _ := ss.addresses(ipv6)
		*sp.Sites[r.position].answer(ipv6) = AnswerPlan{Addresses: addrs, Why: why}
		sp.Recheck = earlier(sp.Recheck, r.out)
		if j.trace != nil {
			j.trace.held = append(j.trace.held, heldSite{r.position, ipv6, r.out})
		}
	}
}

// schedule sorts removals and says when each is due.
func (j *judgement) schedule(s *Service, removals []removal, budget int) {
	slices.SortFunc(removals, func(a, b removal) int { return cmp.Or(a.since.Compare(b.since), a.position-b.position) })
	for from := 0; from < len(removals); {
		moment := removals[from].since
		to := from + 1
		for to < len(removals) && removals[to].since.Sub(moment) < sameMoment {
			to++
		}
		slices.SortFunc(removals[from:to], func(a, b removal) int { return a.position - b.position })
		for k := from; k < to; k++ {
			removals[k].out = moment
		}
		from = to
	}
	var due []time.Time // of those before, without the old ones: nobody spent a budget on them
	for k := range removals {
		r := &removals[k]
		if r.since.IsZero() {
			continue
		}
		if until := j.heldUntil(s.Sites[r.position].Site); until.After(r.out) {
			r.out = until
		}
		if n := len(due); n >= budget {
			if next := due[n-budget].Add(budgetWindow); next.After(r.out) {
				r.out = next
			}
		}
		due = append(due, r.out)
		slices.SortFunc(due, time.Time.Compare)
	}
}

// fellAt returns when the newest of these VIPs, all down, went down; zero when
// that counts as long ago: the verdicts were adopted, not made here.
func (j *judgement) fellAt(vips []int) time.Time {
	var newest health.Verdict
	for _, target := range vips {
		if v := j.verdict(target); v.Since.After(newest.Since) {
			newest = v
		}
	}
	if newest.Restored || j.adopted(newest.Since) {
		return time.Time{}
	}
	return newest.Since
}

// adopted reports whether a verdict of this time was found, not made, when this node became current.
func (j *judgement) adopted(since time.Time) bool {
	return !j.facts.Current.IsZero() && since.Sub(j.facts.Current).Abs() <= sameMoment
}
