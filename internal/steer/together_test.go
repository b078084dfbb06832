package steer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// What the sites of a prefix do, told second by second.
func TestTogether(t *testing.T) {
	three := []string{"fra", "iad", "sin"}
	minimum := func(p *config.Prefix) { p.MinSites = 1 }
	standby := func(p *config.Prefix) { p.MinSites, p.Standby = 1, []string{"sin"} }
	for _, c := range []struct {
		name   string
		sites  []string
		change func(*config.Prefix)
		happen func(tr *troupe)
	}{
		{"one site dies and returns", three, func(p *config.Prefix) { p.MinSites, p.WarmUp = 1, 10*time.Second }, func(tr *troupe) {
			tr.at("fra").dead = true
			tr.pass(20 * time.Second)
			tr.at("fra").dead = false
			tr.pass(20 * time.Second)
		}},
		{"each decides alone", three, func(*config.Prefix) {}, func(tr *troupe) {
			for _, m := range tr.members {
				m.dead = true
			}
			tr.pass(time.Second)
		}},
		{"two of three die at once", three, minimum, func(tr *troupe) {
			tr.at("iad").dead, tr.at("sin").dead = true, true
			tr.pass(2 * time.Minute)
		}},
		{"the second dies while the first settles", three, minimum, func(tr *troupe) {
			tr.at("sin").dead = true
			tr.pass(400 * time.Millisecond)
			tr.at("fra").dead = true
			tr.pass(2 * time.Minute)
		}},
		{"all die, one returns", three, minimum, func(tr *troupe) {
			for _, m := range tr.members {
				m.dead = true
			}
			tr.pass(time.Minute)
			tr.at("iad").dead = false
			tr.pass(2 * time.Minute)
		}},
		{"a standby stands in and steps back", three, standby, func(tr *troupe) {
			tr.at("fra").dead = true
			tr.pass(5 * time.Second)
			tr.at("iad").dead = true
			tr.pass(90 * time.Second)
			tr.at("fra").dead = false
			tr.pass(90 * time.Second)
		}},
		{"a standby that announces", three, func(p *config.Prefix) { p.Standby, p.StandbyAnnounce = []string{"sin"}, true }, func(tr *troupe) {
			tr.at("fra").dead, tr.at("iad").dead = true, true
			tr.pass(5 * time.Second)
			tr.at("iad").dead = false
			tr.pass(15 * time.Second)
		}},
		{"a standby for capacity", three, func(p *config.Prefix) {
			p.Standby, p.Need = []string{"sin"}, 15
			p.Capacity = []config.SiteCapacity{{Site: "fra", Units: 10}, {Site: "iad", Units: 10}}
		}, func(tr *troupe) {
			tr.at("fra").dead = true
			tr.pass(5 * time.Second)
		}},
		{"a standby whose primaries fall silent", []string{"fra", "sin"}, func(p *config.Prefix) { p.Standby = []string{"sin"} }, func(tr *troupe) {
			tr.cut = func(int, int) bool { return true }
			tr.pass(time.Minute)
		}},
		{"drain", three, minimum, func(tr *troupe) {
			tr.order("drain site/fra")
			tr.pass(2 * time.Minute)
			tr.order()
			tr.pass(5 * time.Second)
		}},
		{"undrain while resolvers still know it", three, minimum, func(tr *troupe) {
			tr.order("drain site/fra")
			tr.pass(20 * time.Second)
			tr.order()
			tr.pass(time.Minute)
		}},
		{"undrain while it is less preferred, and drain again", three, minimum, func(tr *troupe) {
			tr.order("drain site/fra")
			tr.pass(40 * time.Second)
			tr.order()
			tr.pass(10 * time.Second)
			tr.order("drain site/fra")
			tr.pass(time.Minute)
		}},
		{"drain all of them", three, minimum, func(tr *troupe) {
			tr.order("drain site/fra", "drain site/iad", "drain site/sin")
			tr.pass(10 * time.Minute)
		}},
		{"a drained site dies", three, minimum, func(tr *troupe) {
			tr.order("drain site/fra")
			tr.pass(40 * time.Second)
			tr.at("fra").dead = true
			tr.pass(5 * time.Second)
		}},
		{"down is not gentle", three, minimum, func(tr *troupe) {
			tr.order("down site/fra")
			tr.pass(5 * time.Second)
		}},
		{"flapping", three, func(p *config.Prefix) { p.MinSites, p.HalfLife = 1, time.Minute }, func(tr *troupe) {
			for range 4 {
				tr.at("fra").dead = true
				tr.pass(2 * time.Second)
				tr.at("fra").dead = false
				tr.pass(2 * time.Second)
			}
			tr.pass(4 * time.Minute)
		}},
		{"the minimum wins over the penalty", three, func(p *config.Prefix) { p.MinSites, p.HalfLife = 2, time.Minute }, func(tr *troupe) {
			for range 4 {
				tr.at("fra").dead = true
				tr.pass(2 * time.Second)
				tr.at("fra").dead = false
				tr.pass(2 * time.Second)
			}
			tr.at("iad").dead = true
			tr.pass(3 * time.Second)
		}},
		{"a minority freezes", three, minimum, func(tr *troupe) {
			tr.cut = func(from, to int) bool { return from == 0 || to == 0 }
			tr.pass(10 * time.Second)
			tr.at("fra").dead = true
			tr.pass(time.Minute)
			tr.cut = nil
			tr.pass(5 * time.Second)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTroupe(t, c.sites, c.change)
			c.happen(tr)
			golden(t, "together-"+strings.ReplaceAll(c.name, " ", "-")+".txt", []byte(tr.story()))
		})
	}
}

