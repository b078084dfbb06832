package steer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// stagesOf is what becomes of the drain of fra, a line for each change: the stage of the prefix, of the service, and whether
// the site's name is answered, in the eyes of fra itself and of iad.
func (tr *troupe) stagesOf(step func()) string {
	var lines []string
	began := tr.now
	tr.watch = func() {
		p := tr.at("fra").plan
		pool := "none"
		if len(p.Pools) > 0 {
			stage, _, _ := p.PoolStage(0, tr.now)
			pool = stage.String()
		}
		answered := func(m *member) string {
			s := m.plan.Services[0].Sites[0]
			return fmt.Sprintf("%v (%s)", s.Eligible, s.Why)
		}
		route := "withdrawn"
		if p.Routes[0].Announce {
			route = p.Routes[0].Level.String()
		}
		text := fmt.Sprintf("prefix %s (%s), service %s, answered by fra: %s, by iad: %s", p.Routes[0].Stage(), route, pool, answered(tr.at("fra")), answered(tr.at("iad")))
		if len(lines) == 0 || !strings.HasSuffix(lines[len(lines)-1], " "+text) {
			lines = append(lines, fmt.Sprintf("%.1fs %s", tr.now.Sub(began).Seconds(), text))
		}
	}
	step()
	tr.watch = nil
	return strings.Join(lines, "\n")
}

func (tr *troupe) traffic(open int, rate float64) {
	tr.at("fra").facts.Loads, tr.at("fra").facts.Pools = []Load{{Open: open, Rate: rate}}, []int{open}
}

// A drain goes on when connections have ended, and an undrain has the route back before the name.
func TestDrainStages(t *testing.T) {
	tr := newTroupe(t, []string{"fra", "iad", "sin"}, func(p *config.Prefix) { p.WarmUp = 5 * time.Second })
	for _, m := range tr.members {
		m.topology.Config.Drain = config.Drain{Depreference: 20 * time.Second, Connections: time.Minute}
	}
	tr.traffic(3, 50)
	got := tr.stagesOf(func() {
		tr.order("drain site/fra")
		tr.pass(60 * time.Second)
		tr.traffic(0, 0)
		tr.pass(2 * time.Second)
		tr.order()
		tr.pass(10 * time.Second)
	})
	t.Log("\n" + got)
	for _, want := range []string{
		"prefix unanswered (preferred), service unanswered, answered by fra: false (drained by order), by iad: false (drained by order)",
		"prefix depreferred (draining), service finishing",
		"prefix finishing (withdrawn), service finishing",
		"prefix done (withdrawn), service done",
		"prefix returning (withdrawn), service none, answered by fra: false (the site says that its route is not back yet), by iad: false (the site says that its route is not back yet)",
		"prefix returning (preferred), service none, answered by fra: false (the site says that its route is not back yet), by iad: false (the site says that its route is not back yet)",
		"prefix none (preferred), service none, answered by fra: true (in use), by iad: true (in use)",
	} {
		at := strings.Index(got, want)
		if at < 0 {
			t.Fatalf("missing, or too early: %s", want)
		}
		got = got[at:]
	}
}

// What is withdrawn early for want of traffic, and when connections never end.
func TestDrainByTraffic(t *testing.T) {
	tr := newTroupe(t, []string{"fra", "iad"}, func(*config.Prefix) {})
	for _, m := range tr.members {
		m.topology.Config.Drain = config.Drain{Depreference: time.Hour, TrafficBelow: 10, Connections: 20 * time.Second}
	}
	fra := tr.at("fra")
	tr.traffic(2, 100)
	tr.order("drain site/fra")
	tr.pass(5 * time.Minute)
	if s := fra.plan.Routes[0].Stage(); s != StageDepreferred {
		t.Fatalf("with traffic: %s", s)
	}
	tr.traffic(2, 9)
	tr.pass(quietFor - time.Second)
	tr.traffic(2, 11)
	tr.pass(time.Second)
	tr.traffic(2, 9)
	tr.pass(quietFor - time.Second)
	if s := fra.plan.Routes[0].Stage(); s != StageDepreferred {
		t.Fatalf("a lull was taken for the end: %s", s)
	}
	tr.pass(2 * time.Second)
	if r := fra.plan.Routes[0]; r.Stage() != StageFinishing || r.Announce || r.Open != 2 {
		t.Fatalf("without traffic: %s, announced %v, %d open", r.Stage(), r.Announce, r.Open)
	}
	tr.pass(30 * time.Second)
	if r := fra.plan.Routes[0]; r.Stage() != StageDone || r.Open != 2 {
		t.Fatalf("connections that never end: %s, %d open", r.Stage(), r.Open)
	}
}

