package steer

// keep applies to one family of a service what keeps sites in, or what is not measured out. In
// this order: nobody fit (fail-open), unmeasured next to measured, removals
// held (distrust, budget), the minimum of sites.
func (j *judgement) keep(i int, sp *ServicePlan, ipv6 bool) {
	s := &j.t.Services[i]
	switch {
	case !sp.answers(ipv6):
		j.failOpen(s, sp, ipv6)
	default:
		known := j.preferMeasured(s, sp, ipv6)
		j.hold(i, sp, ipv6, known)
	}
	j.minimum(s, sp, ipv6)
}

// preferMeasured takes out the sites that nothing is known of, a new one for
// instance, while another is measured up: what works is not left for what may.
// Where nothing is measured anywhere, the unknown is used. It reports whether something is measured.
func (j *judgement) preferMeasured(s *Service, sp *ServicePlan, ipv6 bool) (known bool) {
	for i := range s.Sites {
		if len(sp.Sites[i].answer(ipv6).Addresses) > 0 && j.measured(&s.Sites[i], &sp.Sites[i]) {
			known = true
			break
		}
	}
	for i := range s.Sites {
		a := sp.Sites[i].answer(ipv6)
		if known && len(a.Addresses) > 0 && !j.measured(&s.Sites[i], &sp.Sites[i]) {
			*a = AnswerPlan{Why: ReasonNoEvidence}
		}
	}
	return known
}

// The order in which what is out comes back when it has to. Operators' orders
// yield last, and among what they took out the ones that also fail.
const (
	yieldUnmeasured = iota
	yieldVIPDown
	yieldBackendsDown
	yieldDrained
	yieldDrainedFailing
	yieldDown
	yieldDownFailing
	yieldCount
)

// yields returns the place in that order of a site that is out, yieldCount if
// it cannot come back.
func (j *judgement) yields(ss *ServiceSite, a *AnswerPlan, ipv6 bool) int {
	class := yieldCount
	switch a.Why {
	case ReasonNoEvidence:
		return yieldUnmeasured
	case ReasonVIPDown, ReasonAway, ReasonLeaving:
		return yieldVIPDown
	case ReasonBackendsDown, ReasonAssumedDown:
		return yieldBackendsDown
	case ReasonDrained:
		class = yieldDrained
	case ReasonOrderedDown:
		class = yieldDown
	default:
		return yieldCount
	}
	if j.failing(ss, ipv6) {
		class++
	}
	return class
}

// failOpen is for a family that no site is fit for. It uses every site that is out for its
// health, and all their backends: when everything looks down, what looks is more likely
// broken than everything, and an answer that may work beats none. Where all are out by order, those
// that yield first: an order never empties a name.
func (j *judgement) failOpen(s *Service, sp *ServicePlan, ipv6 bool) {
	class := func(i int) int {
		if a := sp.Sites[i].answer(ipv6); len(a.Addresses) == 0 {
			// What is out for its health is used all at once: which of it works is not known.
			if y := j.yields(&s.Sites[i], a, ipv6); y > yieldBackendsDown {
				return y
			}
			return yieldBackendsDown
		}
		return yieldCount
	}
	first := yieldCount
	for i := range s.Sites {
		first = min(first, class(i))
	}
	if first == yieldCount {
		return
	}
	sp.FailOpen = true
	for i := range s.Sites {
		if class(i) == first {
			addrs, _ := s.Sites[i].addresses(ipv6)
			*sp.Sites[i].answer(ipv6) = AnswerPlan{Addresses: addrs, Why: ReasonFailOpen}
			j.revive(&s.Sites[i], &sp.Sites[i], ReasonFailOpen)
		}
	}
}

// minimum puts sites back in until as many answer as the service needs, or all do.
func (j *judgement) minimum(s *Service, sp *ServicePlan, ipv6 bool) {
	have := 0
	for i := range sp.Sites {
		if len(sp.Sites[i].answer(ipv6).Addresses) > 0 {
			have++
		}
	}
	for class := yieldUnmeasured; class < yieldCount && have < s.Config.MinSites; class++ {
		for i := range s.Sites {
			a := sp.Sites[i].answer(ipv6)
			if have >= s.Config.MinSites || len(a.Addresses) > 0 || j.yields(&s.Sites[i], a, ipv6) != class {
				continue
			}
			addrs, targets := s.Sites[i].addresses(ipv6)
			if reachable := j.reachable(addrs, targets); len(reachable) > 0 {
				addrs = reachable
			}
			*a = AnswerPlan{Addresses: addrs, Why: ReasonMinimum}
			j.revive(&s.Sites[i], &sp.Sites[i], ReasonMinimum)
			have++
		}
	}
}

// revive sees to it that a site that comes back for the reason why has backends at work. Fail-open
// tries all that are down; else they come back only if none is left. Those out
// by order yield last, those of them that also fail at the very end.
func (j *judgement) revive(ss *ServiceSite, plan *SitePlan, why Reason) {
	class := func(i int) int {
		b := plan.Backends[i]
		y := yieldCount
		switch b.Why {
		case ReasonBackendDown, ReasonAssumedDown:
			return yieldBackendsDown
		case ReasonDrained:
			y = yieldDrained
		case ReasonOrderedDown:
			y = yieldDown
		default:
			return y
		}
		if j.down(ss.Backends[i]) {
			y++
		}
		return y
	}
	active := false
	for i := range plan.Backends {
		active = active || plan.Backends[i].Active
	}
	for y := yieldBackendsDown; y < yieldCount; y++ {
		if active && (why != ReasonFailOpen || y != yieldBackendsDown) {
			return
		}
		for i := range plan.Backends {
			if !plan.Backends[i].Active && class(i) == y {
				plan.Backends[i] = BackendPlan{Active: true, Why: why}
				active = true
			}
		}
	}
}
