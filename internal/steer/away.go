package steer

import (
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/health"
)

// A word is where a site states what it does about a prefix that requires a service.
type word struct {
	site          int // index into Config.Sites
	prefix        netip.Prefix
	serves, route int // indices into Layout.Targets
}

// indexWords finds, for each service, what sites state of the prefixes that require it.
func (t *Topology) indexWords() {
	t.words, t.worded = make([][]word, len(t.Services)), make(map[int][]int)
	for i := range t.Config.BGP.Prefixes {
		p := &t.Config.BGP.Prefixes[i]
		for _, name := range p.Sites {
			w := word{site: t.sites[name], prefix: p.Prefix}
			w.serves, _ = t.Layout.Index(health.PrefixTarget(health.KindServes, p.Prefix, name))
			w.route, _ = t.Layout.Index(health.PrefixTarget(health.KindRoute, p.Prefix, name))
			for _, required := range p.Requires {
				service, ok := t.services[required]
				if !ok {
					continue
				}
				t.words[service] = append(t.words[service], w)
				t.worded[w.serves] = append(t.worded[w.serves], service)
				t.worded[w.route] = append(t.worded[w.route], service)
			}
		}
	}
}

// away returns why a site is not to be answered with although nothing is found against it there, by its own word:
// its nodes are stopping, or it does not announce a prefix that requires the service, and does not say either that
// it could serve it. So a site that comes back announces first, and is answered with then. What a site said that is
// silent now counts for nothing, nor does what it says of a prefix that is itself ordered out. One node that announces
// is enough here, since its route leads to the site; to be counted on by others it takes most of the nodes (stands).
func (j *judgement) away(service, site int) Reason {
	if j.leaving(site) {
		return ReasonLeaving
	}
	words := j.t.words[service]
	for i := range words {
		w := &words[i]
		if w.site != site || j.orders != nil && severity(j.orders.order(j.orders.prefixes[w.prefix])) > severity(health.OrderUp) {
			continue
		}
		route, known := j.stated(w.route)
		serves, fresh := j.stated(w.serves)
		if known && route.Status == health.StatusDown && route.Up == 0 && !(fresh && serves.Status == health.StatusUp) {
			return ReasonAway
		}
	}
	return ReasonNone
}

// leaving reports whether all nodes of a site have said that they are stopping.
func (j *judgement) leaving(site int) bool {
	if j.view == nil || len(j.view.Leaving) == 0 {
		return false
	}
	_, found := slices.BinarySearch(j.view.Leaving, j.t.Config.Sites[site].Name)
	return found
}