// A prefix that is drained alone takes no name out, and its way back neither.
func TestDrainOfPrefixLeavesNames(t *testing.T) {
	tr := newTroupe(t, []string{"fra", "iad"}, func(p *config.Prefix) { p.WarmUp = 5 * time.Second })
	tr.watch = func() {
		for _, m := range tr.members {
			for i, s := range m.plan.Services[0].Sites {
				if !s.Eligible || s.Why != ReasonNone {
					t.Fatalf("%s: %s answers with site %d: %v (%s)", tr.now.Sub(now), m.site, i, s.Eligible, s.Why)
				}
			}
		}
	}
	for _, order := range []string{"drain prefix/192.0.2.0/24", "down prefix/192.0.2.0/24"} {
		tr.order(order)
		tr.pass(2 * time.Minute)
		if got := tr.announced(); len(got) > 0 {
			t.Fatalf("%s: announced at %v", order, got)
		}
		tr.order()
		tr.pass(time.Minute)
		if got := tr.announced(); len(got) != 2 {
			t.Fatalf("after %s: announced at %v", order, got)
		}
	}
}

// A node whose route has gone by an order on the prefix says that its site serves, which leaves names alone, but abstains while
// another node of its site announces: when that one is about to leave, most would say otherwise, and two sites leave at once.
func TestDrainedNodeAbstains(t *testing.T) {
	tr := newTroupe(t, []string{"fra", "iad"}, func(p *config.Prefix) { p.MinSites = 0 })
	tr.order("drain prefix/192.0.2.0/24")
	tr.pass(2 * time.Minute)
	fra := tr.at("fra")
	says := func(other health.Status) (serves health.Status) {
		v := *fra.view
		v.Verdicts = slices.Clone(v.Verdicts)
		route := health.PrefixTarget(health.KindRoute, anycastPrefix, "fra")
		at, _ := fra.topology.Layout.Index(route)
		v.Verdicts[at] = health.Verdict{Status: other, Why: health.WhyProbes}
		p := Decide(fra.topology, &v, fra.facts, fra.plan)
		if p.Announces(anycastPrefix) {
			t.Fatalf("it is drained, and announces: %+v", p.Routes[0])
		}
		p.Statements(func(target int, s health.Status) {
			if target == p.Topology.routes[0].sites[0].serves {
				serves = s
			}
		})
		return serves
	}
	if got := says(health.StatusDown); got != health.StatusUp {
		t.Errorf("nobody of its site announces: it says that it serves: %s, want up", got)
	}
	if got := says(health.StatusUp); got != health.StatusUnknown {
		t.Errorf("another node of its site announces: it says that it serves: %s, want unknown", got)
	}
}

// A site whose nodes all say that they are stopping is not answered with, unless there is no other.
func TestLeaving(t *testing.T) {
	topology := compile(t, fleet(service(steps(config.PolicyGeo), "fra", "iad", "sin")), "fra1")
	for _, c := range []struct {
		leaving []string
		want    string
	}{
		{nil, "in use, in use, in use"},
		{[]string{"iad"}, "in use, the site is stopping, in use"},
		{[]string{"fra", "iad", "sin"}, "nothing else is fit, so it is used all the same (fail-open), nothing else is fit, so it is used all the same (fail-open), nothing else is fit, so it is used all the same (fail-open)"},
	} {
		v := *view(t, topology, nil)
		v.Leaving = c.leaving
		before := Decide(topology, view(t, topology, nil), Facts{Ready: true, Now: now}, nil)
		plan := Decide(topology, &v, Facts{Ready: true, Now: now.Add(time.Second)}, before)
		var got []string
		for _, s := range plan.Services[0].Sites {
			got = append(got, s.Why.String())
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("leaving %v: %s, want %s", c.leaving, text, c.want)
		}
	}
}

