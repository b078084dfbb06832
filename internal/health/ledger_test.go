package health

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fleetOf makes a fleet from node names whose first three letters are the site.
func fleetOf(nodes ...string) Fleet {
	f := Fleet{Sites: map[string]string{}}
	for _, n := range nodes {
		f.Sites[n] = n[:3]
	}
	return f
}

// saying returns a report with the given statements.
func saying(observer string, layout *Layout, epoch, seq uint64, says map[Target]Status) *Report {
	r := NewReport(observer, layout)
	r.Epoch, r.Seq = epoch, seq
	for t, s := range says {
		if i, ok := layout.Index(t); ok {
			r.Set(i, s)
		}
	}
	return r
}

func TestMergeOutcomes(t *testing.T) {
	layout := NewLayout([]Target{backend("web", "fra", 1), vip("web", "fra")})
	other := NewLayout([]Target{backend("web", "fra", 1)})
	web := layout.Targets[0]
	up, down := map[Target]Status{web: StatusUp}, map[Target]Status{web: StatusDown}
	padded := saying("fra1", layout, 9, 9, nil)
	padded.Set(2, StatusUp) // a third target, where the layout has two
	short := saying("fra1", layout, 9, 9, nil)
	short.States = nil

	l := NewLedger(fleetOf("fra1", "fra2"), layout)
	for _, tt := range []struct {
		name string
		r    *Report
		want Outcome
	}{
		{"first", saying("fra1", layout, 1, 1, up), OutcomeNew},
		{"again", saying("fra1", layout, 1, 1, up), OutcomeOld},
		{"same number, other content", saying("fra1", layout, 1, 1, down), OutcomeConflict},
		{"still", saying("fra1", layout, 1, 1, down), OutcomeConflict},
		{"newer", saying("fra1", layout, 1, 2, down), OutcomeNew},
		{"older", saying("fra1", layout, 1, 1, up), OutcomeOld},
		{"older epoch, larger seq", saying("fra1", layout, 0, 99, up), OutcomeOld},
		{"stranger", saying("xxx1", layout, 1, 1, up), OutcomeUnknownObserver},
		{"another layout", saying("fra2", other, 1, 1, up), OutcomeOtherLayout},
		{"no report", nil, OutcomeMalformed},
		{"no name", &Report{Layout: layout.Hash}, OutcomeMalformed},
		{"too few states", short, OutcomeMalformed},
		{"states beyond the last target", padded, OutcomeMalformed},
	} {
		if got := l.Merge(tt.r, 0, t0); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if r := l.Held("fra1"); r.Seq != 2 || r.Get(0) != StatusDown {
		t.Errorf("held %+v", r)
	}
	if l.Held("fra2") == nil || l.Held("xxx1") != nil {
		t.Error("held the wrong reports")
	}
}

// ledgerState is everything that merging may change.
type ledgerState struct {
	Name     string
	Report   *Report
	Born     time.Time
	Conflict bool
	States   []byte
}

func stateOf(l *Ledger) (out []ledgerState) {
	for _, e := range l.held {
		out = append(out, ledgerState{e.name, e.report, e.born, e.conflict, e.states})
	}
	return out
}

// TestMergeLaws: any order, any repetition and any detour of the same reports
// give the same ledger.
func TestMergeLaws(t *testing.T) {
	layouts := []*Layout{
		NewLayout([]Target{backend("web", "fra", 1), backend("web", "fra", 2), vip("web", "fra")}),
		NewLayout([]Target{backend("web", "fra", 1)}),
	}
	type arrival struct {
		r   *Report
		age time.Duration
	}
	rapid.Check(t, func(t *rapid.T) {
		arrivals := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) arrival {
			layout := layouts[rapid.IntRange(0, 1).Draw(t, "layout")]
			r := NewReport(rapid.SampledFrom([]string{"fra1", "fra2", "iad1", "xxx1"}).Draw(t, "observer"), layout)
			r.Epoch, r.Seq = rapid.Uint64Range(0, 1).Draw(t, "epoch"), rapid.Uint64Range(0, 2).Draw(t, "seq")
			r.Flags = Flags(rapid.IntRange(0, 2).Draw(t, "flags"))
			r.Overrides = rapid.SampledFrom([]uint64{0, 7, math.MaxUint64}).Draw(t, "overrides")
			r.States[0] = rapid.SampledFrom([]byte{0, 2, 3, 0xff}).Draw(t, "states")
			return arrival{r, time.Duration(rapid.IntRange(-1, 7).Draw(t, "age")) * time.Second}
		}), 0, 20).Draw(t, "arrivals")
		merge := func(in []arrival) []ledgerState {
			l := NewLedger(fleetOf("fra1", "fra2", "iad1"), layouts[0])
			l.SetFloor("iad1", 0, 1)
			for _, a := range in {
				l.Merge(a.r, a.age, t0)
			}
			return stateOf(l)
		}
		want := merge(arrivals)
		if diff := cmp.Diff(want, merge(rapid.Permutation(arrivals).Draw(t, "order"))); diff != "" {
			t.Fatalf("another order, another state: %s", diff)
		}
		if diff := cmp.Diff(want, merge(slices.Concat(arrivals, arrivals))); diff != "" {
			t.Fatalf("heard twice, another state: %s", diff)
		}
	})
}

