package health

import (
	"slices"
	"time"
)

// Settle is how long an observer that was silent for more than FreshFor, or was
// on the other side of a cut, has to find out again what it says of other sites'
// targets before its DOWN counts. Its UP counts at once: to be reached is proof,
// not to be reached is what the cut looked like.
const Settle = 3 * time.Second

// A Witness is what a View remembers of one observer for the next judgement. It
// lives in the view and not in the ledger, so that Judge stays a function of what
// it is given.
type Witness struct {
	// Name is the observer's.
	Name string
	// Born is when its newest report was made, by this node's clock; zero if never heard.
	Born time.Time
	// Fresh: that report was at most FreshFor old.
	Fresh bool
	// Returned is when it was heard again after a gap; zero once Settle has passed.
	Returned time.Time
	// Distrusted: it contradicts the others; its votes on other sites' targets do not count.
	Distrusted bool
}

// witness returns what v remembers of an observer, the zero Witness if nothing.
// at is where it probably stands.
func (v *View) witness(name string, at int) Witness {
	if v == nil {
		return Witness{}
	}
	if at < len(v.Witnesses) && v.Witnesses[at].Name == name {
		return v.Witnesses[at]
	}
	i, ok := slices.BinarySearchFunc(v.Witnesses, name, func(w Witness, name string) int {
		switch {
		case w.Name < name:
			return -1
		case w.Name > name:
			return 1
		}
		return 0
	})
	if !ok {
		return Witness{}
	}
	return v.Witnesses[i]
}

// attend fills in who is heard: Sites, Heard, Minority and what follows from
// them, and the Witnesses, whose distrust is still that of prev.
func (l *Ledger) attend(v, prev *View, connected bool) {
	now := v.At
	v.Witnesses = make([]Witness, len(l.held))
	l.scratch.abstains = slices.Grow(l.scratch.abstains[:0], len(l.held))[:len(l.held)]
	siteHeard := cleared(&l.scratch.siteHeard, len(l.sites))
	for k, e := range l.held {
		was := prev.witness(e.name, k)
		w := &v.Witnesses[k]
		w.Name = e.name
		l.scratch.abstains[k] = e.abstains(now)
		if e.report == nil {
			continue
		}
		w.Born, w.Fresh, w.Distrusted = e.born, l.scratch.abstains[k] != AbstainStale, was.Distrusted
		if !w.Fresh {
			continue
		}
		siteHeard[e.site] = true
		v.recheck(e.born.Add(FreshFor + time.Nanosecond))
		switch known := !was.Born.IsZero(); {
		case known && (!was.Fresh || e.born.Sub(was.Born) > FreshFor):
			w.Returned = now
		case settling(was.Returned, now):
			w.Returned = was.Returned
		}
	}
	v.Sites = len(l.sites)
	for _, heard := range siteHeard {
		if heard {
			v.Heard++
		}
	}
	v.Minority = 2*v.Heard < v.Sites && !connected
	v.takeSides(prev)
	for k := range v.Witnesses {
		if r := v.Witnesses[k].Returned; !r.IsZero() {
			v.recheck(r.Add(Settle))
		}
	}
}

// takeSides follows this node into a minority and out of it. When it leaves one,
// everybody it hears has returned, itself included: what they say of each other
// was found during the cut. A node that has just started is in a minority until
// it is told of the others; that is no cut unless it lasts.
func (v *View) takeSides(prev *View) {
	if prev != nil {
		v.Joined, v.MinoritySince = prev.Joined, prev.MinoritySince
	}
	if v.Minority {
		if v.MinoritySince.IsZero() || v.MinoritySince.After(v.At) {
			v.MinoritySince = v.At
		}
		return
	}
	if since := v.MinoritySince; !since.IsZero() && (v.Joined || v.At.Sub(since) > FreshFor) {
		for k := range v.Witnesses {
			if v.Witnesses[k].Fresh {
				v.Witnesses[k].Returned = v.At
			}
		}
	}
	v.Joined, v.MinoritySince = true, time.Time{}
}

// settling reports whether an observer that returned then is still to be heard
// with care.
func settling(returned, now time.Time) bool {
	return !returned.IsZero() && !now.Before(returned) && now.Sub(returned) < Settle
}

// recheck makes v.Recheck no later than t.
func (v *View) recheck(t time.Time) {
	if v.Recheck.IsZero() || t.Before(v.Recheck) {
		v.Recheck = t
	}
}

// bench is what the observers of one site can say at one moment.
type bench struct {
	observers int      // in the fleet
	fresh     int      // heard lately, whether they vote or not
	unread    int      // fresh and trusted, but speaking by another layout
	voters    [][]byte // the states of those that vote
	steady    [][]byte // of those whose votes on other sites' targets count
	back      [][]byte // of those whose UP on other sites' targets counts, but not yet their DOWN
	returning bool     // all that are fresh are settling: the site was cut off as a whole
}

// clear empties b and keeps its room.
func (b *bench) clear() {
	*b = bench{voters: b.voters[:0], steady: b.steady[:0], back: b.back[:0]}
}

// cleared returns n zero values in the room of buf.
func cleared[T any](buf *[]T, n int) []T {
	*buf = slices.Grow((*buf)[:0], n)[:n]
	clear(*buf)
	return *buf
}

// benches seats the observers by what v says of them.
func (l *Ledger) benches(v *View) []bench {
	if l.scratch.benches == nil {
		l.scratch.benches = make([]bench, len(l.sites))
	}
	benches := l.scratch.benches
	for k := range benches {
		benches[k].clear()
	}
	for k, e := range l.held {
		b, w := &benches[e.site], &v.Witnesses[k]
		b.observers++
		if !w.Fresh {
			continue
		}
		b.returning = !w.Returned.IsZero() && (b.fresh == 0 || b.returning)
		b.fresh++
		switch l.scratch.abstains[k] {
		case AbstainNot:
			b.voters = append(b.voters, e.states)
			switch {
			case w.Distrusted:
			case !w.Returned.IsZero():
				b.back = append(b.back, e.states)
			default:
				b.steady = append(b.steady, e.states)
			}
		case AbstainOtherLayout:
			b.unread++
		}
	}
	return benches
}

// count returns the up and down votes of a site's observers on target i of their own site.
func (b *bench) count(i int) (up, down int) { return countOf(b.voters, i) }

func countOf(voters [][]byte, i int) (up, down int) {
	at, shift := uint(i)/4, uint(i)%4*2
	for _, states := range voters {
		switch Status(states[at]>>shift) & 3 {
		case StatusUp:
			up++
		case StatusDown:
			down++
		}
	}
	return up, down
}
