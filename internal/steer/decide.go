package steer

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/internal/health"
)

// Decide is the one pure decision: the same topology, verdicts and facts give
// the same services on every node and the same routes on this one. previous
// may be nil; from it come the generation, the memory that has not changed and
// the routes that stand. A view of another layout, or none, is read target by target; what it
// does not know is unknown, which is eligible.
func Decide(t *Topology, view *health.View, facts Facts, previous *Plan) *Plan {
	facts.AssumeDown = slices.Compact(slices.Sorted(slices.Values(facts.AssumeDown)))
	p := &Plan{
		Generation: 1,
		Topology:   t,
		View:       view,
		Facts:      facts,
		Services:   make([]ServicePlan, len(t.Services)),
	}
	j := newJudgement(t, view, facts.AssumeDown)
	if len(facts.Own) == len(t.Layout.Targets) {
		j.own = facts.Own
	}
	var before *judgement
	if previous != nil {
		p.Generation = previous.Generation + 1
		if previous.Topology == t && slices.Equal(previous.Facts.AssumeDown, facts.AssumeDown) {
			before = newJudgement(t, previous.View, facts.AssumeDown)
		}
	}
	for i := range t.Services {
		if before != nil && j.same(before, &t.Services[i]) {
			p.Services[i] = previous.Services[i]
			continue
		}
		p.Services[i] = j.service(&t.Services[i])
		if previous != nil && previous.Topology == t && p.Services[i].equal(&previous.Services[i]) {
			p.Services[i] = previous.Services[i]
		}
	}
	p.Routes = j.routes(facts.Ready, previous)
	return p
}

// A judgement is the verdicts of one view on the targets of one topology,
// together with what is assumed.
type judgement struct {
	t        *Topology
	view     *health.View
	aligned  bool   // view is indexed like t.Layout
	sites    []bool // by index into Config.Sites: assumed down; nil = none
	backends map[netip.AddrPort]bool
	own      []health.Status // this node's own probes, by target; nil = not known
}

func newJudgement(t *Topology, view *health.View, assumeDown []string) *judgement {
	j := &judgement{t: t, view: view}
	j.aligned = view != nil && view.Layout != nil && len(view.Verdicts) == len(t.Layout.Targets) &&
		(view.Layout == t.Layout || slices.Equal(view.Layout.Targets, t.Layout.Targets))
	for _, text := range assumeDown {
		if site, ok := t.sites[text]; ok {
			if j.sites == nil {
				j.sites = make([]bool, len(t.Config.Sites))
			}
			j.sites[site] = true
		} else if addr, err := netip.ParseAddrPort(text); err == nil {
			if j.backends == nil {
				j.backends = make(map[netip.AddrPort]bool)
			}
			j.backends[addr] = true
		}
	}
	return j
}

// CheckAssumptions reports the first of the things to be assumed down that is neither a site
// nor a backend of this topology.
func (t *Topology) CheckAssumptions(assumeDown []string) error {
	for _, text := range assumeDown {
		if _, ok := t.sites[text]; ok {
			continue
		}
		if addr, err := netip.ParseAddrPort(text); err == nil {
			if _, ok := t.backends[addr]; ok {
				continue
			}
			return fmt.Errorf("assume %q down: no service has a backend of this address", text)
		}
		var sites []string
		for i := range t.Config.Sites {
			sites = append(sites, t.Config.Sites[i].Name)
		}
		return fmt.Errorf("assume %q down: neither a site nor the address:port of a backend%s", text, didYouMean(text, sites))
	}
	return nil
}

// verdict returns the verdict on target i of the topology's layout.
func (j *judgement) verdict(i int) health.Verdict {
	if j.aligned {
		return j.view.Verdicts[i]
	}
	return j.view.Of(j.t.Layout.Targets[i])
}

func (j *judgement) down(i int) bool {
	if j.aligned {
		return j.view.Verdicts[i].Status == health.StatusDown
	}
	return j.verdict(i).Status == health.StatusDown
}

func (j *judgement) up(i int) bool { return j.verdict(i).Status == health.StatusUp }

// measured reports whether some backend of the site is known to be up, or the
// site has none that could be.
func (j *judgement) measured(ss *ServiceSite) bool {
	return len(ss.Backends) == 0 || slices.ContainsFunc(ss.Backends, func(i int) bool {
		return j.up(i) && !j.assumedBackend(i)
	})
}

// same reports whether the verdicts on a service's targets say the same in both.
func (j *judgement) same(before *judgement, s *Service) bool {
	for i := range s.Sites {
		for _, targets := range [2][]int{s.Sites[i].Backends, s.Sites[i].VIPs} {
			for _, target := range targets {
				if j.down(target) != before.down(target) || j.up(target) != before.up(target) {
					return false
				}
			}
		}
	}
	return true
}

func (j *judgement) assumedSite(site int) bool { return j.sites != nil && j.sites[site] }

func (j *judgement) assumedBackend(target int) bool {
	return j.backends != nil && j.backends[j.t.Layout.Targets[target].Addr]
}

