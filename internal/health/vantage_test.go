package health

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestObserversOf(t *testing.T) {
	b, v := backend("web", "fra", 1), vip("web", "fra")
	all, none := []string{"fra", "iad", "sin"}, []string(nil)
	for _, tt := range []struct {
		name    string
		target  Target
		vantage Vantage
		sites   []string
		want    []string
	}{
		{"backend: its own site", b, VantageDefault, all, []string{"fra"}},
		{"backend: every site", b, VantageAll, all, all},
		{"backend: every site, another negative", b, -7, all, all},
		{"backend: more than there are", b, 9, all, all},
		{"backend: its site has no nodes", b, VantageDefault, []string{"iad"}, none},
		{"backend: its site has no nodes, but others", b, VantageAll, []string{"sin", "iad"}, []string{"iad", "sin"}},
		{"vip: every other site", v, VantageDefault, all, []string{"iad", "sin"}},
		{"vip: all is every other site", v, VantageAll, all, []string{"iad", "sin"}},
		{"vip: more than there are", v, 2, all, []string{"iad", "sin"}},
		{"vip: nobody else", v, 2, []string{"fra"}, none},
		{"no sites", b, VantageAll, nil, none},
	} {
		if diff := cmp.Diff(tt.want, Observers(tt.target, tt.vantage, tt.sites)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func drawSites(t *rapid.T) []string {
	return rapid.SliceOfNDistinct(rapid.StringMatching(`[a-d][a-c]?[0-3]`), 0, 12, rapid.ID).Draw(t, "sites")
}

func drawTarget(t *rapid.T, sites []string) Target {
	site := rapid.SampledFrom(append([]string{"zzz"}, sites...)).Draw(t, "site")
	service := rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "service")
	if rapid.Bool().Draw(t, "vip") {
		return vip(service, site)
	}
	return backend(service, site, rapid.Uint16().Draw(t, "port"))
}

// TestObserversLaws: order does not matter, Observes agrees, the number is kept,
// and a site more or less moves nothing but its own share.
func TestObserversLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sites := drawSites(t)
		target := drawTarget(t, sites)
		v := Vantage(rapid.IntRange(-2, 6).Draw(t, "vantage"))
		got := Observers(target, v, sites)
		if diff := cmp.Diff(got, Observers(target, v, rapid.Permutation(sites).Draw(t, "order"))); diff != "" {
			t.Fatalf("another order: %s", diff)
		}
		for _, site := range append([]string{"nowhere"}, sites...) {
			if Observes(site, target, v, sites) != slices.Contains(got, site) {
				t.Fatalf("%s observes: not what %v says", site, got)
			}
		}
		others := len(sites)
		if slices.Contains(sites, target.Site) {
			others--
		}
		outside := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s == target.Site })
		if v > 0 && len(outside) != min(int(v), others) {
			t.Fatalf("%d other sites, want %d", len(outside), min(int(v), others))
		}
		if len(sites) == 0 {
			return
		}
		gone := rapid.SampledFrom(sites).Draw(t, "gone")
		left := slices.DeleteFunc(slices.Clone(sites), func(s string) bool { return s == gone })
		for _, site := range got {
			if site != gone && !Observes(site, target, v, left) {
				t.Fatalf("%s went with %s", site, gone)
			}
		}
	})
}

// TestObserversSpread: the targets are spread evenly over the sites.
func TestObserversSpread(t *testing.T) {
	var sites []string
	for s := range 10 {
		sites = append(sites, fmt.Sprintf("site%d", s))
	}
	const targets, n = 3000, 3
	share := map[string]int{}
	for i := range targets {
		for _, site := range Observers(vip(fmt.Sprintf("service%d", i), "other"), n, sites) {
			share[site]++
		}
	}
	for _, site := range sites {
		if got, want := share[site], targets*n/len(sites); got < want*9/10 || got > want*11/10 {
			t.Errorf("%s observes %d, want about %d", site, got, want)
		}
	}
}

