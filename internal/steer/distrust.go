package steer

import (
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// When at least half of all sites go down at once and only the others say so, it is
// more likely that the checks are broken than the sites.
const (
	// massFailureSites is the smallest fleet in which that can be told.
	massFailureSites = 3
	// distrustFor is how long such removals wait.
	distrustFor = 30 * time.Second
)

// A fallenSite is a site whose VIPs the others find dead, all of them.
type fallenSite struct {
	site int
	at   time.Time // when the last of them went down
}

// distrust looks for a mass failure and sets held. Sites that are out by order or by their own
// word are no part of it. It costs a look at one VIP for each site that is up.
func (j *judgement) distrust() {
	if len(j.t.siteVIPs) < massFailureSites {
		return
	}
	var fallen []fallenSite
	sites := 0
	for site, vips := range j.t.siteVIPs {
		if len(vips) == 0 || j.orders != nil && severity(j.orders.order(j.orders.sites[site])) > severity(health.OrderUp) {
			continue
		}
		sites++
		at := j.siteFellAt(site, vips)
		if at.After(j.facts.Now) { // a clock was set back: not now, but look again then
			j.wake, at = earlier(j.wake, at), time.Time{}
		}
		if !at.IsZero() {
			fallen = append(fallen, fallenSite{site, at})
		}
	}
	if sites < massFailureSites || 2*len(fallen) < sites {
		return
	}
	slices.SortStableFunc(fallen, func(a, b fallenSite) int { return a.at.Compare(b.at) })
	for from, to := 0, 0; from < len(fallen); from++ {
		for to < len(fallen) && fallen[to].at.Sub(fallen[from].at) < sameMoment {
			to++
		}
		if 2*(to-from) < sites {
			continue
		}
		if j.held == nil {
			j.held = make([]time.Time, len(j.t.Config.Sites))
		}
		until := fallen[to-1].at.Add(distrustFor)
		for _, f := range fallen[from:to] {
			j.held[f.site] = until
		}
		if until.After(j.facts.Now) {
			j.distrusted = until
		}
	}
}

// siteFellAt returns when the last of a site's VIPs went down by others' opinion; zero if one is not
// down, that counts as long ago, or the site has its own evidence for each.
func (j *judgement) siteFellAt(site int, vips []siteVIP) time.Time {
	var last time.Time
	for _, vip := range vips {
		if !j.down(vip.target) && !j.explained(vip, site) {
			return time.Time{}
		}
	}
	for _, vip := range vips {
		if j.explained(vip, site) {
			continue
		}
		at := j.fellAt([]int{vip.target})
		if at.IsZero() {
			return time.Time{}
		}
		if at.After(last) {
			last = at
		}
	}
	return last
}

// explained reports whether a VIP is no news: its service is out at the site by order or because
// all backends there are down.
func (j *judgement) explained(vip siteVIP, site int) bool {
	if severity(j.orders.order(j.orders.atPlace(vip.place, site))) > severity(health.OrderUp) {
		return true
	}
	backends := j.t.Services[vip.service].Sites[vip.position].Backends
	for _, target := range backends {
		if !j.down(target) {
			return false
		}
	}
	return len(backends) > 0
}

// heldUntil returns until when no removal by others' opinion is applied to a site; zero = now.
func (j *judgement) heldUntil(site int) time.Time {
	if j.held == nil {
		return time.Time{}
	}
	return j.held[site]
}

// A siteVIP is one VIP target of a site.
type siteVIP struct {
	place
	target int
}

// indexVIPs lists the VIP targets of each site, after compileTargets.
func (t *Topology) indexVIPs() {
	t.siteVIPs = make([][]siteVIP, len(t.Config.Sites))
	for i := range t.Services {
		for position := range t.Services[i].Sites {
			ss := &t.Services[i].Sites[position]
			for _, target := range ss.VIPs {
				t.siteVIPs[ss.Site] = append(t.siteVIPs[ss.Site], siteVIP{place{i, position}, target})
			}
		}
	}
}
