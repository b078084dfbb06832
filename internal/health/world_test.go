package health

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A world is a fleet in which every node has a ledger of its own and every site a
// backend and a VIP, all of them alive: what fails is the network between sites.
type world struct {
	fleet  Fleet
	sites  []string
	nodes  []string
	layout *Layout
	at     time.Duration // since t0
	seq    uint64
	of     map[string]*worldNode
	// reaches says whether packets pass from one site to another.
	reaches func(from, to string) bool
	// onJudge sees every new view.
	onJudge func(node string, prev, next *View)
}

type worldNode struct {
	ledger *Ledger
	view   *View
	says   map[Target]Status
	since  map[Target]time.Duration // since when a probe would find otherwise
}

const (
	worldTick = 250 * time.Millisecond
	// findDown and findUp are how long a probe needs to change its mind.
	findDown, findUp = time.Second, 2500 * time.Millisecond
)

func newWorld(sites, perSite int) *world {
	w := &world{fleet: Fleet{Sites: map[string]string{}}, of: map[string]*worldNode{}, reaches: func(string, string) bool { return true }}
	var targets []Target
	for s := range sites {
		site := fmt.Sprintf("s%d", s)
		w.sites = append(w.sites, site)
		targets = append(targets, backend("web", site, 1), vip("web", site), vip("api", site))
		for n := range perSite {
			name := fmt.Sprintf("%sn%d", site, n)
			w.fleet.Sites[name] = site
			w.nodes = append(w.nodes, name)
		}
	}
	w.layout = NewLayout(targets)
	for _, name := range w.nodes {
		w.of[name] = &worldNode{ledger: NewLedger(w.fleet, w.layout), says: map[Target]Status{}, since: map[Target]time.Duration{}}
	}
	return w
}

// tick goes on by worldTick: probes, reports (each node every second), judgements.
func (w *world) tick() {
	w.at += worldTick
	w.seq++
	now := t0.Add(w.at)
	for k, name := range w.nodes {
		n := w.of[name]
		w.probe(name, n)
		if (w.seq+uint64(k))%4 != 0 {
			continue
		}
		r := saying(name, w.layout, 1, w.seq, n.says)
		for _, to := range w.nodes {
			if w.reaches(w.fleet.Sites[name], w.fleet.Sites[to]) {
				w.of[to].ledger.Merge(r, 0, now)
			}
		}
	}
	for _, name := range w.nodes {
		n := w.of[name]
		prev := n.view
		n.view = n.ledger.Judge(prev, Moment{Now: now})
		if w.onJudge != nil && prev != nil {
			w.onJudge(name, prev, n.view)
		}
	}
}

func (w *world) probe(name string, n *worldNode) {
	site := w.fleet.Sites[name]
	for _, target := range w.layout.Targets {
		if !Observes(site, target, VantageDefault, w.sites) {
			continue
		}
		found, patience := StatusDown, findDown
		if w.reaches(site, target.Site) && w.reaches(target.Site, site) {
			found, patience = StatusUp, findUp
		}
		switch {
		case n.says[target] == found:
			n.since[target] = w.at
		case n.says[target] == StatusNone, w.at-n.since[target] >= patience:
			n.says[target] = found
		}
	}
}

func (w *world) run(d time.Duration) {
	for end := w.at + d; w.at < end; {
		w.tick()
	}
}

// split makes the sites of different groups unable to reach each other.
func (w *world) split(group map[string]int) {
	w.reaches = func(from, to string) bool { return group[from] == group[to] }
}

// requireAllUp fails unless every node holds the same: all up.
func (w *world) requireAllUp(t interface{ Fatalf(string, ...any) }, when string) {
	for _, name := range w.nodes {
		for i, v := range w.of[name].view.Verdicts {
			if v.Status != StatusUp {
				t.Fatalf("%s: %s holds %v %v (%v)", when, name, w.layout.Targets[i], v.Status, v.Why)
			}
		}
	}
}

// TestFullSplitHeals: three sites, each alone for a minute, all sure that the
// others are dead. Nobody's verdict ever changes, neither in the cut nor after it.
func TestFullSplitHeals(t *testing.T) {
	for _, perSite := range []int{1, 2} {
		w := newWorld(3, perSite)
		w.run(10 * time.Second)
		w.requireAllUp(t, "before")
		w.onJudge = func(node string, prev, next *View) {
			for _, i := range next.Changed(prev) {
				t.Fatalf("after %v at %s: %v became %v (%v)", w.at, node, w.layout.Targets[i], next.Verdicts[i].Status, next.Verdicts[i].Why)
			}
		}
		w.split(map[string]int{"s0": 0, "s1": 1, "s2": 2})
		w.run(time.Minute)
		for _, name := range w.nodes {
			n := w.of[name]
			for target, s := range n.says {
				if (s == StatusDown) != (target.Site != w.fleet.Sites[name]) {
					t.Fatalf("%s says %v of %v: the scenario is not what it should be", name, s, target)
				}
			}
			if !n.view.Minority {
				t.Fatalf("%s is in no minority", name)
			}
		}
		w.reaches = func(string, string) bool { return true }
		w.run(time.Minute)
	}
}

