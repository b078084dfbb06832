package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The bench of these tests: service web with a backend and a VIP at fra, and
// nodes named by site (fra1 is at fra).
var (
	webBackend = backend("web", "fra", 1)
	webVIP     = vip("web", "fra")
	webLayout  = NewLayout([]Target{webBackend, webVIP})
)

// hear merges statements written as "fra1:up iad1:down sin1:up,stale", all on
// one target, into a ledger of exactly these nodes. What may follow the status:
// stale, doubt, leaving, future (an unknown flag), conflict, other (layout).
// "-" is a node that was never heard.
func hear(target Target, nodes string) *Ledger { return hearIn(webLayout, target, nodes) }

func hearIn(layout *Layout, target Target, nodes string) *Ledger {
	var names []string
	for _, n := range strings.Fields(nodes) {
		names = append(names, strings.Split(n, ":")[0])
	}
	l := NewLedger(fleetOf(names...), layout)
	for _, n := range strings.Fields(nodes) {
		name, say, _ := strings.Cut(n, ":")
		words := strings.Split(say, ",")
		if words[0] == "-" {
			continue
		}
		status := map[string]Status{"up": StatusUp, "down": StatusDown, "unknown": StatusUnknown, "none": StatusNone}[words[0]]
		r := saying(name, layout, 1, 1, map[Target]Status{target: status})
		age := time.Duration(0)
		for _, w := range words[1:] {
			switch w {
			case "stale":
				age = FreshFor + 1
			case "doubt":
				r.Flags |= FlagDoubt
			case "leaving":
				r.Flags |= FlagLeaving
			case "future":
				r.Flags |= 1 << 7
			case "other":
				r.Layout++
			case "conflict":
				rival := saying(name, layout, 1, 1, map[Target]Status{target: StatusUnknown})
				l.Merge(rival, 0, t0)
			default:
				panic(w)
			}
		}
		l.Merge(r, age, t0)
	}
	return l
}

// was is a view in which target had a status a minute ago.
func was(target Target, s Status) *View {
	if s == StatusNone {
		return nil
	}
	v := &View{Layout: webLayout, Verdicts: make([]Verdict, len(webLayout.Targets)), At: t0.Add(-time.Minute)}
	i, _ := webLayout.Index(target)
	v.Verdicts[i] = Verdict{Status: s, Since: t0.Add(-time.Minute), Why: WhyProbes}
	return v
}

func TestJudgeBackend(t *testing.T) {
	const up, down, unknown, none = StatusUp, StatusDown, StatusUnknown, StatusNone
	for _, tt := range []struct {
		name  string
		nodes string
		last  Status
		want  Status
		why   Why
		votes [3]int // up, down, abstain
	}{
		{"nobody knows", "fra1:-", none, unknown, WhyNeverProbed, [3]int{0, 0, 1}},
		{"observed, not decided", "fra1:unknown", none, unknown, WhyNeverProbed, [3]int{0, 0, 1}},
		{"one says up", "fra1:up", none, up, WhyProbes, [3]int{1, 0, 0}},
		{"one says down", "fra1:down", none, down, WhyProbes, [3]int{0, 1, 0}},
		{"down after up", "fra1:down", up, down, WhyProbes, [3]int{0, 1, 0}},
		{"up after down", "fra1:up", down, up, WhyProbes, [3]int{1, 0, 0}},
		{"one mad observer of three", "fra1:up fra2:up fra3:down", up, up, WhyProbes, [3]int{2, 1, 0}},
		{"majority", "fra1:up fra2:down fra3:down", up, down, WhyProbes, [3]int{1, 2, 0}},
		{"tie, was up", "fra1:up fra2:down", up, up, WhyHeld, [3]int{1, 1, 0}},
		{"tie, was down", "fra1:up fra2:down", down, down, WhyHeld, [3]int{1, 1, 0}},
		{"tie at the beginning", "fra1:up fra2:down", none, unknown, WhyHeld, [3]int{1, 1, 0}},
		{"other sites have no say", "fra1:up iad1:down iad2:down sin1:down", up, up, WhyProbes, [3]int{1, 0, 0}},
		{"other sites have no say when the own is silent", "fra1:- iad1:down", up, up, WhyStale, [3]int{0, 0, 1}},
		{"silence downs nobody", "fra1:- fra2:-", up, up, WhyStale, [3]int{0, 0, 2}},
		{"silence ups nobody", "fra1:- fra2:-", down, down, WhyStale, [3]int{0, 0, 2}},
		{"stale down", "fra1:down,stale", up, up, WhyStale, [3]int{0, 0, 1}},
		{"stale up", "fra1:up,stale", down, down, WhyStale, [3]int{0, 0, 1}},
		{"stale votes do not add to fresh ones", "fra1:up fra2:down,stale fra3:down,stale", up, up, WhyProbes, [3]int{1, 0, 2}},
		{"conflict abstains", "fra1:down,conflict", up, up, WhyHeld, [3]int{0, 0, 1}},
		{"doubt abstains", "fra1:down,doubt", up, up, WhyHeld, [3]int{0, 0, 1}},
		{"leaving abstains", "fra1:down,leaving", up, up, WhyHeld, [3]int{0, 0, 1}},
		{"a flag of the future abstains", "fra1:down,future", up, up, WhyHeld, [3]int{0, 0, 1}},
		{"another layout abstains", "fra1:down,other", up, up, WhyHeld, [3]int{0, 0, 1}},
		{"fresh but without a finding", "fra1:none", up, up, WhyHeld, [3]int{0, 0, 1}},
		{"no observers at the site", "iad1:down", up, up, WhyStale, [3]int{0, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := hear(webBackend, tt.nodes).Judge(was(webBackend, tt.last), Moment{Now: t0}).Of(webBackend)
			checkVerdict(t, got, tt.last, tt.want, tt.why, tt.votes)
		})
	}
}