// service decides one service: each site on its merits, then, for each
// family that this leaves without an answer, all sites that have one.
func (j *judgement) service(s *Service) ServicePlan {
	sp := ServicePlan{Sites: make([]SitePlan, len(s.Sites))}
	backends := make([]BackendPlan, s.backendCount())
	for i := range s.Sites {
		n := len(s.Sites[i].Backends)
		sp.Sites[i] = j.site(&s.Sites[i], backends[:n:n])
		backends = backends[n:]
	}
	for _, ipv6 := range [2]bool{false, true} {
		j.preferMeasured(s, &sp, ipv6)
		if s.Has(ipv6) && !sp.answers(ipv6) {
			sp.failOpen(s, ipv6)
		}
	}
	for i := range sp.Sites {
		site := &sp.Sites[i]
		site.settle()
		for _, a := range [2]*AnswerPlan{&site.V4, &site.V6} {
			sp.Degraded = sp.Degraded || (a.Why != ReasonNone && a.Why != ReasonNoAddress)
		}
		sp.Degraded = sp.Degraded || len(site.V4.Addresses)+len(site.V6.Addresses) < len(s.Sites[i].V4)+len(s.Sites[i].V6)
	}
	return sp
}

// preferMeasured takes out the sites that nothing is known of, a new one for
// instance, while another is measured up: what works is not left for what may.
// Where nothing is measured anywhere, the unknown is used.
func (j *judgement) preferMeasured(s *Service, sp *ServicePlan, ipv6 bool) {
	answers := func(i int) bool { return len(sp.Sites[i].answer(ipv6).Addresses) > 0 }
	known := false
	for i := range s.Sites {
		known = known || answers(i) && j.measured(&s.Sites[i])
	}
	for i := range s.Sites {
		if known && answers(i) && !j.measured(&s.Sites[i]) {
			*sp.Sites[i].answer(ipv6) = AnswerPlan{Why: ReasonNoEvidence}
		}
	}
}

func (s *Service) backendCount() int {
	n := 0
	for i := range s.Sites {
		n += len(s.Sites[i].Backends)
	}
	return n
}

// site decides one site on its merits; backends is the memory for its pool.
// Only a verdict of Down excludes: unknown is no evidence.
func (j *judgement) site(ss *ServiceSite, backends []BackendPlan) SitePlan {
	plan := SitePlan{Backends: backends}
	out, assumed := 0, 0
	for i, target := range ss.Backends {
		switch {
		case j.down(target):
			out++
			backends[i] = BackendPlan{Why: ReasonBackendDown}
		case j.assumedSite(ss.Site) || j.assumedBackend(target):
			out++
			assumed++
			backends[i] = BackendPlan{Why: ReasonAssumedDown}
		default:
			backends[i] = BackendPlan{Active: true}
		}
	}
	why := ReasonNone
	switch {
	case j.assumedSite(ss.Site):
		why = ReasonAssumedDown
	case len(ss.Backends) > 0 && out == len(ss.Backends) && assumed > 0:
		why = ReasonAssumedDown
	case len(ss.Backends) > 0 && out == len(ss.Backends):
		why = ReasonBackendsDown
	}
	plan.V4 = j.answer(ss, false, why)
	plan.V6 = j.answer(ss, true, why)
	return plan
}

// answer decides one family of a site that is out for the reason why, or fit.
func (j *judgement) answer(ss *ServiceSite, ipv6 bool, why Reason) AnswerPlan {
	addrs, targets := ss.addresses(ipv6)
	if len(addrs) == 0 {
		return AnswerPlan{Why: ReasonNoAddress}
	}
	if why != ReasonNone {
		return AnswerPlan{Why: why} // before the VIP: dead backends are the cause, a dead VIP what others see of it
	}
	down := 0
	for _, target := range targets {
		if j.down(target) {
			down++
		}
	}
	switch {
	case down == len(addrs):
		return AnswerPlan{Why: ReasonVIPDown}
	case down == 0:
		return AnswerPlan{Addresses: addrs}
	}
	reachable := make([]netip.Addr, 0, len(addrs)-down)
	for i, target := range targets {
		if !j.down(target) {
			reachable = append(reachable, addrs[i])
		}
	}
	return AnswerPlan{Addresses: reachable}
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

// failOpen uses every site that has an address of the family, and all their
// backends: when everything looks down, what looks is more likely broken than
// everything, and an answer that may work beats none.
func (sp *ServicePlan) failOpen(s *Service, ipv6 bool) {
	sp.FailOpen = true
	for i := range sp.Sites {
		addrs, _ := s.Sites[i].addresses(ipv6)
		if len(addrs) == 0 {
			continue
		}
		*sp.Sites[i].answer(ipv6) = AnswerPlan{Addresses: addrs, Why: ReasonFailOpen}
		for b := range sp.Sites[i].Backends {
			if backend := &sp.Sites[i].Backends[b]; !backend.Active {
				*backend = BackendPlan{Active: true, Why: ReasonFailOpen}
			}
		}
	}
}

// settle sums the families up for the site.
func (s *SitePlan) settle() {
	v4, v6 := len(s.V4.Addresses) > 0, len(s.V6.Addresses) > 0
	s.Eligible = v4 || v6
	switch {
	case v4 && s.V4.Why == ReasonNone, v6 && s.V6.Why == ReasonNone:
		s.Why = ReasonNone
	case v4, v6:
		s.Why = ReasonFailOpen
	case s.V4.Why == ReasonNoAddress:
		s.Why = s.V6.Why
	default:
		s.Why = s.V4.Why
	}
}