// The Facebook test: every link between the sites is cut for an hour, and no route changes.
func TestAllLinksCutForAnHour(t *testing.T) {
	for _, sites := range [][]string{{"fra", "iad"}, {"fra", "iad", "sin"}, {"ams", "fra", "iad", "sin"}} {
		for _, rules := range []func(*config.Prefix){
			func(*config.Prefix) {},
			func(p *config.Prefix) { p.MinSites = 1 },
			func(p *config.Prefix) { p.MinSites, p.HalfLife, p.WarmUp = len(sites), time.Minute, 10*time.Second },
			func(p *config.Prefix) { p.Standby, p.StandbyAnnounce = sites[:1], true },
		} {
			tr := newTroupe(t, sites, rules)
			tr.cut = func(int, int) bool { return true }
			tr.pass(time.Hour)
			tr.cut = nil
			tr.pass(time.Minute)
			for _, line := range tr.log {
				if strings.Contains(line, "withdrawn") {
					t.Errorf("%v: %s", sites, line)
				}
			}
		}
	}
}

// Whatever happens to the sites and the links between them: no site withdraws while too few others
// serve, none withdraws for another's silence, and no two leave within a minute.
func TestPropertyTogether(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sites := []string{"ams", "fra", "iad", "sin"}[:rapid.IntRange(2, 4).Draw(rt, "sites")]
		least := rapid.IntRange(1, len(sites)).Draw(rt, "min_sites")
		tr := newTroupe(t, sites, func(p *config.Prefix) {
			p.MinSites = least
			p.HalfLife = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(rt, "half-life")
			p.WarmUp = rapid.SampledFrom([]time.Duration{0, 5 * time.Second}).Draw(rt, "warm-up")
			if len(sites) > 2 && rapid.Bool().Draw(rt, "standby") {
				p.Standby = sites[2:]
			}
		})
		watch := &watcher{rt: rt, tr: tr, least: least}
		tr.watch = watch.look
		watch.look()
		drained := map[string]bool{}
		for range rapid.IntRange(1, 12).Draw(rt, "events") {
			m := tr.members[rapid.IntRange(0, len(sites)-1).Draw(rt, "who")]
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0, 1:
				m.dead = !m.dead
			case 2:
				drained[m.site] = !drained[m.site]
				var texts []string
				for site, on := range drained {
					if on {
						texts = append(texts, "drain site/"+site)
					}
				}
				tr.order(texts...)
			case 3:
				camp := rapid.IntRange(0, 1<<len(sites)-1).Draw(rt, "camp")
				tr.cut = func(from, to int) bool { return camp>>from&1 != camp>>to&1 }
			case 4:
				tr.cut = nil
			}
			tr.pass(time.Duration(rapid.SampledFrom([]int{1, 2, 4, 8, 12, 20, 100, 300, 1300}).Draw(rt, "ticks")) * tickTime)
		}
	})
}

// A watcher holds every step of a troupe against what it must never do.
type watcher struct {
	rt        *rapid.T
	tr        *troupe
	least     int
	announced []string
	served    map[string]time.Time // when a site served last
	left      map[string]time.Time // when a site withdrew last
	cutAt     time.Time            // when a link was cut last
}

