package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// Nothing is decided without a reason to.
func TestStepDecidesOnlyWhenSomethingChanged(t *testing.T) {
	b := newBench(t, "a1")
	for _, tt := range []struct {
		name   string
		change func()
		want   bool
	}{
		{"the first", nil, true},
		{"nothing", nil, false},
		{"own findings", func() { b.all(health.StatusUp) }, true},
		{"the same findings", nil, false},
		{"ready", func() { b.SetReady(true) }, true},
		{"weights", func() { b.SetWeights(slices.Repeat([]uint8{50}, len(b.states))) }, true},
		{"the same weights", func() { b.SetWeights(slices.Repeat([]uint8{50}, len(b.states))) }, false},
		{"no weights", func() { b.SetWeights(nil) }, true},
		{"an order", func() { b.give(t, b.order(t, "site/b", health.OrderDown, 0)) }, true},
		{"it is on disk", func() { b.SetDurable(1) }, false},
		{"another node, which says nothing new", func() { b.hear(t, "a2", 1, health.StatusUnknown) }, false},
	} {
		if tt.change != nil {
			tt.change()
		}
		was := b.Plan()
		_, s := b.look(time.Millisecond)
		if s.Decided != tt.want || (s.Plan != was) != tt.want || s.Plan != b.Plan() {
			t.Errorf("%s: decided %v (another plan: %v), want %v", tt.name, s.Decided, s.Plan != was, tt.want)
		}
		if was != nil && s.Decided && s.Plan.Generation != was.Generation+1 {
			t.Errorf("%s: generation %d after %d", tt.name, s.Plan.Generation, was.Generation)
		}
	}
	if got := answered(b.Plan()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("answered with %v, want a alone", got)
	}
}

// A node is current when it begins, and again when it hears enough sites after
// it did not.
func TestCurrentSince(t *testing.T) {
	b := newBench(t, "a1")
	hearAll := func(seq uint64) {
		b.hear(t, "b1", seq, health.StatusUp)
		b.hear(t, "c1", seq, health.StatusUp)
	}
	b.all(health.StatusUp)
	hearAll(1)
	b.look(0)
	if got := b.Plan().Facts.Current; !got.Equal(t0) {
		t.Fatalf("current since %s, want the start", got)
	}
	minority := false
	for range 30 {
		_, s := b.look(time.Second)
		minority = minority || s.View.Minority
		if !s.View.Minority && minority {
			t.Fatal("the minority ended by itself")
		}
	}
	if !minority {
		t.Fatal("alone for 30 s, and no minority")
	}
	if got := b.Core.facts.Current; !got.Equal(t0) {
		t.Errorf("in a minority: current since %s", got)
	}
	hearAll(2)
	b.all(health.StatusDown)
	_, s := b.look(time.Second)
	if s.View.Minority {
		t.Fatal("still a minority although everybody is heard")
	}
	if got := b.Plan().Facts.Current; !got.Equal(b.now) {
		t.Errorf("current since %s, want since the minority ended at %s", got, b.now)
	}
	healed := b.now
	hearAll(3)
	b.look(time.Second)
	b.SetReady(true)
	b.look(time.Second)
	if got := b.Plan().Facts.Current; !got.Equal(healed) {
		t.Errorf("current since %s, want %s still", got, healed)
	}
}

// What time alone changes is looked at in time: the plan's recheck, the view's
// and the next report.
func TestRecheckIsHonoured(t *testing.T) {
	b := newBench(t, "a1")
	b.all(health.StatusUp)
	b.look(0)
	if got, want := b.Next(), b.now.Add(ReportEvery); got.After(want) {
		t.Errorf("next at %s, want at most %s", got, want)
	}
	at := b.now.Add(300 * time.Millisecond)
	plan := *b.plan
	plan.Recheck = at
	b.plan = &plan
	if got := b.Next(); got.After(at) {
		t.Errorf("next at %s, although the plan is due at %s", got, at)
	}
	if _, s := b.look(299 * time.Millisecond); s.Decided {
		t.Error("decided before the plan was due")
	}
	if _, s := b.look(time.Millisecond); !s.Decided {
		t.Error("not decided when the plan was due")
	}
	view := *b.view
	view.Recheck = b.now.Add(time.Millisecond)
	b.view = &view
	if got := b.Next(); got.After(view.Recheck) {
		t.Errorf("next at %s, although the view is due at %s", got, view.Recheck)
	}
}

