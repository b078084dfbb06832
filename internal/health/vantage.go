package health

import (
	"cmp"
	"slices"
)

// A Vantage says which sites observe a target.
type Vantage int16

// The vantages. A positive number n is n sites, chosen by rendezvous hashing: for a
// VIP among the sites other than its own; for a backend besides its own.
const (
	VantageDefault Vantage = 0  // a backend: its own site; a VIP: every other site
	VantageAll     Vantage = -1 // a backend: every site; a VIP: every other site
)

// of returns v as it is for a target of this kind: every negative number is
// VantageAll, which for a VIP is the default.
func (v Vantage) of(k Kind) Vantage {
	switch {
	case v >= 0:
		return v
	case k == KindVIP:
		return VantageDefault
	default:
		return VantageAll
	}
}

// Observers returns the sites that observe t, of sites (each once), sorted. Every
// node gets the same ones whatever the order of sites. Where v is a number, each
// site has a score that depends on it and t alone and the largest win (rendezvous
// hashing, Thaler and Ravishankar 1998): a site more takes a share of the targets
// from the others, a site less hands its own to the next, and nothing else moves.
func Observers(t Target, v Vantage, sites []string) []string {
	v = v.of(t.Kind)
	var out []string
	best := ranking{key: v.key(t), limit: int(v)}
	for _, site := range sites {
		switch {
		case site == t.Site:
			if t.Kind != KindVIP {
				out = append(out, site)
			}
		case v > 0:
			best.add(site)
		case v == VantageAll || t.Kind == KindVIP:
			out = append(out, site)
		}
	}
	out = append(out, best.sites...)
	slices.Sort(out)
	return out
}

// ranking is the sites with the largest scores for one target.
type ranking struct {
	key    uint64
	limit  int
	sites  []string // largest score first, among equals by name
	scores []uint64
}

// add offers a site.
func (r *ranking) add(site string) {
	score, at := scoreOf(r.key, site), len(r.sites)
	for at > 0 && cmp.Or(cmp.Compare(score, r.scores[at-1]), cmp.Compare(r.sites[at-1], site)) > 0 {
		at--
	}
	if at >= r.limit {
		return
	}
	r.sites, r.scores = slices.Insert(r.sites, at, site), slices.Insert(r.scores, at, score)
	if len(r.sites) > r.limit {
		r.sites, r.scores = r.sites[:r.limit], r.scores[:r.limit]
	}
}

// Observes reports whether site is one of Observers(t, v, sites), at the cost of
// one pass over sites and no allocation. A site that is not in sites does not.
func Observes(site string, t Target, v Vantage, sites []string) bool {
	v = v.of(t.Kind)
	own := site == t.Site
	switch {
	case own:
		return t.Kind != KindVIP && slices.Contains(sites, site)
	case v == VantageDefault && t.Kind != KindVIP:
		return false
	case v <= 0:
		return slices.Contains(sites, site)
	}
	key, known, better := v.key(t), false, 0
	score := scoreOf(key, site)
	for _, other := range sites {
		switch {
		case other == site:
			known = true
		case other == t.Site:
		case cmp.Or(cmp.Compare(scoreOf(key, other), score), cmp.Compare(site, other)) > 0:
			if better++; better >= int(v) {
				return false
			}
		}
	}
	return known
}

// The 64-bit FNV-1a parameters.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// fnvString goes on with an FNV-1a hash over s and a byte that ends it.
func fnvString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return (h ^ 0xff) * fnvPrime
}

// key hashes the identity of t where sites are chosen by it.
func (v Vantage) key(t Target) uint64 {
	if v <= 0 {
		return 0 // nobody looks at the scores
	}
	h := fnvString(fnvOffset, t.Service)
	h = fnvString(h, t.Site)
	addr, port := t.Addr.Addr().As16(), t.Addr.Port()
	for _, b := range addr {
		h = (h ^ uint64(b)) * fnvPrime
	}
	return (h ^ uint64(port) ^ uint64(t.Kind)<<16) * fnvPrime
}

// scoreOf is the score of a site for the target with this key. The finish is that
// of splitmix64: names that differ in one letter get unrelated scores.
func scoreOf(key uint64, site string) uint64 {
	z := fnvString(key, site)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