// TestMergeOverrides: another digest of overrides is another report, but a report
// that came over a node of the version before, without its digest, is the same.
func TestMergeOverrides(t *testing.T) {
	report := func(overrides uint64) *Report {
		r := saying("fra1", webLayout, 1, 1, nil)
		r.Overrides = overrides
		return r
	}
	for _, tt := range []struct {
		first, second uint64
		want          Outcome
		held          uint64
	}{
		{7, 7, OutcomeOld, 7},
		{7, 8, OutcomeConflict, 7},
		{8, 7, OutcomeConflict, 7},
		{0, 7, OutcomeOld, 7},
		{7, 0, OutcomeOld, 7},
	} {
		l := NewLedger(fleetOf("fra1"), webLayout)
		l.Merge(report(tt.first), 0, t0)
		if got := l.Merge(report(tt.second), 0, t0); got != tt.want || l.Held("fra1").Overrides != tt.held {
			t.Errorf("%d then %d: %v, holds %d", tt.first, tt.second, got, l.Held("fra1").Overrides)
		}
	}
}

// TestEchoDoesNotRejuvenate: a dead observer's last report stays as old as it
// is, whoever repeats it.
func TestEchoDoesNotRejuvenate(t *testing.T) {
	layout := NewLayout([]Target{backend("web", "fra", 1)})
	l := NewLedger(fleetOf("fra1"), layout)
	r := saying("fra1", layout, 1, 1, nil)
	l.Merge(r, 2*time.Second, t0)
	l.Merge(r, 0, t0.Add(4*time.Second))
	if got := l.Observers(t0.Add(4 * time.Second))[0].Age; got != 6*time.Second {
		t.Errorf("age %v, want 6s", got)
	}
	l.Merge(saying("fra1", layout, 1, 2, nil), 0, t0.Add(4*time.Second))
	if got := l.Observers(t0.Add(4 * time.Second))[0].Age; got != 0 {
		t.Errorf("age of a new report %v, want 0", got)
	}
}

func TestMergeAbsurdAges(t *testing.T) {
	layout := NewLayout(nil)
	for _, tt := range []struct {
		age   time.Duration
		fresh bool
	}{{math.MinInt64, true}, {-1, true}, {0, true}, {FreshFor, true}, {FreshFor + 1, false}, {math.MaxInt64, false}} {
		l := NewLedger(fleetOf("fra1"), layout)
		l.Merge(saying("fra1", layout, 1, 1, nil), tt.age, t0)
		if o := l.Observers(t0)[0]; o.Fresh != tt.fresh || o.Age < 0 {
			t.Errorf("age %d: %+v", tt.age, o)
		}
	}
}