// A new configuration keeps what is known of the targets in both, and who was heard.
func TestSetTopologyKeepsWhatIsKnown(t *testing.T) {
	b := newBench(t, "a1")
	b.give(t, b.order(t, "site/c", health.OrderDown, 0))
	b.SetWeights(slices.Repeat([]uint8{50}, len(b.states)))
	b.all(health.StatusUp)
	for i := range 8 {
		b.hear(t, "b1", uint64(i+1), health.StatusUp)
		b.hear(t, "c1", uint64(i+1), health.StatusUp)
		b.look(time.Second)
	}
	old := b.Topology()
	up := map[health.Target]bool{}
	for _, target := range old.Layout.Targets {
		up[target] = b.View().Of(target).Status == health.StatusUp
	}
	next := topologyOf(t, strings.Replace(threeSites, "services:\n",
		"services:\n  extra: {check: {tcp: {}}, backends: {a: [\"10.0.0.9:80\"]}, vip: {a: 198.51.100.9}}\n", 1), "a1")
	b.SetTopology(next, 99)
	b.states = make([]health.Status, len(next.Layout.Targets))
	b.all(health.StatusUp)
	r, s := b.look(time.Millisecond)
	if r == nil || r.Layout != next.Layout.Hash || r.Config != 99 {
		t.Errorf("reported %+v, want the new layout and configuration at once", r)
	}
	if !s.Decided || s.Plan.Topology != next || s.Plan.Facts.Weights != nil || len(s.Plan.Facts.Own) != len(next.Layout.Targets) {
		t.Errorf("decided %v, weights %v, own findings on %d targets", s.Decided, s.Plan.Facts.Weights, len(s.Plan.Facts.Own))
	}
	known := 0
	for target, was := range up {
		if was {
			known++
		}
		if got := s.View.Of(target).Status == health.StatusUp; got != was {
			t.Errorf("%s is up: %v, was %v", target, got, was)
		}
	}
	if known == 0 {
		t.Error("nothing was up before")
	}
	if b.Ledger().Held("c1") == nil || !slices.Equal(texts(b.Standing()), []string{"site/c down"}) {
		t.Errorf("forgotten: c1's report or the orders, %v", texts(b.Standing()))
	}
}

// The last known good is answered with at once; that it was measured again is a
// reason to decide although no status changes.
func TestRestoredVerdictsAreConfirmed(t *testing.T) {
	first := newBench(t, "a1")
	first.all(health.StatusUp)
	for i := range 8 {
		first.hear(t, "b1", uint64(i+1), health.StatusUp)
		first.hear(t, "c1", uint64(i+1), health.StatusUp)
		first.look(time.Second)
	}
	data, err := health.EncodeView(first.View())
	if err != nil {
		t.Fatal(err)
	}
	view, err := health.RestoreView(data, first.Topology().Layout, t0)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, "a1", func(o *Options) { o.View = view })
	if !b.Restored() || b.Undecided() != 0 {
		t.Fatalf("restored %v, %d undecided", b.Restored(), b.Undecided())
	}
	b.all(health.StatusUp)
	b.look(0)
	restored := func() (n int) {
		for _, v := range b.View().Verdicts {
			if v.Restored {
				n++
			}
		}
		return n
	}
	if restored() == 0 {
		t.Fatal("nothing is only restored")
	}
	before := restored()
	if _, s := b.look(time.Millisecond); s.Decided {
		t.Error("decided although nothing was measured")
	}
	b.hear(t, "b1", 1, health.StatusUp)
	b.hear(t, "c1", 1, health.StatusUp)
	if _, s := b.look(time.Millisecond); !s.Decided || len(s.Changed) != 0 || restored() >= before {
		t.Errorf("decided %v, %d changed, %d of %d only restored", s.Decided, len(s.Changed), restored(), before)
	}
	blank := newBench(t, "a1")
	blank.look(0)
	if probes := len(blank.Topology().Probes("a1")); blank.Restored() || blank.Undecided() != probes {
		t.Errorf("without a last known good: restored %v, %d undecided of %d", blank.Restored(), blank.Undecided(), probes)
	}
}
