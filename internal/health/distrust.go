package health

import (
	"cmp"
	"slices"
)

const (
	// minContrasts is on how many targets an observer must be comparable with the
	// others before it can be distrusted.
	minContrasts = 4
	// maxDistrusted: at most one observer of this many voting ones is distrusted.
	maxDistrusted = 3
)

// contrast is how one observer compares with the others on the targets of other
// sites that it and at least two others speak of.
type contrast struct {
	compared int
	contrary int // it said the opposite of what most sites said without it
}

// contrasts is the last comparison and what it was made from: it costs as much as
// judging, and is made again only if somebody says something else.
type contrasts struct {
	changes uint64 // Ledger.changes at the time
	who     []bool // indexed like held: was compared
	of      []contrast
}

// distrust applies rule 8: it marks the witnesses whose votes on other sites'
// targets do not count. An observer is distrusted when it contradicts the others
// on more than half of at least four such targets, and trusted again when on less
// than a quarter; "the others" are one vote a site, so that a site with many nodes
// does not outvote the rest. Of the observers that vote at most a third are
// distrusted, the worst first, among equals the first by name: where more
// contradict, it is the world that is split. Of an observer that returns from
// silence what was thought before stands until it has settled.
func (l *Ledger) distrust(v *View) {
	comparable, voting := cleared(&l.scratch.comparable, len(l.held)), 0
	for k, why := range l.scratch.abstains {
		if why != AbstainNot {
			continue
		}
		voting++
		comparable[k] = v.Witnesses[k].Returned.IsZero()
	}
	if l.contrasts.of == nil || l.contrasts.changes != l.changes || !slices.Equal(l.contrasts.who, comparable) {
		l.contrasts = contrasts{l.changes, slices.Clone(comparable), l.compare(comparable)}
	}
	var suspects []int
	for k, why := range l.scratch.abstains {
		w := &v.Witnesses[k]
		if comparable[k] {
			w.Distrusted = l.contrasts.of[k].bad(w.Distrusted)
		}
		if w.Distrusted && why == AbstainNot {
			suspects = append(suspects, k)
		}
	}
	room := voting / maxDistrusted
	if len(suspects) <= room {
		return
	}
	slices.SortFunc(suspects, func(a, b int) int {
		x, y := l.contrasts.of[a], l.contrasts.of[b]
		return cmp.Or(cmp.Compare(y.contrary*max(x.compared, 1), x.contrary*max(y.compared, 1)), cmp.Compare(a, b))
	})
	for _, k := range suspects[room:] {
		v.Witnesses[k].Distrusted = false
	}
}

// bad reports whether an observer is distrusted, given whether it was.
func (c contrast) bad(was bool) bool {
	switch {
	case c.compared < minContrasts:
		return false
	case was:
		return 4*c.contrary >= c.compared
	default:
		return 2*c.contrary > c.compared
	}
}

// compare contrasts the observers with each other.
func (l *Ledger) compare(who []bool) []contrast {
	out := make([]contrast, len(l.held))
	if l.scratch.panels == nil {
		l.scratch.panels = make([]panel, len(l.sites))
	}
	panels := l.scratch.panels
	for k := range panels {
		panels[k] = panel{seats: panels[k].seats[:0], states: panels[k].states[:0]}
	}
	for k, e := range l.held {
		if who[k] {
			panels[e.site].seat(k, e.states)
		}
	}
	for i := range l.places {
		if p := &l.places[i]; p.abroad {
			l.compareOn(i, p, panels, out)
		}
	}
	return out
}

// panel is one site's observers that are compared.
type panel struct {
	seats    []int // indices into Ledger.held
	states   [][]byte
	up, down int // their votes on the target at hand
}

func (p *panel) seat(k int, states []byte) {
	p.seats, p.states = append(p.seats, k), append(p.states, states)
}

// compareOn adds what the observers abroad say of target i.
func (l *Ledger) compareOn(i int, p *place, panels []panel, out []contrast) {
	ups, downs, votes, dissent := 0, 0, 0, false
	for site := range panels {
		b := &panels[site]
		b.up, b.down = 0, 0
		if int32(site) == p.site || !l.observedFrom(*p, site) {
			continue
		}
		b.up, b.down = countOf(b.states, i)
		votes += b.up + b.down
		switch majority(b.up, b.down) {
		case StatusUp:
			ups++
		case StatusDown:
			downs++
		}
		dissent = dissent || b.up > 0 && b.down > 0
	}
	if votes < 3 { // nobody has two others
		return
	}
	dissent = dissent || ups > 0 && downs > 0
	for site := range panels {
		b := &panels[site]
		if b.up+b.down == 0 {
			continue
		}
		for n, k := range b.seats {
			s := statusAt(b.states[n], i)
			if s != StatusUp && s != StatusDown {
				continue
			}
			out[k].compared++
			if dissent && b.contradicts(s, ups-downs) {
				out[k].contrary++
			}
		}
	}
}

// contradicts reports whether a vote of one of the panel is the opposite of what
// most sites say without it; lead is by how many sites up leads with it.
func (p *panel) contradicts(s Status, lead int) bool {
	lead -= sign(p.up - p.down)
	if s == StatusUp {
		return lead+sign(p.up-1-p.down) < 0
	}
	return lead+sign(p.up-p.down+1) > 0
}

func sign(n int) int { return cmp.Compare(n, 0) }