func (w *watcher) look() {
	tr := w.tr
	if w.served == nil {
		w.served, w.left = map[string]time.Time{}, map[string]time.Time{}
	}
	for _, site := range tr.serving() {
		w.served[site] = tr.now
	}
	if tr.cut != nil {
		w.cutAt = tr.now
	}
	was := w.announced
	w.announced = tr.announced()
	for _, site := range was {
		if slices.Contains(w.announced, site) {
			continue
		}
		why := tr.at(site).plan.Routes[0].Why
		others := 0
		for _, other := range tr.members {
			if at, ok := w.served[other.site]; ok && other.site != site && tr.now.Sub(at) <= latency+2*tickTime {
				others++
			}
		}
		if others < w.least || len(w.announced) < w.least {
			w.rt.Fatalf("%s withdrew it (%s) while %d others served and %v announced, at least %d have to:\n%s", site, why, others, w.announced, w.least, tr.story())
		}
		if why == ReasonStandby {
			continue
		}
		for other, at := range w.left {
			// Across a cut nobody can know that another leaves; the minimum holds all the same.
			if w.tr.now.Sub(w.cutAt) > budgetWindow && other != site && !slices.Contains(w.announced, other) && tr.now.Sub(at) < budgetWindow {
				w.rt.Fatalf("%s withdrew it %s after %s:\n%s", site, tr.now.Sub(at), other, tr.story())
			}
		}
		w.left[site] = tr.now
	}
}

// serving returns the sites that announce, can serve and mean to go on.
func (tr *troupe) serving() (sites []string) {
	for _, m := range tr.members {
		if r := &m.plan.Routes[0]; r.Announce && !m.dead && r.serves == health.StatusUp {
			sites = append(sites, m.site)
		}
	}
	return sites
}

// A process that starts anew has its site's names back only after the route, its warm-up included.
func TestNamesWaitForWarmUp(t *testing.T) {
	tr := newTroupe(t, []string{"fra", "iad", "sin"}, func(p *config.Prefix) { p.WarmUp = 10 * time.Second })
	fra, iad := tr.at("fra"), tr.at("iad")
	fra.facts.Ready, fra.plan = false, nil
	tr.pass(3 * time.Second)
	fra.facts.Ready = true
	warmed := false
	tr.watch = func() {
		r := fra.plan.Routes[0]
		warmed = warmed || r.Why == ReasonWarmingUp
		for _, m := range []*member{fra, iad} {
			if s := m.plan.Services[0].Sites[0]; s.Eligible && !r.Announce {
				t.Fatalf("%s: %s answers with fra (%s), whose route is not there (%s)", tr.now.Sub(now), m.site, s.Why, r.Why)
			}
		}
	}
	tr.pass(30 * time.Second)
	if s := iad.plan.Services[0].Sites[0]; !warmed || !s.Eligible || !fra.plan.Routes[0].Announce {
		t.Errorf("afterwards: warmed up %v, answered %v (%s)", warmed, s.Eligible, s.Why)
	}
}

// A drain in between takes back the wish to leave: what others said before it does not count for the wish after it.
func TestOrderOverDrainOverOrder(t *testing.T) {
	tr := newTroupe(t, []string{"fra", "iad", "sin"}, func(p *config.Prefix) { p.MinSites = 1 })
	for _, order := range []string{"down site/fra", "drain site/fra", "down site/fra"} {
		tr.order(order)
		tr.pass(settleTime - 100*time.Millisecond)
	}
	if fra := tr.at("fra"); !fra.plan.Announces(anycastPrefix) {
		t.Errorf("it left without a word:\n%s", tr.story())
	}
	tr.pass(2 * time.Second)
	if fra := tr.at("fra"); fra.plan.Announces(anycastPrefix) {
		t.Errorf("it never left:\n%s", tr.story())
	}
}

// Who stood still holds its route until it has looked again, and hears what the others say now.
func TestStalledHoldsRoutes(t *testing.T) {
	for name, change := range map[string]func(*config.Prefix){
		"with a minimum": func(p *config.Prefix) { p.MinSites = 1 },
		"without":        func(*config.Prefix) {},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTroupe(t, []string{"fra", "iad", "sin"}, change)
			fra := tr.at("fra")
			fra.facts.Stalled, fra.dead = tr.now.Add(3*time.Second), true
			tr.pass(2900 * time.Millisecond)
			if r := fra.plan.route(anycastPrefix); r.Why != ReasonStalled || r.Cause != ReasonBackendsDown || !r.Announce || r.Level != LevelLast {
				t.Errorf("while it looks again: %+v", r)
			}
			tr.pass(2 * time.Second)
			if r := fra.plan.route(anycastPrefix); r.Announce {
				t.Errorf("after that: %+v", r)
			}
		})
	}
}
