package steer

import (
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/health"
)

// service decides one service: each site on its merits and by its orders; then, for
// each family, who is kept in all the same.
func (j *judgement) service(i int) ServicePlan {
	s := &j.t.Services[i]
	sp := ServicePlan{Sites: make([]SitePlan, len(s.Sites))}
	backends := make([]BackendPlan, s.backendCount())
	for position := range s.Sites {
		n := len(s.Sites[position].Backends)
		sp.Sites[position] = j.site(place{i, position}, &s.Sites[position], backends[:n:n])
		backends = backends[n:]
	}
	for _, ipv6 := range [2]bool{false, true} {
		if s.Has(ipv6) {
			j.keep(i, &sp, ipv6)
		}
	}
	for position := range sp.Sites {
		site := &sp.Sites[position]
		site.settle()
		for _, a := range [2]*AnswerPlan{&site.V4, &site.V6} {
			sp.Degraded = sp.Degraded || (!a.Why.onMerits() && a.Why != ReasonNoAddress)
		}
		ss := &s.Sites[position]
		sp.Degraded = sp.Degraded || len(site.V4.Addresses)+len(site.V6.Addresses) < len(ss.V4)+len(ss.V6)
	}
	return sp
}

func (s *Service) backendCount() int {
	n := 0
	for i := range s.Sites {
		n += len(s.Sites[i].Backends)
	}
	return n
}

// site decides one site; backends is the memory for its pool. Only a verdict of Down
// excludes: unknown is no evidence. Orders come before verdicts.
func (j *judgement) site(at place, ss *ServiceSite, backends []BackendPlan) SitePlan {
	order := j.orders.order(j.orders.atPlace(at, ss.Site))
	var out [reasonCount]int
	active := 0
	for i, target := range ss.Backends {
		backends[i] = j.backend(ss, target, order)
		if backends[i].Active {
			active++
		} else {
			out[backends[i].Why]++
		}
	}
	why := ReasonNone
	switch {
	case order == health.OrderDown:
		why = ReasonOrderedDown
	case order == health.OrderDrain:
		why = ReasonDrained
	case order == health.OrderUp && (active > 0 || len(ss.Backends) == 0): // not if each backend is out by order
		why = ReasonOrderedUp
	case j.assumedSite(ss.Site):
		why = ReasonAssumedDown
	case len(ss.Backends) == 0 || active > 0:
		why = j.away(at.service, ss.Site)
	case out[ReasonAssumedDown] > 0:
		why = ReasonAssumedDown
	case out[ReasonBackendDown] > 0:
		why = ReasonBackendsDown
	case out[ReasonDrained] > 0:
		why = ReasonDrained
	default:
		why = ReasonOrderedDown
	}
	j.panic(at, backends, active)
	return SitePlan{Backends: backends, V4: j.answer(ss, false, why), V6: j.answer(ss, true, why)}
}

// panic gives work to the backends that are down as well, where so few are up that
// these could not carry it all: of many that fail at once, some may only seem to, and the others would be
// overrun one by one. Those out by order stay out and do not count. Where none is up the site is out, and panic is not asked.
func (j *judgement) panic(at place, backends []BackendPlan, active int) {
	threshold := j.t.Services[at.service].Config.Panic
	if threshold == 0 || active == 0 {
		return
	}
	down := func(b *BackendPlan) bool { return b.Why == ReasonBackendDown || b.Why == ReasonAssumedDown }
	all := active
	for i := range backends {
		if down(&backends[i]) {
			all++
		}
	}
	if float64(active) >= threshold*float64(all) {
		return
	}
	for i := range backends {
		if down(&backends[i]) {
			backends[i] = BackendPlan{Active: true, Why: ReasonPanic}
		}
	}
}

