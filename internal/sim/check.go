package sim

import (
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
	if m.mad != sane {
		return
	}
	m.checkVerdicts(s)
	if !s.Decided {
		return
	}
	m.checkNeverEmpty(s.Plan)
	m.checkBudget(s.Plan)
	if before != nil {
		m.checkRoutes(before, s.Plan)
	}
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
		switch r.Why {
		case steer.ReasonDrained, steer.ReasonOrderedDown, steer.ReasonNotReady:
			continue
		}
		for k, t := range after.Topology.Layout.Targets {
			own := t.Kind == health.KindBackend && t.Site == m.w.fleet.sites[m.site] && t.Service == r.Blame
			if own && !m.w.mad && (m.w.honestDown[k] < 0 || m.w.now-m.w.honestDown[k] > evidenceFor) && m.w.lone < 0 && !m.ordered(t) {
				m.w.violated(m, "invariant 1: %s withdrawn (%s), although nobody of its site found %s down", r.Prefix, r.Why, t)
			}
		}
	}
}

// ordered reports whether an operator has a say on a target.
func (m *machine) ordered(t health.Target) bool {
	return slices.ContainsFunc(m.core.Standing(), func(v health.Override) bool {
		return (v.Scope.Service == "" || v.Scope.Service == t.Service) && (v.Scope.Site == "" || v.Scope.Site == t.Site)
	})
}

// checkAgreement: half a minute after the storm all hold the same, and no
// acknowledged order is lost.
func (w *world) checkAgreement() {
	first := w.machines[0]
	for _, m := range w.machines {
		if !m.alive {
			w.violated(m, "is not alive in good weather")
			return
		}
		all, digest := m.core.Overrides()
		if _, want := first.core.Overrides(); digest != want {
			w.violated(m, "invariant 4: holds other orders than %s", first.name)
		}
		for _, wrong := range w.history.Check(m.name, all) {
			w.violated(m, "invariant 4: %s", wrong)
		}
		for i := range m.core.View().Verdicts {
			if got, want := m.core.View().Verdicts[i].Status, first.core.View().Verdicts[i].Status; got != want {
				w.violated(m, "invariant 5: holds %s %s, %s holds it %s", w.fleet.layout.Targets[i], got, first.name, want)
			}
		}
		if m.core.Plan().Fingerprint() != first.core.Plan().Fingerprint() {
			w.violated(m, "invariant 5: another plan than %s", first.name)
		}
	}
}

// checkTruth: in good weather the verdicts are what is so.
func (w *world) checkTruth() {
	for _, m := range w.machines {
		for i, v := range m.core.View().Verdicts {
			if v.Status != health.StatusUp {
				w.violated(m, "%s is still %s (%s)", w.fleet.layout.Targets[i], v.Status, v.Why)
			}
		}
	}
}