// TestAnySplitHeals: however the sites are split, for however long beyond
// FreshFor, and in whatever order they find each other again within a second:
// nothing goes down because of what was said in the cut, and soon all hold the same.
func TestAnySplitHeals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(3, 6).Draw(t, "sites"), rapid.IntRange(1, 2).Draw(t, "nodes"))
		w.run(8 * time.Second)
		w.requireAllUp(t, "before")
		group, heals := map[string]int{}, map[string]time.Duration{}
		for _, s := range w.sites {
			group[s] = rapid.IntRange(0, 2).Draw(t, "group")
		}
		w.split(group)
		w.run(time.Duration(rapid.IntRange(22, 80).Draw(t, "quarters of a second")) * worldTick)
		for _, s := range w.sites {
			heals[s] = w.at + time.Duration(rapid.IntRange(0, 4).Draw(t, "late"))*worldTick
		}
		w.reaches = func(from, to string) bool {
			return group[from] == group[to] || w.at >= heals[from] && w.at >= heals[to]
		}
		w.run(time.Second)
		w.onJudge = func(node string, prev, next *View) {
			for _, i := range next.Changed(prev) {
				if next.Verdicts[i].Status == StatusDown {
					t.Fatalf("at %s: %v went down after the heal: %+v", node, w.layout.Targets[i], next.Verdicts[i])
				}
			}
		}
		w.run(Settle + findUp + 2*time.Second + HoldUp)
		w.requireAllUp(t, "after")
	})
}

// TestLossIsNoEvidence: whatever share of the reports is lost, with all probes
// up, nothing changes.
func TestLossIsNoEvidence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(2, 5).Draw(t, "sites"), rapid.IntRange(1, 2).Draw(t, "nodes"))
		w.run(4 * time.Second)
		w.onJudge = func(node string, prev, next *View) {
			if changed := next.Changed(prev); changed != nil {
				t.Fatalf("at %s: %v changed", node, changed)
			}
		}
		quiet := map[string]bool{}
		for _, name := range w.nodes {
			quiet[name] = rapid.Bool().Draw(t, "quiet")
		}
		for range 40 {
			w.at += worldTick
			w.seq++
			for _, name := range w.nodes {
				if !quiet[name] || rapid.IntRange(0, 9).Draw(t, "heard") == 0 {
					r := saying(name, w.layout, 1, w.seq, w.of[name].says)
					for _, to := range w.nodes {
						w.of[to].ledger.Merge(r, 0, t0.Add(w.at))
					}
				}
			}
			for _, name := range w.nodes {
				n := w.of[name]
				next := n.ledger.Judge(n.view, Moment{Now: t0.Add(w.at), Connected: true})
				w.onJudge(name, n.view, next)
				n.view = next
			}
		}
	})
}

// TestNobodyAloneChangesAnything: from a settled state in which all agree, no node
// and in fleets of four sites or more no whole site, whatever it says and for
// however long, changes a verdict on another site's VIP in either direction.
func TestNobodyAloneChangesAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sites, perSite := rapid.IntRange(3, 7).Draw(t, "sites"), rapid.IntRange(1, 3).Draw(t, "nodes")
		w := newWorld(sites, perSite)
		truth := map[Target]Status{}
		for _, target := range w.layout.Targets {
			truth[target] = rapid.SampledFrom([]Status{StatusUp, StatusDown}).Draw(t, "truth")
		}
		mad := map[string]bool{rapid.SampledFrom(w.nodes).Draw(t, "mad"): true}
		if sites >= 4 && rapid.Bool().Draw(t, "whole site") {
			for name, site := range w.fleet.Sites {
				mad[name] = site == w.fleet.Sites[w.nodes[0]]
			}
		}
		l := NewLedger(w.fleet, w.layout)
		var view *View
		for second := range rapid.IntRange(4, 12).Draw(t, "seconds") {
			now := t0.Add(time.Duration(second) * time.Second)
			for _, name := range w.nodes {
				r := saying(name, w.layout, 1, uint64(second)+1, truth)
				if mad[name] && second > 2 {
					for i := range w.layout.Targets {
						r.Set(i, Status(rapid.IntRange(0, 3).Draw(t, "raving")))
					}
				}
				l.Merge(r, 0, now)
			}
			view = l.Judge(view, Moment{Now: now})
			for i, target := range w.layout.Targets {
				if target.Kind == KindVIP && view.Verdicts[i].Status != truth[target] {
					t.Fatalf("after %d s %v: %+v, want %v", second, target, view.Verdicts[i], truth[target])
				}
			}
		}
	})
}