// backend decides one backend; order is what is ordered of the service at the site. A DRAIN of
// anything wider than the backend leaves it at work for what still arrives.
func (j *judgement) backend(ss *ServiceSite, target int, order health.Order) BackendPlan {
	own := health.OrderNone
	if j.orders != nil {
		own = j.orders.order(j.orders.atBackend(target))
	}
	switch {
	case order == health.OrderDown || own == health.OrderDown:
		return BackendPlan{Why: ReasonOrderedDown}
	case own == health.OrderDrain:
		return BackendPlan{Why: ReasonDrained}
	case order == health.OrderUp || own == health.OrderUp:
		return BackendPlan{Active: true, Why: ReasonOrderedUp}
	case j.down(target):
		return BackendPlan{Why: ReasonBackendDown}
	case j.assumedSite(ss.Site) || j.assumedBackend(target):
		return BackendPlan{Why: ReasonAssumedDown}
	default:
		return BackendPlan{Active: true}
	}
}

// answer decides one family of a site that is out or ordered up for the reason why, or fit.
func (j *judgement) answer(ss *ServiceSite, ipv6 bool, why Reason) AnswerPlan {
	addrs, targets := ss.addresses(ipv6)
	switch {
	case len(addrs) == 0:
		return AnswerPlan{Why: ReasonNoAddress}
	case why == ReasonOrderedUp:
		return AnswerPlan{Addresses: addrs, Why: why}
	case why != ReasonNone:
		return AnswerPlan{Why: why} // before the VIP: dead backends are the cause, a dead VIP what others see of it
	}
	reachable := j.reachable(addrs, targets)
	if len(reachable) == 0 {
		return AnswerPlan{Why: ReasonVIPDown}
	}
	return AnswerPlan{Addresses: reachable}
}

// reachable returns the addresses whose targets are not down.
func (j *judgement) reachable(addrs []netip.Addr, targets []int) []netip.Addr {
	down := 0
	for _, target := range targets {
		if j.down(target) {
			down++
		}
	}
	switch down {
	case 0:
		return addrs
	case len(addrs):
		return nil
	}
	reachable := make([]netip.Addr, 0, len(addrs)-down)
	for i, target := range targets {
		if !j.down(target) {
			reachable = append(reachable, addrs[i])
		}
	}
	return reachable
}

// measured reports whether some backend that works at the site, on its merits and not because something has
// to be answered for the other family, is known to be up or ordered up, or the
// site has none that could be.
func (j *judgement) measured(ss *ServiceSite, plan *SitePlan) bool {
	if len(ss.Backends) == 0 {
		return true
	}
	for i, target := range ss.Backends {
		if plan.Backends[i].Active && plan.Backends[i].Why.onMerits() && (plan.Backends[i].Why == ReasonOrderedUp || j.up(target)) {
			return true
		}
	}
	return false
}

// failing reports whether the verdicts, whatever is ordered, speak against a site: all its
// backends or all its VIPs of the family are down.
func (j *judgement) failing(ss *ServiceSite, ipv6 bool) bool {
	_, vips := ss.addresses(ipv6)
	alive := func(target int) bool { return !j.down(target) }
	return len(ss.Backends) > 0 && !slices.ContainsFunc(ss.Backends, alive) || len(vips) > 0 && !slices.ContainsFunc(vips, alive)
}

// answers reports whether some site answers for the family.
func (sp *ServicePlan) answers(ipv6 bool) bool {
	for i := range sp.Sites {
		if len(sp.Sites[i].answer(ipv6).Addresses) > 0 {
			return true
		}
	}
	return false
}

// settle sums the families up for the site: of those that answer the one that needs no excuse,
// else the first.
func (s *SitePlan) settle() {
	v4, v6 := len(s.V4.Addresses) > 0, len(s.V6.Addresses) > 0
	s.Eligible = v4 || v6
	switch {
	case v4 && s.V4.Why == ReasonNone, v6 && s.V6.Why == ReasonNone:
		s.Why = ReasonNone
	case v4:
		s.Why = s.V4.Why
	case v6:
		s.Why = s.V6.Why
	case s.V4.Why == ReasonNoAddress:
		s.Why = s.V6.Why
	default:
		s.Why = s.V4.Why
	}
}