// A drain is taken back at each of its stages: what was not withdrawn yet never is, and in the end all is as before.
func TestDrainIsReversible(t *testing.T) {
	for _, stage := range []Stage{StageUnanswered, StageDepreferred, StageWaiting, StageFinishing, StageDone} {
		t.Run(stage.String(), func(t *testing.T) {
			tr := newTroupe(t, []string{"fra", "iad"}, func(p *config.Prefix) {
				p.WarmUp = 5 * time.Second
				if stage == StageWaiting {
					p.MinSites = 1
				}
			})
			for _, m := range tr.members {
				m.topology.Config.Drain = config.Drain{Depreference: 20 * time.Second, Connections: time.Minute}
			}
			fra := tr.at("fra")
			tr.at("iad").dead = stage == StageWaiting
			tr.traffic(3, 50)
			tr.pass(10 * time.Second)
			tr.order("drain site/fra")
			for end := tr.now.Add(5 * time.Minute); fra.plan.Routes[0].Stage() != stage; tr.pass(time.Second) {
				if tr.now.After(end) {
					t.Fatalf("it never came so far, but to %s (%s)", fra.plan.Routes[0].Stage(), fra.plan.Routes[0].Why)
				}
			}
			withdrawn := stage == StageFinishing || stage == StageDone
			if fra.plan.Routes[0].Announce == withdrawn {
				t.Fatalf("announced: %v", !withdrawn)
			}
			tr.watch = func() {
				if !withdrawn && !fra.plan.Routes[0].Announce {
					t.Fatalf("withdrawn on the way back (%s)", fra.plan.Routes[0].Why)
				}
			}
			tr.order()
			tr.pass(time.Minute)
			r, s := fra.plan.Routes[0], fra.plan.Services[0].Sites[0]
			if r.Stage() != StageNone || !r.Announce || r.Level != LevelPreferred || !s.Eligible {
				t.Errorf("afterwards: stage %s, announced %v, %s, answered %v (%s)", r.Stage(), r.Announce, r.Level, s.Eligible, s.Why)
			}
			tr.order("drain site/fra")
			tr.pass(time.Second)
			if got := fra.plan.Routes[0].Stage(); got != StageUnanswered {
				t.Errorf("drained again: begins with %s", got)
			}
		})
	}
}

// A standby site that stood in, was drained and is not needed any more is not on its way back for ever.
func TestDrainOfPromotedStandby(t *testing.T) {
	tr := newTroupe(t, []string{"fra", "iad"}, func(p *config.Prefix) { p.Standby = []string{"fra"} })
	fra, iad := tr.at("fra"), tr.at("iad")
	iad.dead = true
	tr.pass(time.Minute)
	if r := fra.plan.Routes[0]; r.Why != ReasonPromoted {
		t.Fatalf("the standby does not stand in: %s", r.Why)
	}
	tr.order("drain site/fra")
	tr.pass(5 * time.Minute)
	if s := fra.plan.Routes[0].Stage(); s != StageDone {
		t.Fatalf("drained: %s", s)
	}
	iad.dead = false
	tr.pass(time.Minute)
	tr.order()
	tr.pass(time.Minute)
	if r := fra.plan.Routes[0]; r.Why != ReasonStandby || r.Stage() != StageNone {
		t.Errorf("afterwards: %s, %s", r.Stage(), r.Why)
	}
}

// Connections that nobody counts for a moment have not ended.
func TestDrainWithUnknownLoad(t *testing.T) {
	tr := newTroupe(t, []string{"fra", "iad"}, func(*config.Prefix) {})
	for _, m := range tr.members {
		m.topology.Config.Drain = config.Drain{Connections: time.Minute}
	}
	fra := tr.at("fra")
	tr.traffic(2, 0)
	tr.order("drain site/fra")
	for end := tr.now.Add(5 * time.Minute); fra.plan.Routes[0].Stage() != StageFinishing; tr.pass(time.Second) {
		if tr.now.After(end) {
			t.Fatalf("it never came so far, but to %s", fra.plan.Routes[0].Stage())
		}
	}
	fra.facts.Loads = nil
	tr.pass(10 * time.Second)
	if r := fra.plan.Routes[0]; r.Stage() != StageFinishing || r.Open != 2 {
		t.Errorf("while it is not known: %s, %d open", r.Stage(), r.Open)
	}
	tr.pass(time.Minute)
	if r := fra.plan.Routes[0]; r.Stage() != StageDone {
		t.Errorf("after its time: %s", r.Stage())
	}
}

// A reload that gives services other numbers gives none another's drain.
func TestDrainedPoolsKeepTheirTime(t *testing.T) {
	web, api := service(nil, "fra", "iad"), service(nil, "fra", "iad")
	web.Name, api.Name = "web", "api"
	both := func(services ...config.Service) *Topology {
		cfg := fleet(services[0])
		cfg.Services = services
		return compile(t, cfg, "fra1")
	}
	before := both(api, web)
	plan := Decide(before, view(t, before, nil), Facts{Ready: true, Now: now, Overrides: ordered(t, "drain service/web")}, nil)
	after := both(web, api)
	later := now.Add(time.Hour)
	plan = Decide(after, view(t, after, nil), Facts{Ready: true, Now: later, Overrides: ordered(t, "drain service/web", "drain service/api")}, plan)
	got := map[string]time.Time{}
	for _, p := range plan.Pools {
		got[after.Services[p.Service].Config.Name] = p.Since
	}
	if len(got) != 2 || !got["web"].Equal(now) || !got["api"].Equal(later) {
		t.Errorf("since %v, want web since %v, api since %v", got, now, later)
	}
}