func TestObservers(t *testing.T) {
	layout := NewLayout([]Target{backend("web", "fra", 1)})
	l := NewLedger(fleetOf("fra1", "iad1", "fra2", "fra3", "fra4", "fra5", "fra6"), layout)
	now := t0.Add(6 * time.Second)
	l.Merge(saying("fra2", layout, 7, 3, nil), time.Second, now)
	l.Merge(saying("fra3", layout, 1, 1, nil), 0, t0)
	doubting := saying("fra4", NewLayout(nil), 1, 1, nil)
	doubting.Flags, doubting.Config = FlagDoubt|FlagLeaving, 99
	l.Merge(doubting, 0, now)
	l.Merge(saying("fra5", layout, 1, 1, nil), 0, now)
	l.Merge(saying("fra5", layout, 1, 1, map[Target]Status{layout.Targets[0]: StatusUp}), 0, now)
	l.Merge(saying("fra6", NewLayout(nil), 1, 1, nil), 0, now)
	want := []ObserverStatus{
		{Name: "fra1", Site: "fra", Abstains: AbstainNeverHeard},
		{Name: "fra2", Site: "fra", Heard: true, Epoch: 7, Seq: 3, Age: time.Second, Fresh: true, LayoutMatches: true},
		{Name: "fra3", Site: "fra", Heard: true, Epoch: 1, Seq: 1, Age: 6 * time.Second, LayoutMatches: true, Abstains: AbstainStale},
		{Name: "fra4", Site: "fra", Heard: true, Epoch: 1, Seq: 1, Config: 99, Fresh: true, Doubts: true, Leaving: true, Abstains: AbstainLeaving},
		{Name: "fra5", Site: "fra", Heard: true, Epoch: 1, Seq: 1, Fresh: true, Conflict: true, LayoutMatches: true, Abstains: AbstainConflict},
		{Name: "fra6", Site: "fra", Heard: true, Epoch: 1, Seq: 1, Fresh: true, Abstains: AbstainOtherLayout},
		{Name: "iad1", Site: "iad", Abstains: AbstainNeverHeard},
	}
	if diff := cmp.Diff(want, l.Observers(now)); diff != "" {
		t.Error(diff)
	}
	reports := l.Reports(now)
	if len(reports) != 5 || reports[0].Report.Observer != "fra2" || reports[1].Age != 6*time.Second {
		t.Errorf("reports %+v", reports)
	}
}