func checkVerdict(t *testing.T, got Verdict, last, status Status, why Why, votes [3]int) {
	t.Helper()
	want := Verdict{Status: status, Why: why, Up: votes[0], Down: votes[1], Abstain: votes[2]}
	switch {
	case status == last:
		want.Since = t0.Add(-time.Minute)
		if why == WhyRising {
			want.Rising = t0
		}
	case status != StatusUnknown:
		want.Since = t0
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestJudgeVIP(t *testing.T) {
	const up, down, unknown, none = StatusUp, StatusDown, StatusUnknown, StatusNone
	for _, tt := range []struct {
		name  string
		nodes string
		last  Status
		want  Status
		why   Why
		votes [3]int // sites: up, down, abstain
	}{
		{"nobody knows", "fra1:- iad1:- sin1:-", none, unknown, WhyNeverProbed, [3]int{0, 0, 2}},
		{"all up", "iad1:up sin1:up", none, up, WhyProbes, [3]int{2, 0, 0}},
		{"all down", "iad1:down sin1:down", up, down, WhyProbes, [3]int{0, 2, 0}},
		{"the own site has no say", "fra1:down fra2:down iad1:up", up, up, WhyProbes, [3]int{1, 0, 0}},
		{"one mad site of two", "iad1:up sin1:down", up, up, WhyProbes, [3]int{1, 1, 0}},
		{"one mad node in a site", "iad1:down iad2:down sin1:up sin2:down sin3:up", up, up, WhyProbes, [3]int{1, 1, 0}},
		{"many nodes are one vote", "iad1:down iad2:down iad3:down iad4:down sin1:up", up, up, WhyProbes, [3]int{1, 1, 0}},
		{"up share 20 %", "a1x:up b1x:down c1x:down d1x:down e1x:down", up, up, WhyProbes, [3]int{1, 4, 0}},
		{"up share 20 %, at the beginning", "a1x:up b1x:down c1x:down d1x:down e1x:down", none, up, WhyProbes, [3]int{1, 4, 0}},
		{"up share 20 % does not revive", "a1x:up b1x:down c1x:down d1x:down e1x:down", down, down, WhyHeld, [3]int{1, 4, 0}},
		{"half does not revive", "iad1:up sin1:down", down, down, WhyHeld, [3]int{1, 1, 0}},
		{"up share 16 %", "a1x:up b1x:down c1x:down d1x:down e1x:down f1x:down", up, down, WhyProbes, [3]int{1, 5, 0}},
		{"up share 18 %, exactly", shares(9, 41), up, down, WhyProbes, [3]int{9, 41, 0}},
		{"up share 19 %", shares(19, 81), up, up, WhyProbes, [3]int{19, 81, 0}},
		{"up share above 18 %", shares(10, 40), up, up, WhyProbes, [3]int{10, 40, 0}},
		{"half is not more than half", "iad1:down sin1:up sin2:down", up, up, WhyHeld, [3]int{0, 1, 1}},
		{"a split site counts as voting", "iad1:down sin1:up sin2:down lax:down", up, down, WhyProbes, [3]int{0, 2, 1}},
		{"all sites split", "iad1:up iad2:down", none, unknown, WhyHeld, [3]int{0, 0, 1}},
		{"silence downs nobody", "fra1:- iad1:- sin1:-", up, up, WhyStale, [3]int{0, 0, 2}},
		{"silence ups nobody", "iad1:up,stale sin1:up,stale", down, down, WhyStale, [3]int{0, 0, 2}},
		{"stale down", "iad1:down,stale sin1:down,stale", up, up, WhyStale, [3]int{0, 0, 2}},
		{"stale up does not save", "iad1:down sin1:down lax:up,stale", up, down, WhyProbes, [3]int{0, 2, 1}},
		{"doubt abstains", "iad1:down,doubt sin1:down,doubt", up, up, WhyHeld, [3]int{0, 0, 2}},
		{"leaving abstains", "iad1:down,leaving", up, up, WhyHeld, [3]int{0, 0, 1}},
		{"conflict abstains", "iad1:down,conflict", up, up, WhyHeld, [3]int{0, 0, 1}},
		{"undecided abstains", "iad1:down sin1:unknown fra1:-", up, down, WhyProbes, [3]int{0, 1, 1}},
		{"more than half waits for it to last", "iad1:up sin1:down lax:up", down, down, WhyRising, [3]int{2, 1, 0}},
		{"a single outside site waits for it to last", "iad1:up", down, down, WhyRising, [3]int{1, 0, 0}},
		{"a single outside site ups", "iad1:up", none, up, WhyProbes, [3]int{1, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := hear(webVIP, tt.nodes).Judge(was(webVIP, tt.last), Moment{Now: t0, Connected: true}).Of(webVIP)
			checkVerdict(t, got, tt.last, tt.want, tt.why, tt.votes)
		})
	}
}

// shares makes a fleet of up+down sites of one node each.
func shares(up, down int) string {
	var b strings.Builder
	for i := range up + down {
		say := "up"
		if i >= up {
			say = "down"
		}
		fmt.Fprintf(&b, "s%02d:%s ", i, say)
	}
	return b.String()
}

// TestJudgeOwnSiteGuard: where one outside site alone votes, what the VIP's own
// site says of its backends decides whether it is believed.
func TestJudgeOwnSiteGuard(t *testing.T) {
	for _, tt := range []struct {
		name    string
		outside []string // sites that say down
		own     func(l *Ledger)
		want    Status
		why     Why
	}{
		{"own site says a backend is up", []string{"iad1"}, ownSays(StatusUp, 0, 0), StatusUp, WhyHeld},
		{"own site silent", []string{"iad1"}, func(*Ledger) {}, StatusDown, WhyProbes},
		{"own site stale", []string{"iad1"}, ownSays(StatusUp, 0, FreshFor+1), StatusDown, WhyProbes},
		{"own site sees its backends down", []string{"iad1"}, ownSays(StatusDown, 0, 0), StatusDown, WhyProbes},
		{"own site doubts itself", []string{"iad1"}, ownSays(StatusUp, FlagDoubt, 0), StatusDown, WhyProbes},
		{"own site leaves", []string{"iad1"}, ownSays(StatusUp, FlagLeaving, 0), StatusDown, WhyProbes},
		{"own site heard but not readable", []string{"iad1"}, func(l *Ledger) {
			l.Merge(&Report{Observer: "fra1", Epoch: 1, Layout: 42}, 0, t0)
		}, StatusUp, WhyHeld},
		{"another service's backend is no proof", []string{"iad1"}, func(l *Ledger) {
			l.Merge(saying("fra1", l.Layout(), 1, 1, map[Target]Status{backend("aaa", "fra", 1): StatusUp, backend("zzz", "fra", 1): StatusUp}), 0, t0)
		}, StatusDown, WhyProbes},
		{"another site's backend is no proof", []string{"iad1"}, func(l *Ledger) {
			l.Merge(saying("fra1", l.Layout(), 1, 1, map[Target]Status{backend("web", "iad", 1): StatusUp, backend("web", "sin", 1): StatusUp}), 0, t0)
		}, StatusDown, WhyProbes},
		{"one backend of two is up", []string{"iad1"}, func(l *Ledger) {
			l.Merge(saying("fra1", l.Layout(), 1, 1, map[Target]Status{backend("web", "fra", 1): StatusDown, backend("web", "fra", 2): StatusUp}), 0, t0)
		}, StatusUp, WhyHeld},
		{"two outside sites outvote it", []string{"iad1", "sin1"}, ownSays(StatusUp, 0, 0), StatusDown, WhyProbes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			layout := NewLayout([]Target{
				backend("aaa", "fra", 1), vip("aaa", "fra"), backend("web", "fra", 1), backend("web", "fra", 2), webVIP,
				backend("web", "iad", 1), backend("web", "sin", 1), backend("zzz", "fra", 1), vip("zzz", "fra"),
			})
			l := NewLedger(fleetOf("fra1", "iad1", "sin1"), layout)
			for _, node := range tt.outside {
				l.Merge(saying(node, layout, 1, 1, map[Target]Status{webVIP: StatusDown}), 0, t0)
			}
			tt.own(l)
			got := l.Judge(was(webVIP, StatusUp), Moment{Now: t0, Connected: true}).Of(webVIP)
			if got.Status != tt.want || got.Why != tt.why {
				t.Errorf("got %v (%v), want %v (%v)", got.Status, got.Why, tt.want, tt.why)
			}
		})
	}
}

func ownSays(s Status, flags Flags, age time.Duration) func(*Ledger) {
	return func(l *Ledger) {
		r := saying("fra1", l.Layout(), 1, 1, map[Target]Status{webBackend: s})
		r.Flags = flags
		l.Merge(r, age, t0)
	}
}

// TestJudgeConflictEnds: an observer in conflict is back with its next report.
func TestJudgeConflictEnds(t *testing.T) {
	l := hear(webBackend, "fra1:down,conflict")
	view := l.Judge(was(webBackend, StatusUp), Moment{Now: t0})
	if view.Of(webBackend).Status != StatusUp {
		t.Fatal("believed an observer that contradicts itself")
	}
	l.Merge(saying("fra1", webLayout, 1, 2, map[Target]Status{webBackend: StatusDown}), 0, t0)
	if l.Judge(view, Moment{Now: t0}).Of(webBackend).Status != StatusDown {
		t.Error("not believed again")
	}
}

// TestJudgeRecheck: Recheck is the first moment at which a report is stale.
func TestJudgeRecheck(t *testing.T) {
	l := NewLedger(fleetOf("fra1", "fra2", "fra3"), webLayout)
	if got := l.Judge(nil, Moment{Now: t0}).Recheck; !got.IsZero() {
		t.Errorf("nothing heard: recheck at %v", got)
	}
	l.Merge(saying("fra2", webLayout, 1, 1, map[Target]Status{webBackend: StatusDown}), time.Second, t0)
	l.Merge(saying("fra1", webLayout, 1, 1, map[Target]Status{webBackend: StatusUp}), 0, t0)
	l.Merge(saying("fra3", webLayout, 1, 1, map[Target]Status{webBackend: StatusUp}), 20*time.Second, t0)
	view := l.Judge(was(webBackend, StatusDown), Moment{Now: t0})
	if got, want := view.Recheck, t0.Add(4*time.Second+1); got != want {
		t.Errorf("recheck at %v, want %v", got, want)
	}
	if got := l.Judge(view, Moment{Now: view.Recheck.Add(-1)}).Of(webBackend).Status; got != StatusDown {
		t.Errorf("before: %v", got)
	}
	if got := l.Judge(view, Moment{Now: view.Recheck}).Of(webBackend).Status; got != StatusUp {
		t.Errorf("at recheck: %v", got)
	}
}

// TestJudgeSharesWhatDidNotChange: no change, no copy; a change never writes to
// the view before.
func TestJudgeSharesWhatDidNotChange(t *testing.T) {
	l := hear(webBackend, "fra1:up")
	first := l.Judge(nil, Moment{Now: t0})
	second := l.Judge(first, Moment{Now: t0.Add(time.Second)})
	if &first.Verdicts[0] != &second.Verdicts[0] || second.Changed(first) != nil {
		t.Error("copied verdicts that did not change")
	}
	if second.At != t0.Add(time.Second) || first.At != t0 {
		t.Error("wrong times")
	}
	l.Merge(saying("fra1", webLayout, 1, 2, map[Target]Status{webBackend: StatusDown}), 0, t0)
	third := l.Judge(second, Moment{Now: t0})
	if first.Of(webBackend).Status != StatusUp || third.Of(webBackend).Status != StatusDown {
		t.Error("a published view changed")
	}
	if diff := cmp.Diff([]int{0}, third.Changed(second)); diff != "" {
		t.Error(diff)
	}
}

// TestNobodyAloneFlips: with any number of outside sites from two up that all
// agree, no single observer that turns mad changes a VIP from up to down; nor
// one of three or more nodes a backend of its site.
func TestNobodyAloneFlips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sites := rapid.IntRange(2, 8).Draw(t, "outside sites")
		var nodes []string
		for s := range sites {
			for n := range rapid.IntRange(1, 3).Draw(t, "nodes") {
				nodes = append(nodes, fmt.Sprintf("o%02d%d", s, n))
			}
		}
		for n := range rapid.IntRange(3, 5).Draw(t, "own") {
			nodes = append(nodes, fmt.Sprintf("fra%d", n))
		}
		l := NewLedger(fleetOf(nodes...), webLayout)
		mad := rapid.SampledFrom(nodes).Draw(t, "mad")
		for _, n := range nodes {
			s := StatusUp
			if n == mad {
				s = StatusDown
			}
			l.Merge(saying(n, webLayout, 1, 1, map[Target]Status{webBackend: s, webVIP: s}), 0, t0)
		}
		for i, v := range l.Judge(nil, Moment{Now: t0}).Verdicts {
			if v.Status != StatusUp {
				t.Fatalf("%s alone made %v %v", mad, webLayout.Targets[i], v.Status)
			}
		}
	})
}

