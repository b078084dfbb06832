package sim

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/decide"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// evidenceFor is how long a finding may take to become a verdict anywhere: its
// report lives FreshFor, crosses a slow network twice, and holds run out.
const evidenceFor = 20 * time.Second

// checkStep holds one machine's step against the invariants.
func (m *machine) checkStep(s decide.Step, before *steer.Plan) {
	if s.Decided {
		m.checkNeverEmpty(s.Plan) // whoever is mad answers, too
	}
	if m.mad != sane {
		return
	}
	m.checkVerdicts(s)
	if !s.Decided {
		return
	}
	m.checkBudget(s.Plan)
	if before != nil {
		m.checkRoutes(before, s.Plan)
	}
	m.noteRoutes(s.Plan)
}

// checkSize: a report is as long as any other, whatever it says.
func (m *machine) checkSize(r *health.Report) {
	encoded, err := r.AppendBinary(nil)
	if err != nil {
		m.w.violated(m, "its report cannot be encoded: %v", err)
		return
	}
	if m.size == 0 {
		m.size = len(encoded)
	}
	if len(encoded) != m.size {
		m.w.violated(m, "invariant 6: a report of %d bytes after one of %d", len(encoded), m.size)
	}
}

// checkVerdicts: silence is never evidence, and one observer is one vote.
func (m *machine) checkVerdicts(s decide.Step) {
	w := m.w
	for _, i := range s.Changed {
		t, v := s.View.Layout.Targets[i], s.View.Verdicts[i]
		if t.Kind.Stated() {
			continue // its site's own word: checkRoutes and checkLeaving
		}
		if v.Status == health.StatusDown && !w.mad && w.lone < 0 &&
			(w.honestDown[i] < 0 || w.now-w.honestDown[i] > evidenceFor) {
			w.violated(m, "invariant 1: %s is down (%s, %d up, %d down) although nobody found it so", t, v.Why, v.Up, v.Down)
		}
		ofTheMad := t.Kind == health.KindBackend && w.lone >= 0 && t.Site == w.fleet.sites[w.lone]
		if w.lone >= 0 && w.stormy && !ofTheMad {
			w.violated(m, "invariant 3: %s became %s by the word of %s alone", t, v.Status, w.fleet.sites[w.lone])
		}
	}
}

// checkNeverEmpty: every service is answered somewhere, at its minimum of sites or more.
func (m *machine) checkNeverEmpty(p *steer.Plan) {
	for i := range p.Services {
		answered := 0
		for site := range p.Services[i].Sites {
			if len(p.Addresses(i, site, false)) > 0 {
				answered++
			}
		}
		config := p.Topology.Services[i].Config
		if answered == 0 || answered < min(config.MinSites, len(p.Services[i].Sites)) {
			m.w.violated(m, "invariant 2: %s is answered at %d sites", config.Name, answered)
		}
	}
}

// checkBudget: what others say of sites takes only so many of them out a minute.
func (m *machine) checkBudget(p *steer.Plan) {
	now := m.wall()
	if now.Sub(p.Facts.Current) < evidenceFor {
		return // it has just learned what the others knew before
	}
	for i := range p.Services {
		sites := p.Topology.Services[i].Sites
		young := 0
		for k := range sites {
			if p.Services[i].Sites[k].Why != steer.ReasonVIPDown {
				continue
			}
			for _, target := range sites[k].VIPs {
				if v := p.View.Of(p.Topology.Layout.Targets[target]); now.Sub(v.Since) < time.Minute && v.Since.After(p.Facts.Current.Add(evidenceFor)) {
					young++
					break
				}
			}
		}
		if young > max(1, len(sites)*15/100) {
			m.w.violated(m, "invariant 8: %d of %d sites of %s went within a minute", young, len(sites), p.Topology.Services[i].Config.Name)
		}
	}
}

