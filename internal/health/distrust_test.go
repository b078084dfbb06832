package health

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// theVIPs is a layout of n services, each with a VIP and a backend at every site.
func theVIPs(n int, sites ...string) *Layout {
	var targets []Target
	for s := range n {
		for _, site := range sites {
			name := fmt.Sprintf("web%02d", s)
			targets = append(targets, backend(name, site, 1), vip(name, site))
		}
	}
	return NewLayout(targets)
}

// silent is a node that says nothing.
const silent = -1

// speak merges a report of every node that is not silent, in which on the first
// wrong of the VIPs abroad it says down and on the others up.
func speak(l *Ledger, seq uint64, now time.Time, wrong map[string]int) {
	for _, e := range l.held {
		r := saying(e.name, l.layout, 1, seq, nil)
		left := wrong[e.name]
		if left == silent {
			continue
		}
		for i, target := range l.layout.Targets {
			s := StatusUp
			if target.Kind == KindVIP && target.Site != l.sites[e.site] && left > 0 {
				s, left = StatusDown, left-1
			}
			r.Set(i, s)
		}
		l.Merge(r, 0, now)
	}
}

func distrusted(v *View) (names []string) {
	for _, w := range v.Witnesses {
		if w.Distrusted {
			names = append(names, w.Name)
		}
	}
	return names
}

func TestDistrust(t *testing.T) {
	four := []string{"fra", "iad", "lax", "sin"}
	for _, tt := range []struct {
		name     string
		services int
		sites    []string
		nodes    []string
		wrong    map[string]int // VIPs abroad: services × (sites - 1)
		want     []string
	}{
		{"all agree", 2, four, []string{"fra1", "iad1", "lax1", "sin1"}, nil, nil},
		{"more than half", 2, four, []string{"fra1", "iad1", "lax1", "sin1"}, map[string]int{"iad1": 4}, []string{"iad1"}},
		{"half", 2, four, []string{"fra1", "iad1", "lax1", "sin1"}, map[string]int{"iad1": 3}, nil},
		{"three targets are too few", 1, four, []string{"fra1", "iad1", "lax1", "sin1"}, map[string]int{"iad1": 3}, nil},
		{"nobody has two others", 4, []string{"fra", "iad", "sin"}, []string{"fra1", "iad1", "sin1"}, map[string]int{"iad1": 8}, nil},
		{"its colleague and another site are two others", 4, []string{"fra", "iad", "sin"}, []string{"fra1", "iad1", "iad2", "sin1"}, map[string]int{"iad1": 8}, []string{"iad1"}},
		{"a whole site", 4, four, []string{"fra1", "iad1", "iad2", "lax1", "lax2", "sin1"}, map[string]int{"iad1": 12, "iad2": 12}, []string{"iad1", "iad2"}},
		{"a whole site with most of the nodes does not turn it round", 4, four, []string{"fra1", "iad1", "iad2", "iad3", "iad4", "iad5", "lax1", "sin1"}, map[string]int{"iad1": 12, "iad2": 12, "iad3": 12, "iad4": 12, "iad5": 12}, []string{"iad1", "iad2"}},
		{"two of five: a third is one, the worst", 4, []string{"ams", "fra", "iad", "lax", "sin"}, []string{"ams1", "fra1", "iad1", "lax1", "sin1"}, map[string]int{"fra1": 10, "lax1": 15}, []string{"lax1"}},
		{"all down is agreement", 4, four, []string{"fra1", "iad1", "lax1", "sin1"}, map[string]int{"fra1": 12, "iad1": 12, "lax1": 12, "sin1": 12}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLedger(fleetOf(tt.nodes...), theVIPs(tt.services, tt.sites...))
			speak(l, 1, t0, tt.wrong)
			if diff := cmp.Diff(tt.want, distrusted(l.Judge(nil, Moment{Now: t0}))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDistrustLasts: trust is lost above a half and comes back below a quarter;
// meanwhile the observer has a say at its own site only.
func TestDistrustLasts(t *testing.T) {
	sites := []string{"ams", "fra", "iad", "lax", "sin"}
	layout := theVIPs(4, sites...)
	l := NewLedger(fleetOf("ams1", "fra1", "iad1", "lax1", "sin1"), layout)
	var v *View
	for second, tt := range []struct {
		wrong int // of 16
		want  bool
	}{{0, false}, {8, false}, {9, true}, {8, true}, {4, true}, {3, false}, {8, false}, {16, true}} {
		now := t0.Add(time.Duration(second) * time.Second)
		speak(l, uint64(second)+1, now, map[string]int{"iad1": tt.wrong})
		v = l.Judge(v, Moment{Now: now})
		if got := len(distrusted(v)) == 1; got != tt.want {
			t.Errorf("%d of 16 wrong: distrusted %v, want %v", tt.wrong, distrusted(v), tt.want)
		}
	}
	now := t0.Add(7 * time.Second)
	for _, o := range l.Opinions(vip("web00", "fra"), now) {
		if want := o.Observer == "iad1"; (o.Abstains == AbstainDistrusted) != want {
			t.Errorf("opinion %+v", o)
		}
	}
	if o := l.Opinions(backend("web00", "iad", 1), now); len(o) != 1 || o[0].Abstains != AbstainNot {
		t.Errorf("no say at home: %+v", o)
	}
	if o := l.Observers(now)[2]; o.Abstains != AbstainDistrusted {
		t.Errorf("observer %+v", o)
	}
	if got := v.Of(vip("web00", "fra")); got.Up != 3 || got.Down != 0 || got.Abstain != 1 {
		t.Errorf("its vote counted: %+v", got)
	}
	// What was thought of an observer that falls silent stands until it has settled.
	for second := 8; second < 16+3; second++ {
		now = t0.Add(time.Duration(second) * time.Second)
		says := map[string]int{}
		if second < 15 {
			says["iad1"] = silent
		}
		speak(l, uint64(second)+1, now, says)
		v = l.Judge(v, Moment{Now: now})
		if got := len(distrusted(v)) == 1; got != (second < 15+3) {
			t.Errorf("after %d s: distrusted %v", second, distrusted(v))
		}
	}
}

// TestDistrustNeedsOthers: when the others fall silent nobody contradicts anybody,
// though nobody says anything new.
func TestDistrustNeedsOthers(t *testing.T) {
	l := NewLedger(fleetOf("fra1", "iad1", "lax1", "sin1"), theVIPs(4, "fra", "iad", "lax", "sin"))
	speak(l, 1, t0, map[string]int{"iad1": 12})
	v := l.Judge(nil, Moment{Now: t0})
	if diff := cmp.Diff([]string{"iad1"}, distrusted(v)); diff != "" {
		t.Fatal(diff)
	}
	for second := 1; second <= 6; second++ {
		now := t0.Add(time.Duration(second) * time.Second)
		speak(l, uint64(second)+1, now, map[string]int{"iad1": 12, "fra1": silent, "lax1": silent})
		v = l.Judge(v, Moment{Now: now})
	}
	if got := distrusted(v); got != nil {
		t.Errorf("still distrusted: %v", got)
	}
}

// TestDistrustCache: what was compared before and what is compared now give the same.
func TestDistrustCache(t *testing.T) {
	sites := []string{"fra", "iad", "lax", "sin"}
	layout := theVIPs(2, sites...)
	nodes := []string{"fra1", "iad1", "iad2", "lax1", "sin1"}
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger(fleetOf(nodes...), layout)
		var v *View
		now := t0
		for seq := range rapid.IntRange(1, 8).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 7000).Draw(t, "ms")) * time.Millisecond)
			for _, n := range nodes {
				if rapid.IntRange(0, 2).Draw(t, "speaks") == 0 {
					continue
				}
				r := NewReport(n, layout)
				r.Seq = uint64(seq)
				if rapid.IntRange(0, 9).Draw(t, "doubts") == 0 {
					r.Flags = FlagDoubt
				}
				for i := range layout.Targets {
					r.Set(i, StatusUp)
				}
				for range rapid.IntRange(0, 9).Draw(t, "wrong") {
					r.Set(rapid.IntRange(0, len(layout.Targets)-1).Draw(t, "i"), StatusDown)
				}
				l.Merge(r, 0, now)
			}
			cached := l.Judge(v, Moment{Now: now})
			l.contrasts = contrasts{}
			fresh := l.Judge(v, Moment{Now: now})
			if diff := cmp.Diff(fresh.Witnesses, cached.Witnesses); diff != "" {
				t.Fatal(diff)
			}
			voting := 0
			for _, e := range l.held {
				if e.abstains(now) == AbstainNot {
					voting++
				}
			}
			if n := len(distrusted(fresh)); n > 0 && voting > 0 {
				count := 0
				for k, w := range fresh.Witnesses {
					if w.Distrusted && l.held[k].abstains(now) == AbstainNot {
						count++
					}
				}
				if 3*count > voting {
					t.Fatalf("%d of %d distrusted", count, voting)
				}
			}
			v = fresh
		}
	})
}