func TestObservesAllocatesNothing(t *testing.T) {
	sites, target := []string{"a", "b", "c", "d"}, vip("web", "a")
	if n := testing.AllocsPerRun(100, func() { Observes("c", target, 2, sites) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLayoutVantage(t *testing.T) {
	b, v := backend("web", "fra", 1), vip("web", "fra")
	targets := []Target{v, b}
	plain := NewLayout(targets)
	of := func(b, v Vantage) *Layout {
		return NewLayoutOf(targets, func(t Target) Vantage {
			if t.Kind == KindVIP {
				return v
			}
			return b
		})
	}
	if got := of(0, 0); got.Hash != plain.Hash || got.Vantage(0) != VantageDefault {
		t.Error("the default is not the default")
	}
	if of(0, VantageAll).Hash != plain.Hash {
		t.Error("every other site is what observes a VIP anyway")
	}
	seen := map[uint64]Vantage{plain.Hash: 0}
	for _, l := range []*Layout{of(1, 0), of(2, 0), of(VantageAll, 0), of(0, 1), of(1, 1)} {
		if _, ok := seen[l.Hash]; ok {
			t.Errorf("two layouts with the hash %x", l.Hash)
		}
		seen[l.Hash] = 0
	}
	l := of(VantageAll, 3)
	if l.Vantage(0) != VantageAll || l.Vantage(1) != 3 || l.Vantage(2) != 0 || l.Vantage(-1) != 0 {
		t.Errorf("vantages %v %v", l.Vantage(0), l.Vantage(1))
	}
}

// TestJudgeSharedBackend: a backend that other sites observe too.
func TestJudgeSharedBackend(t *testing.T) {
	const up, down, unknown, none = StatusUp, StatusDown, StatusUnknown, StatusNone
	layout := NewLayoutOf([]Target{webBackend}, func(Target) Vantage { return VantageAll })
	for _, tt := range []struct {
		name  string
		nodes string
		last  Verdict
		cut   bool
		want  Status
		why   Why
	}{
		{"everybody up", "fra1:up iad1:up sin1:up", Verdict{}, false, up, WhyProbes},
		{"its own site's word downs it at once", "fra1:down iad1:up sin1:up", Verdict{Status: up}, false, down, WhyOwnSite},
		{"the majority of its own site", "fra1:down fra2:up fra3:up iad1:up sin1:up", Verdict{Status: up}, false, up, WhyProbes},
		{"the others down it by their quorum", "fra1:up iad1:down sin1:down", Verdict{Status: up}, false, down, WhyProbes},
		{"one of the others does not", "fra1:up iad1:down sin1:up", Verdict{Status: up}, false, up, WhyProbes},
		{"a single other does not while the own site says up", "fra1:up iad1:down", Verdict{Status: up}, false, up, WhyHeld},
		{"a single other does if the own site is silent", "fra1:- iad1:down", Verdict{Status: up}, false, down, WhyProbes},
		{"it comes up later", "fra1:up iad1:up sin1:up", Verdict{Status: down}, false, down, WhyRising},
		{"its own site alone cannot revive it", "fra1:up iad1:unknown sin1:unknown", Verdict{Status: down}, false, down, WhyHeld},
		{"but takes back its own word", "fra1:up iad1:unknown sin1:unknown", Verdict{Status: down, Own: true}, false, down, WhyRising},
		{"and says it first", "fra1:up iad1:unknown sin1:unknown", Verdict{}, false, up, WhyOwnSite},
		{"in a minority the quorum does nothing", "fra1:up iad1:down sin1:- lax1:- ams1:-", Verdict{Status: up}, true, up, WhyOwnSite},
		{"in a minority its own site downs it", "fra1:down iad1:- sin1:-", Verdict{Status: up}, true, down, WhyOwnSite},
		{"in a minority its own site does not revive it", "fra1:up iad1:- sin1:-", Verdict{Status: down}, true, down, WhyFrozen},
		{"in a minority its own word is taken back", "fra1:up iad1:- sin1:-", Verdict{Status: down, Own: true}, true, down, WhyRising},
		{"its own word stays its own", "fra1:unknown iad1:unknown sin1:unknown", Verdict{Status: down, Own: true}, false, down, WhyHeld},
		{"nobody knows", "fra1:- iad1:- sin1:-", Verdict{}, false, unknown, WhyNeverProbed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := hearIn(layout, webBackend, tt.nodes)
			var prev *View
			if tt.last.Status != none {
				prev = &View{Layout: layout, Verdicts: []Verdict{tt.last}, At: t0.Add(-1), Joined: true}
			}
			view := l.Judge(prev, Moment{Now: t0, Connected: !tt.cut})
			if got := view.Verdicts[0]; got.Status != tt.want || got.Why != tt.why || got.Own != (got.Status == down && (tt.why == WhyOwnSite || tt.last.Own)) {
				t.Errorf("got %+v, want %v (%v)", got, tt.want, tt.why)
			}
			if view.Minority != tt.cut {
				t.Errorf("minority: %v", view.Minority)
			}
		})
	}
}

// TestJudgeByNumber: only the sites of the vantage have a say on a VIP.
func TestJudgeByNumber(t *testing.T) {
	layout := NewLayoutOf([]Target{webVIP}, func(Target) Vantage { return 2 })
	sites := []string{"ams", "fra", "iad", "lax", "sin", "syd"}
	chosen := Observers(webVIP, 2, sites)
	l := NewLedger(fleetOf("ams1", "fra1", "iad1", "lax1", "sin1", "syd1"), layout)
	say := func(seq uint64, of func(chosen bool) Status) *View {
		for _, site := range sites {
			l.Merge(saying(site+"1", layout, 1, seq, map[Target]Status{webVIP: of(slices.Contains(chosen, site))}), 0, t0)
		}
		return l.Judge(was(webVIP, StatusUp), Moment{Now: t0})
	}
	got := say(1, func(chosen bool) Status {
		if chosen {
			return StatusUp
		}
		return StatusDown
	}).Of(webVIP)
	if got.Status != StatusUp || got.Up != 2 || got.Down != 0 || got.Abstain != 0 {
		t.Errorf("others were heard: %+v", got)
	}
	got = say(2, func(chosen bool) Status {
		if chosen {
			return StatusDown
		}
		return StatusUp
	}).Of(webVIP)
	if got.Status != StatusDown || got.Down != 2 || got.Up != 0 {
		t.Errorf("others were heard: %+v", got)
	}
	got = say(3, func(chosen bool) Status {
		if chosen {
			return StatusUnknown
		}
		return StatusDown
	}).Of(webVIP)
	if got.Status != StatusUp || got.Abstain != 2 {
		t.Errorf("abstentions of others count: %+v", got)
	}
	var who []string
	for _, o := range l.Opinions(webVIP, t0) {
		who = append(who, o.Site)
	}
	if diff := cmp.Diff(chosen, who); diff != "" {
		t.Errorf("opinions: %s", diff)
	}
}

// BenchmarkObservers is what a target with a numbered vantage costs at a reload,
// and what asking for one site does.
func BenchmarkObservers(b *testing.B) {
	var sites []string
	for s := range 200 {
		sites = append(sites, fmt.Sprintf("site%03d", s))
	}
	target := vip("web", "site007")
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			Observers(target, 3, sites)
		}
	})
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			Observes("site100", target, 3, sites)
		}
	})
}