// checkRoutes: a route goes for what its own site found, or was ordered, alone.
func (m *machine) checkRoutes(before, after *steer.Plan) {
	for i := range after.Routes {
		r := after.Routes[i]
		if i >= len(before.Routes) || !before.Routes[i].Announce || r.Announce {
			continue
		}
		m.checkLeaving(r.Prefix, r.Why)
		if m.w.o.Blackout && m.w.stormy {
			m.w.violated(m, "invariant 1: %s withdrawn (%s) because links are cut", r.Prefix, r.Why)
		}
		switch r.Why {
		case steer.ReasonDrained, steer.ReasonFinishing, steer.ReasonOrderedDown, steer.ReasonNotReady, steer.ReasonStandby:
			continue
		}
		for k, t := range after.Topology.Layout.Targets {
			own := t.Kind == health.KindBackend && t.Site == m.w.fleet.sites[m.site] && t.Service == r.Blame
			if own && !m.w.mad && (m.w.honestDown[k] < 0 || m.w.now-m.w.honestDown[k] > m.findingsLast(after)) && m.w.lone < 0 && !m.ordered(t) {
				m.w.violated(m, "invariant 1: %s withdrawn (%s), although nobody of its site found %s down", r.Prefix, r.Why, t)
			}
		}
	}
}

// findingsLast is how old what this machine found may be when it acts on it. One that stood still a moment ago holds its
// routes instead, but not again so soon after it last did: then it goes by what it found before.
func (m *machine) findingsLast(p *steer.Plan) time.Duration {
	if now := m.wall(); m.core.Stalled(now) && !now.Before(p.Facts.Stalled) {
		return evidenceFor + m.took
	}
	return evidenceFor
}

// stoodFor is how long a site counts as one that announces after it was seen to: as long as the
// newest word of it does, and a moment.
const stoodFor = health.FreshFor + 2*time.Second

// A standing is what a site last did about a prefix.
type standing struct {
	stood time.Duration // when a machine of it announced last
	left  time.Duration // when its last machine withdrew by its own decision
}

// noteRoutes keeps which sites announce.
func (m *machine) noteRoutes(p *steer.Plan) {
	for i := range p.Routes {
		if p.Routes[i].Announce {
			m.w.standingOf(p.Routes[i].Prefix, m.site).stood = m.w.now
		}
	}
}

func (w *world) standingOf(prefix netip.Prefix, site int) *standing {
	if w.standings[prefix] == nil {
		w.standings[prefix] = make([]standing, len(w.fleet.sites))
	}
	return &w.standings[prefix][site]
}

// announces reports whether a machine of a site announces a prefix now.
func (w *world) announces(prefix netip.Prefix, site int) bool {
	return slices.ContainsFunc(w.machines, func(m *machine) bool {
		return m.site == site && m.alive && m.core.Plan() != nil && m.core.Plan().Announces(prefix)
	})
}

// checkLeaving: no site leaves of its own will while fewer others announce than the minimum, but for those that
// died without a word a moment ago.
func (m *machine) checkLeaving(prefix netip.Prefix, why steer.Reason) {
	w := m.w
	least := 0
	for _, p := range w.fleet.topologies[m.id].Config.BGP.Prefixes {
		if p.Prefix == prefix {
			least = p.MinSites
		}
	}
	if w.announces(prefix, m.site) {
		return // another machine of its site goes on
	}
	w.standingOf(prefix, m.site).left = w.now
	others := 0
	for site := range w.fleet.sites {
		s := w.standingOf(prefix, site)
		if site != m.site && (w.announces(prefix, site) || s.stood > s.left && w.now-s.stood < stoodFor) {
			others++
		}
	}
	if others < least {
		w.violated(m, "invariant 2: withdraws %s while %d other sites announce it, it needs %d (%s)", prefix, others, least, why)
	}
}

// ordered reports whether an operator has a say on a target.
func (m *machine) ordered(t health.Target) bool {
	return slices.ContainsFunc(m.core.Standing(), func(v health.Override) bool {
		return (v.Scope.Service == "" || v.Scope.Service == t.Service) && (v.Scope.Site == "" || v.Scope.Site == t.Site)
	})
}

// underwayFor is how long news of what a site states may take: that changes in good weather too (a drain goes on, a
// route has warmed up).
const underwayFor = 2 * time.Second