// TestCompare: the contrasts are those of the definition, spelled out.
func TestCompare(t *testing.T) {
	sites := []string{"fra", "iad", "lax", "sin"}
	layout := theVIPs(1, sites...)
	nodes := []string{"fra1", "iad1", "iad2", "iad3", "lax1", "lax2", "sin1"}
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger(fleetOf(nodes...), layout)
		who := make([]bool, len(nodes))
		for k, n := range nodes {
			r := NewReport(n, layout)
			for i := range layout.Targets {
				r.Set(i, Status(rapid.IntRange(0, 3).Draw(t, "says")))
			}
			l.Merge(r, 0, t0)
			who[k] = rapid.IntRange(0, 5).Draw(t, "in") > 0
		}
		want := make([]contrast, len(nodes))
		for i, target := range layout.Targets {
			if target.Kind != KindVIP {
				continue
			}
			votes := func(k int) Status {
				if s := l.held[k].report.Get(i); who[k] && nodes[k][:3] != target.Site && (s == StatusUp || s == StatusDown) {
					return s
				}
				return StatusNone
			}
			for k := range nodes {
				if votes(k) == StatusNone {
					continue
				}
				lead, others := map[string]int{}, 0
				for o := range nodes {
					if o == k || votes(o) == StatusNone {
						continue
					}
					others++
					lead[nodes[o][:3]] += map[Status]int{StatusUp: 1, StatusDown: -1}[votes(o)]
				}
				if others < 2 {
					continue
				}
				want[k].compared++
				up, down := 0, 0
				for _, n := range lead {
					switch {
					case n > 0:
						up++
					case n < 0:
						down++
					}
				}
				if votes(k) == StatusUp && down > up || votes(k) == StatusDown && up > down {
					want[k].contrary++
				}
			}
		}
		if diff := cmp.Diff(want, l.compare(who), cmp.AllowUnexported(contrast{})); diff != "" {
			t.Fatal(diff)
		}
	})
}
