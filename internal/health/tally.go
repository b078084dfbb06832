package health

import "time"

// upSharePercent is the share of sites that must see a VIP up for it to be up.
// The number is Route 53's: enough that one bad network region cannot keep a
// dead VIP in the answers of a large fleet, little enough that trouble between
// observers and target does not down what most users still reach.
const upSharePercent = 18

// HoldUp is how long what was down, and is observed by other sites, must be up
// without interruption before it counts as up: the time in which the observers
// that are slower to find out have their say.
const HoldUp = 2 * time.Second

// tally is a count of votes and what follows from it.
type tally struct {
	decided Status // StatusUp or StatusDown; StatusNone: the last verdict stands
	own     bool   // the own site's word alone decided
	hold    bool   // if it means to come up, it has to last
	frozen  bool   // nobody may decide: too few sites are heard
	heard   bool   // somebody who has a say was heard lately
	voted   bool   // at least one of them voted
	up      int
	down    int
	abstain int
}

// quorum counts the votes of the sites other than the target's own.
type quorum struct {
	sites  int // that have a say
	voting int
	up     int
	down   int
	heard  bool
	// firm and against are up and down if the votes that are not counted yet were:
	// what is down comes up against those, too.
	firm, against int
	mute          bool // no DOWN is counted yet: the target's own site is only just back
}

// add takes the vote of one site on target i.
func (q *quorum) add(b *bench, i int) {
	q.sites++
	if b.fresh == 0 {
		return
	}
	q.heard = true
	up, down := countOf(b.steady, i)
	against := down
	if len(b.back) > 0 {
		returned, waits := countOf(b.back, i)
		up, against = up+returned, down+waits
	}
	if q.mute {
		down = 0
	}
	if up+down > 0 {
		q.voting++
	}
	switch {
	case up > down:
		q.up++
	case down > up:
		q.down++
	}
	switch {
	case up > against:
		q.firm++
	case against > up:
		q.against++
	}
}

// hear adds the votes of the other sites on target i at p.
func (q *quorum) hear(l *Ledger, benches []bench, i int, p *place) {
	q.mute = p.site >= 0 && benches[p.site].returning
	if p.watchFrom != p.watchTo {
		for _, site := range l.watch[p.watchFrom:p.watchTo] {
			q.add(&benches[site], i)
		}
		return
	}
	for site := range benches {
		if int32(site) != p.site {
			q.add(&benches[site], i)
		}
	}
}

// overShare reports whether up of voting sites are more than 18 %.
func overShare(up, voting int) bool { return 100*up > upSharePercent*voting }

// decide applies rules 4 and 5 to a target whose last verdict was last.
func (q *quorum) decide(last *Verdict, benches []bench, p *place) Status {
	revived := last.Status != StatusDown || q.firm > q.against
	switch {
	case overShare(q.up, q.voting):
		if revived {
			return StatusUp
		}
	case 2*q.down > q.voting && !(q.voting == 1 && ownSiteHeard(benches, p)):
		return StatusDown
	}
	return StatusNone
}

// home applies rule 2.
func (t *tally) home(benches []bench, i int, p *place) {
	if p.site < 0 {
		return
	}
	b := &benches[p.site]
	up, down := b.count(i)
	t.up, t.down, t.abstain = up, down, b.observers-up-down
	t.heard, t.voted = b.fresh > 0, up+down > 0
	t.decided = majority(up, down)
}

// majority is what more of the votes say, StatusNone if they are equally many.
func majority(up, down int) Status {
	switch {
	case up > down:
		return StatusUp
	case down > up:
		return StatusDown
	default:
		return StatusNone
	}
}

// tallyAbroad applies rules 3 to 7 to a target that other sites observe.
func (l *Ledger) tallyAbroad(t *tally, benches []bench, i int, p *place, last *Verdict, minority bool) {
	var q quorum
	q.hear(l, benches, i, p)
	t.up, t.down, t.abstain = q.up, q.down, q.sites-q.up-q.down
	t.heard, t.voted, t.frozen = q.heard, q.voting > 0, minority
	if !minority {
		t.decided = q.decide(last, benches, p)
	}
	if !p.vip && p.site >= 0 {
		t.hearOwn(&benches[p.site], i, last, minority || q.voting == 0)
	}
	t.hold = last.Status == StatusDown && !(last.Restored && 2*q.firm > q.sites)
}

// hearOwn applies rule 3: what the own site says of a backend that others observe
// too. alone: there is nobody else to decide.
func (t *tally) hearOwn(own *bench, i int, last *Verdict, alone bool) {
	up, down := own.count(i)
	t.heard = t.heard || own.fresh > 0
	t.voted = t.voted || up+down > 0
	says := majority(up, down)
	switch says {
	case StatusUp:
		t.up++
	case StatusDown:
		t.down++
	default:
		t.abstain++
	}
	switch {
	case says == StatusDown && t.decided != StatusDown:
		t.decided, t.own = StatusDown, true
	case says == StatusUp && alone && (last.Own || last.Status != StatusDown):
		t.decided, t.own = StatusUp, true
	}
}

// ownSiteHeard is the guard of rule 5.
func ownSiteHeard(benches []bench, p *place) bool {
	if p.site < 0 {
		return false
	}
	own := &benches[p.site]
	if own.unread > 0 || p.backendsFrom == p.backendsTo && len(own.voters) > 0 {
		return true
	}
	for i := p.backendsFrom; i < p.backendsTo; i++ {
		if up, _ := own.count(int(i)); up > 0 {
			return true
		}
	}
	return false
}

// why is the reason of a verdict that the votes decide.
func (t *tally) why() Why {
	if t.own {
		return WhyOwnSite
	}
	return WhyProbes
}

// confirms reports whether the votes only repeat what made the last verdict: the
// usual case, told apart cheaply.
func (t *tally) confirms(last *Verdict) bool {
	return t.decided != StatusNone && t.decided == last.Status && last.Why == t.why() && !last.Restored &&
		t.up == last.Up && t.down == last.Down && t.abstain == last.Abstain
}

// verdict returns what follows from the tally and the last verdict, which is that
// of the view at before, at now.
func (t *tally) verdict(last Verdict, before, now time.Time) Verdict {
	v := Verdict{Status: last.Status, Since: last.Since, Up: t.up, Down: t.down, Abstain: t.abstain}
	if t.decided != StatusNone {
		if t.decided == StatusUp && last.Status == StatusDown && t.hold {
			if rising := risingSince(&last, before, now); now.Sub(rising) < HoldUp {
				v.Why, v.Rising, v.Restored, v.Own = WhyRising, rising, last.Restored, last.Own
				return v
			}
		}
		v.Why, v.Own = t.why(), t.own && t.decided == StatusDown
		if v.Status != t.decided {
			v.Status, v.Since = t.decided, now
		}
		return v
	}
	v.Own = last.Own
	switch {
	case last.Restored:
		v.Why, v.Restored = WhyRestored, true
	case v.Status != StatusUp && v.Status != StatusDown && !t.voted:
		v.Why = WhyNeverProbed
	case t.frozen:
		v.Why = WhyFrozen
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

// risingSince returns since when the votes have said up. It begins anew after a
// time in which nobody looked.
func risingSince(last *Verdict, before, now time.Time) time.Time {
	if last.Rising.IsZero() || last.Rising.After(now) || now.Sub(before) > FreshFor {
		return now
	}
	return last.Rising
}