// young reports whether the verdict on statement i, or that it counts, is so new that others may not hold it yet.
func (m *machine) young(i int) bool {
	return m.wall().Sub(m.core.View().Verdicts[i].Since) < underwayFor || m.w.now-m.counted[i] < underwayFor
}

// noteCounted keeps since when verdicts on statements have counted, or not.
func (m *machine) noteCounted(before, after *health.View) {
	if before == nil || &before.Verdicts[0] == &after.Verdicts[0] {
		return
	}
	for i, t := range m.w.fleet.layout.Targets {
		if t.Kind.Stated() && goneBy(&before.Verdicts[i]) != goneBy(&after.Verdicts[i]) {
			m.counted[i] = m.w.now
		}
	}
}

// goneBy reports whether a verdict on a statement counts: one that is held from before, because its site says neither,
// is what each happened to hear last, and no plan may differ by it.
func goneBy(v *health.Verdict) bool { return v.Why == health.WhyProbes }

// underway reports whether news of what a site states is on its way between two machines: they hold it otherwise, and have
// not for longer than news takes. A difference that lasts is none.
func (w *world) underway(a, b *machine) bool {
	for i, t := range w.fleet.layout.Targets {
		one, other := &a.core.View().Verdicts[i], &b.core.View().Verdicts[i]
		if t.Kind.Stated() && one.Status != other.Status && (a.young(i) || b.young(i)) {
			return true
		}
	}
	return false
}

// orderUnderway reports whether an order was given or ended, or its time was over, so short a while ago that news of it
// may be on its way.
func (w *world) orderUnderway() bool {
	recent := func(m *machine, t time.Time) bool { ago := m.wall().Sub(t); return ago >= 0 && ago < underwayFor }
	for _, holder := range w.machines {
		all, _ := holder.core.Overrides()
		for _, v := range all {
			for _, m := range w.machines {
				if m.name == v.Writer && recent(m, v.At) || m.core.SelfSite() == v.Keeper && !v.Until.IsZero() && recent(m, v.Until) {
					return true
				}
			}
		}
	}
	return false
}

// checkAgreement: half a minute after the storm all hold the same, and no
// acknowledged order is lost.
func (w *world) checkAgreement() {
	if w.orderUnderway() { // nobody can hold it everywhere yet
		w.end = max(w.end, w.now+underwayFor)
		w.in(underwayFor, w.checkAgreement)
		return
	}
	first := w.machines[0]
	for _, m := range w.machines {
		if !m.alive {
			w.violated(m, "is not alive in good weather")
			return
		}
		if m.stepping && !m.frozen { // it has heard something and not decided on it yet
			m.stepping = false
			m.stepNow()
		}
	}
	for _, m := range w.machines {
		all, digest := m.core.Overrides()
		if others, want := first.core.Overrides(); digest != want {
			w.violated(m, "invariant 4: holds other orders than %s: %v, %v", first.name, all, others)
		}
		for _, wrong := range w.history.Check(m.name, all) {
			w.violated(m, "invariant 4: %s", wrong)
		}
		for i := range m.core.View().Verdicts {
			one, other := &m.core.View().Verdicts[i], &first.core.View().Verdicts[i]
			if w.fleet.layout.Targets[i].Kind.Stated() && (m.young(i) || first.young(i) || !goneBy(one) && !goneBy(other)) {
				continue
			}
			if got, want := one.Status, other.Status; got != want {
				w.violated(m, "invariant 5: holds %s %s, %s holds it %s (%s; %s)", w.fleet.layout.Targets[i], got, first.name, want, one.Why, other.Why)
			}
		}
		if !w.underway(m, first) && m.core.Plan().Fingerprint() != first.core.Plan().Fingerprint() {
			w.violated(m, "invariant 5: another plan than %s", first.name)
		}
	}
}

// checkTruth: in good weather the verdicts are what is so.
func (w *world) checkTruth() {
	for _, m := range w.machines {
		for i, v := range m.core.View().Verdicts {
			if v.Status != health.StatusUp && !w.fleet.layout.Targets[i].Kind.Stated() {
				w.violated(m, "%s is still %s (%s)", w.fleet.layout.Targets[i], v.Status, v.Why)
			}
		}
	}
}
