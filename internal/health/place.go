package health

import "slices"

// place is what the judge needs to know of one target.
type place struct {
	// abroad: other sites observe it, so that sites vote. A target of which only the
	// own site has a say is judged by its nodes.
	abroad bool
	vip    bool
	site   int32 // index into Ledger.sites, -1 if no observer is there
	// backends is the range in the layout whose being up proves the own site alive:
	// for a VIP the backends of the same service at the same site, for a backend itself.
	backendsFrom, backendsTo int32
	// watch is the range in Ledger.watch of the other sites that have a say; empty:
	// every other site.
	watchFrom, watchTo int32
}

// places fills in the places of the layout's targets. It uses the order of a
// layout: the backends of a service at a site come right before its VIPs.
func (l *Ledger) place() {
	l.places = make([]place, len(l.layout.Targets))
	from, to := 0, 0
	for i, t := range l.layout.Targets {
		site, found := slices.BinarySearch(l.sites, t.Site)
		others := len(l.sites)
		if found {
			others--
		} else {
			site = -1
		}
		if i == 0 || t.Service != l.layout.Targets[i-1].Service || t.Site != l.layout.Targets[i-1].Site {
			from, to = i, i
		}
		p := place{site: int32(site), vip: t.Kind == KindVIP, backendsFrom: int32(from), backendsTo: int32(to)}
		if !p.vip {
			to = i + 1
			p.backendsFrom, p.backendsTo = int32(i), int32(to)
		}
		v := l.layout.Vantage(i)
		p.abroad = p.vip || v != VantageDefault && others > 0
		if v > 0 && int(v) < others {
			p.watchFrom = int32(len(l.watch))
			for _, name := range Observers(t, v, l.sites) {
				if s, _ := slices.BinarySearch(l.sites, name); s != site {
					l.watch = append(l.watch, int32(s))
				}
			}
			p.watchTo = int32(len(l.watch))
		}
		l.places[i] = p
	}
}

// observedFrom reports whether nodes of a site have a say on a target at p.
func (l *Ledger) observedFrom(p place, site int) bool {
	switch {
	case int32(site) == p.site:
		return !p.vip
	case !p.abroad:
		return false
	default:
		return p.watchFrom == p.watchTo || slices.Contains(l.watch[p.watchFrom:p.watchTo], int32(site))
	}
}