func TestOpinions(t *testing.T) {
	b, v := backend("web", "fra", 1), vip("web", "fra")
	layout := NewLayout([]Target{b, v})
	l := NewLedger(fleetOf("fra1", "iad1", "sin1", "sin2"), layout)
	l.Merge(saying("fra1", layout, 1, 1, map[Target]Status{b: StatusUp}), 0, t0)
	l.Merge(saying("iad1", layout, 1, 1, map[Target]Status{v: StatusDown}), 6*time.Second, t0)
	l.Merge(saying("sin1", layout, 1, 1, map[Target]Status{v: StatusUnknown}), 0, t0)
	for _, tt := range []struct {
		name   string
		target Target
		want   []Opinion
	}{
		{"backend: its own site", b, []Opinion{{"fra1", "fra", StatusUp, 0, true, AbstainNot}}},
		{"vip: the other sites", v, []Opinion{
			{"iad1", "iad", StatusDown, 6 * time.Second, false, AbstainStale},
			{"sin1", "sin", StatusUnknown, 0, true, AbstainUndecided},
			{"sin2", "sin", StatusNone, 0, false, AbstainNeverHeard},
		}},
		{"not in the layout", backend("web", "fra", 9), nil},
	} {
		if diff := cmp.Diff(tt.want, l.Opinions(tt.target, t0)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// TestRebase: a reload forgets neither who said what of targets that stay, nor
// how to read the nodes that have not reloaded yet.
func TestRebase(t *testing.T) {
	a, b, c := backend("a", "fra", 1), backend("b", "fra", 1), backend("c", "fra", 1)
	before, after := NewLayout([]Target{a, b}), NewLayout([]Target{b, c})
	fleet := fleetOf("fra1", "fra2")
	old := NewLedger(fleet, before)
	old.Merge(saying("fra1", before, 1, 1, map[Target]Status{a: StatusUp, b: StatusDown}), 0, t0)
	old.Merge(saying("fra2", before, 1, 1, map[Target]Status{b: StatusDown}), 0, t0)
	was := old.Judge(nil, Moment{Now: t0})

	l := old.Rebase(fleetOf("fra1", "iad1"), after)
	if got := old.Judge(was, Moment{Now: t0}); got.Layout != before || got.Of(a).Status != StatusUp {
		t.Error("the old ledger changed")
	}
	if l.Held("fra2") != nil {
		t.Error("kept a node that left the fleet")
	}
	view := l.Judge(was, Moment{Now: t0.Add(time.Second)})
	if got := view.Of(b); got.Status != StatusDown || got.Down != 1 || got.Why != WhyProbes || got.Since != t0 {
		t.Errorf("target in both: %+v", got)
	}
	if got := view.Of(c).Status; got != StatusUnknown {
		t.Errorf("new target: %v", got)
	}
	if got := view.Of(a); got != (Verdict{}) {
		t.Errorf("removed target: %+v", got)
	}
	if got := l.Merge(saying("fra1", before, 1, 2, map[Target]Status{b: StatusUp}), 0, t0); got != OutcomeNew {
		t.Errorf("a report in the previous layout: %v", got)
	}
	if got := l.Judge(view, Moment{Now: t0}).Of(b).Status; got != StatusUp {
		t.Errorf("its statement: %v", got)
	}
	if got := l.Merge(saying("fra1", after, 1, 2, nil), 0, t0); got != OutcomeConflict {
		t.Errorf("same number in another layout: %v", got)
	}
}

func TestRebaseForgetsLayoutsInTheEnd(t *testing.T) {
	fleet, first := fleetOf("fra1"), NewLayout([]Target{backend("a", "fra", 1)})
	l := NewLedger(fleet, first)
	for port := range uint16(MaxLayouts) {
		if got := l.Merge(saying("fra1", first, 1, uint64(port)+1, nil), 0, t0); got != OutcomeNew {
			t.Errorf("after %d reloads: %v", port, got)
		}
		l = l.Rebase(fleet, NewLayout([]Target{backend("a", "fra", port+2)}))
	}
	if got := l.Merge(saying("fra1", first, 2, 1, nil), 0, t0); got != OutcomeOtherLayout {
		t.Errorf("after %d reloads: %v", MaxLayouts, got)
	}
	if len(l.readers) != MaxLayouts {
		t.Errorf("%d layouts kept", len(l.readers))
	}
}

// TestRebaseLearnsToRead: a report that came before its layout counts as soon
// as the layout is ours, unless it does not fit it.
func TestRebaseLearnsToRead(t *testing.T) {
	target := backend("new", "fra", 1)
	fleet, next := fleetOf("fra1", "fra2"), NewLayout([]Target{target})
	l := NewLedger(fleet, NewLayout(nil))
	l.Merge(saying("fra1", next, 1, 1, map[Target]Status{target: StatusUp}), 0, t0)
	bad := saying("fra2", next, 1, 1, map[Target]Status{target: StatusDown})
	bad.States = append(bad.States, 1)
	if got := l.Merge(bad, 0, t0); got != OutcomeOtherLayout {
		t.Errorf("got %v", got)
	}
	l = l.Rebase(fleet, next)
	if got := l.Judge(nil, Moment{Now: t0}).Of(target); got.Status != StatusUp || got.Down != 0 {
		t.Errorf("got %+v", got)
	}
	if l.Held("fra2") != nil {
		t.Error("kept a report that does not fit its layout")
	}
}