// TestSilenceIsNeverEvidence: whatever was said before, when all reports go
// stale every status stays; and a report less never turns a status that the
// remaining votes do not ask for.
func TestSilenceIsNeverEvidence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := []string{"fra1", "fra2", "iad1", "iad2", "sin1", "lax1"}
		l := NewLedger(fleetOf(nodes...), webLayout)
		for _, n := range nodes {
			r := NewReport(n, webLayout)
			for i := range webLayout.Targets {
				r.Set(i, Status(rapid.IntRange(0, 3).Draw(t, "status")))
			}
			l.Merge(r, time.Duration(rapid.IntRange(0, 9).Draw(t, "age"))*time.Second, t0)
		}
		view := l.Judge(nil, Moment{Now: t0})
		for now := t0; ; now = view.Recheck {
			next := l.Judge(view, Moment{Now: now})
			for _, i := range next.Changed(view) {
				v := next.Verdicts[i]
				if v.Why != WhyProbes || v.Status == StatusDown && v.Down == 0 || v.Status == StatusUp && v.Up == 0 {
					t.Fatalf("%v became %+v without a vote", webLayout.Targets[i], v)
				}
			}
			view = next
			if view.Recheck.IsZero() {
				break
			}
		}
		silent := l.Judge(view, Moment{Now: t0.Add(time.Hour)})
		if changed := silent.Changed(view); changed != nil {
			t.Fatalf("silence changed %v", changed)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	var targets []Target
	sites := []string{"fra", "iad", "sin"}
	for s := range 10_000 {
		for _, site := range sites {
			name := fmt.Sprintf("service-%05d", s)
			targets = append(targets, backend(name, site, 1), vip(name, site))
		}
	}
	layout := NewLayout(targets)
	fleet := fleetOf("fra1", "fra2", "iad1", "iad2", "sin1", "sin2")
	l := NewLedger(fleet, layout)
	merge := func(seq uint64, odd Status) {
		for name, site := range fleet.Sites {
			r := NewReport(name, layout)
			r.Seq = seq
			for i, t := range layout.Targets {
				if (t.Site == site) == (t.Kind == KindBackend) {
					r.Set(i, StatusUp)
					if i%97 == 0 {
						r.Set(i, odd)
					}
				}
			}
			l.Merge(r, 0, t0)
		}
	}
	merge(1, StatusUp)
	up := l.Judge(nil, Moment{Now: t0})
	b.Run("unchanged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.Judge(up, Moment{Now: t0})
		}
	})
	merge(2, StatusDown)
	b.Run("1 % changed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.Judge(up, Moment{Now: t0})
		}
	})
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.Judge(nil, Moment{Now: t0})
		}
	})
}
