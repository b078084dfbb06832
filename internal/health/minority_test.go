package health

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// later judges at t0+d.
func later(l *Ledger, prev *View, d time.Duration) *View {
	return l.Judge(prev, Moment{Now: t0.Add(d)})
}

// tell merges one statement of each node made at t0+d.
func tell(l *Ledger, d time.Duration, seq uint64, target Target, says map[string]Status) {
	for node, s := range says {
		l.Merge(saying(node, l.Layout(), 1, seq, map[Target]Status{target: s}), 0, t0.Add(d))
	}
}

func TestMinority(t *testing.T) {
	for _, tt := range []struct {
		name      string
		nodes     string
		connected bool
		sites     int
		heard     int
		want      bool
	}{
		{"one site of one", "fra1:up", false, 1, 1, false},
		{"one site of two", "fra1:up iad1:-", false, 2, 1, false},
		{"one site of three", "fra1:up iad1:- sin1:-", false, 3, 1, true},
		{"one site of three, connected", "fra1:up iad1:- sin1:-", true, 3, 1, false},
		{"one site of three with many nodes", "fra1:up fra2:up fra3:up fra4:up iad1:- sin1:-", false, 3, 1, true},
		{"two sites of three", "fra1:up iad1:up sin1:-", false, 3, 2, false},
		{"two sites of four", "fra1:up iad1:up sin1:- lax1:-", false, 4, 2, false},
		{"one node of a site is enough", "fra1:up iad1:- iad2:up sin1:-", false, 3, 2, false},
		{"a stale report is silence", "fra1:up iad1:up,stale sin1:up,stale", false, 3, 1, true},
		{"a doubtful observer is heard", "fra1:up iad1:up,doubt sin1:-", false, 3, 2, false},
		{"nobody", "fra1:- iad1:- sin1:-", false, 3, 0, true},
	} {
		v := hear(webVIP, tt.nodes).Judge(nil, Moment{Now: t0, Connected: tt.connected})
		if v.Sites != tt.sites || v.Heard != tt.heard || v.Minority != tt.want {
			t.Errorf("%s: %d of %d heard, minority %v; want %d of %d, %v", tt.name, v.Heard, v.Sites, v.Minority, tt.heard, tt.sites, tt.want)
		}
	}
}

// TestMinorityFreezes: what other sites observe stands in either direction; what
// the own site observes goes on.
func TestMinorityFreezes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		target Target
		nodes  string
		last   Status
		want   Status
		why    Why
	}{
		{"a VIP does not go down", webVIP, "iad1:down fra1:- sin1:-", StatusUp, StatusUp, WhyFrozen},
		{"a VIP does not come up", webVIP, "iad1:up fra1:- sin1:-", StatusDown, StatusDown, WhyFrozen},
		{"a VIP is not judged for the first time", webVIP, "iad1:up fra1:- sin1:-", StatusNone, StatusUnknown, WhyFrozen},
		{"a VIP nobody says anything of", webVIP, "iad1:- fra1:up sin1:-", StatusNone, StatusUnknown, WhyNeverProbed},
		{"a backend goes down", webBackend, "fra1:down iad1:- sin1:-", StatusUp, StatusDown, WhyProbes},
		{"a backend comes up", webBackend, "fra1:up iad1:- sin1:-", StatusDown, StatusUp, WhyProbes},
		{"a silent site's backend stands", webBackend, "fra1:- iad1:down sin1:-", StatusUp, StatusUp, WhyStale},
	} {
		v := hear(tt.target, tt.nodes).Judge(was(tt.target, tt.last), Moment{Now: t0})
		if got := v.Of(tt.target); !v.Minority || got.Status != tt.want || got.Why != tt.why {
			t.Errorf("%s: got %v (%v), want %v (%v)", tt.name, got.Status, got.Why, tt.want, tt.why)
		}
	}
	restored := &View{Layout: webLayout, Verdicts: []Verdict{{}, {Status: StatusUp, Restored: true, Why: WhyRestored}}}
	if got := hear(webVIP, "iad1:down fra1:- sin1:-").Judge(restored, Moment{Now: t0}).Of(webVIP); got.Why != WhyRestored || !got.Restored {
		t.Errorf("restored: %+v", got)
	}
}

// TestHoldUp: what was down comes up when the votes have said so for HoldUp, and
// the hold begins anew when they stop.
func TestHoldUp(t *testing.T) {
	l := NewLedger(fleetOf("fra1", "iad1", "sin1"), webLayout)
	up, down := map[string]Status{"iad1": StatusUp, "sin1": StatusUp, "fra1": StatusUp}, map[string]Status{"iad1": StatusDown, "sin1": StatusDown, "fra1": StatusUp}
	half := map[string]Status{"iad1": StatusUp, "sin1": StatusDown}
	tell(l, 0, 1, webVIP, down)
	v := later(l, nil, 0)
	if got := v.Of(webVIP); got.Status != StatusDown || !got.Rising.IsZero() {
		t.Fatalf("got %+v", got)
	}
	tell(l, time.Second, 2, webVIP, up)
	v = later(l, v, time.Second)
	if got := v.Of(webVIP); got.Status != StatusDown || got.Rising != t0.Add(time.Second) || v.Recheck != t0.Add(time.Second+HoldUp) {
		t.Fatalf("got %+v, recheck %v", got, v.Recheck)
	}
	early := later(l, v, time.Second+HoldUp-1)
	if got := early.Of(webVIP); got.Status != StatusDown || got.Why != WhyRising || early.Recheck != v.Recheck {
		t.Errorf("too early: %+v", got)
	}
	if got := later(l, early, time.Second+HoldUp).Of(webVIP); got.Status != StatusUp || !got.Rising.IsZero() || got.Since != t0.Add(time.Second+HoldUp) || got.Why != WhyProbes {
		t.Errorf("in time: %+v", got)
	}
	tell(l, 2*time.Second, 3, webVIP, half)
	broken := later(l, v, 2*time.Second)
	if got := broken.Of(webVIP); got.Status != StatusDown || !got.Rising.IsZero() || got.Why != WhyHeld {
		t.Errorf("interrupted: %+v", got)
	}
	tell(l, 2*time.Second, 4, webVIP, up)
	again := later(l, broken, 2*time.Second+1)
	if got := later(l, again, time.Second+HoldUp).Of(webVIP).Status; got != StatusDown {
		t.Error("an interrupted hold went on")
	}
	if got := later(l, again, 2*time.Second+1+HoldUp).Of(webVIP).Status; got != StatusUp {
		t.Error("the second hold never ended")
	}
	tell(l, 10*time.Second, 5, webVIP, up)
	if got := later(l, v, 10*time.Second).Of(webVIP); got.Status != StatusDown || got.Rising != t0.Add(10*time.Second) {
		t.Errorf("nobody looked for 9 s: %+v", got)
	}
}

// TestHoldUpFromDisk: a DOWN from disk yields at once to more than half of the
// sites that have a say, and to fewer after the hold.
func TestHoldUpFromDisk(t *testing.T) {
	restored := &View{Layout: webLayout, Verdicts: []Verdict{{}, {Status: StatusDown, Restored: true, Why: WhyRestored}}, At: t0}
	for _, tt := range []struct {
		nodes    string
		want     Status
		restored bool
	}{
		{"iad1:up sin1:up lax1:-", StatusUp, false},
		{"iad1:up sin1:- lax1:-", StatusDown, true},
		{"iad1:up sin1:down lax1:-", StatusDown, true},
		{"iad1:up sin1:down lax1:up", StatusUp, false},
	} {
		got := hear(webVIP, tt.nodes).Judge(restored, Moment{Now: t0, Connected: true}).Of(webVIP)
		if got.Status != tt.want || got.Restored != tt.restored {
			t.Errorf("%s: %+v", tt.nodes, got)
		}
	}
}

// TestReturning: after a gap the DOWN of an observer waits, its UP does not, and
// on its own site's targets both count.
func TestReturning(t *testing.T) {
	l := NewLedger(fleetOf("fra1", "iad1", "sin1"), webLayout)
	everybody := func(d time.Duration, seq uint64, s Status, nodes ...string) {
		says := map[string]Status{}
		for _, n := range nodes {
			says[n] = s
		}
		tell(l, d, seq, webVIP, says)
	}
	everybody(0, 1, StatusUp, "fra1", "iad1", "sin1")
	v := later(l, nil, 0)
	everybody(4*time.Second, 2, StatusUp, "fra1")
	v = later(l, v, 6*time.Second) // iad and sin are stale
	if !v.Minority {
		t.Fatal("no minority")
	}
	everybody(7*time.Second, 3, StatusDown, "iad1", "sin1")
	v = later(l, v, 7*time.Second)
	if got := v.Of(webVIP); got.Status != StatusUp || got.Why != WhyHeld || got.Abstain != 2 {
		t.Errorf("back: %+v", got)
	}
	if o := l.Opinions(webVIP, t0.Add(7*time.Second))[0]; o.Abstains != AbstainReturning || o.Status != StatusDown {
		t.Errorf("opinion: %+v", o)
	}
	if o := l.Observers(t0.Add(7 * time.Second))[1]; o.Abstains != AbstainReturning {
		t.Errorf("observer: %+v", o)
	}
	if v.Recheck != t0.Add(4*time.Second+FreshFor+1) {
		t.Errorf("recheck %v", v.Recheck)
	}
	if got := later(l, v, 7*time.Second+Settle-1).Of(webVIP).Status; got != StatusUp {
		t.Error("counted too early")
	}
	if got := later(l, v, 7*time.Second+Settle).Of(webVIP).Status; got != StatusDown {
		t.Error("never counted")
	}
	everybody(8*time.Second, 4, StatusUp, "iad1", "sin1")
	if got := later(l, v, 8*time.Second).Of(webVIP); got.Status != StatusUp || got.Up != 2 {
		t.Errorf("its UP waits, too: %+v", got)
	}
	for d := 9; d < 12; d++ { // reports go on: the settling ends
		everybody(time.Duration(d)*time.Second, uint64(d), StatusDown, "iad1", "sin1")
		v = later(l, v, time.Duration(d)*time.Second)
	}
	if got := v.Of(webVIP).Status; got != StatusDown {
		t.Error("never settled")
	}
}

// TestReturningLate: a gap shows when somebody looked in it, even if the reports
// are late rather than lost.
func TestReturningLate(t *testing.T) {
	l := NewLedger(fleetOf("iad1", "sin1"), webLayout)
	judge := func(v *View, d time.Duration) *View {
		return l.Judge(v, Moment{Now: t0.Add(d), Connected: true})
	}
	tell(l, 0, 1, webVIP, map[string]Status{"iad1": StatusUp, "sin1": StatusUp})
	v := judge(nil, 0)
	v = judge(v, 6*time.Second)
	tell(l, 4*time.Second, 2, webVIP, map[string]Status{"iad1": StatusDown, "sin1": StatusDown})
	v = judge(v, 6500*time.Millisecond)
	if got := v.Of(webVIP); got.Status != StatusUp || v.Witnesses[0].Returned != v.At {
		t.Errorf("got %+v, %+v", got, v.Witnesses)
	}
}

// TestReturningSite: when a whole site was silent, the others' DOWN of its targets
// waits, too, though they were heard all the time.
func TestReturningSite(t *testing.T) {
	l := NewLedger(fleetOf("fra1", "iad1", "sin1"), webLayout)
	tell(l, 0, 1, webVIP, map[string]Status{"fra1": StatusNone, "iad1": StatusUp, "sin1": StatusUp})
	v := later(l, nil, 0)
	seq := uint64(1)
	for s := 1; s <= 12; s++ {
		says := map[string]Status{"iad1": StatusUp, "sin1": StatusUp}
		if s >= 9 {
			says = map[string]Status{"fra1": StatusNone, "iad1": StatusDown, "sin1": StatusDown}
		}
		seq++
		d := time.Duration(s) * time.Second
		tell(l, d, seq, webVIP, says)
		v = later(l, v, d)
		want := StatusUp
		if s == 12 {
			want = StatusDown
		}
		if got := v.Of(webVIP).Status; got != want {
			t.Errorf("after %d s: %v, want %v", s, got, want)
		}
		if s == 9 && v.Recheck != t0.Add(9*time.Second+Settle) {
			t.Errorf("recheck %v", v.Recheck)
		}
	}
}

// TestReturningAgainstRevival: a DOWN that does not count yet still stands against
// a single UP.
func TestReturningAgainstRevival(t *testing.T) {
	l := NewLedger(fleetOf("fra1", "iad1", "sin1"), webLayout)
	tell(l, 0, 1, webVIP, map[string]Status{"fra1": StatusNone, "iad1": StatusDown, "sin1": StatusDown})
	v := later(l, nil, 0)
	tell(l, 7*time.Second, 2, webVIP, map[string]Status{"fra1": StatusNone, "iad1": StatusDown, "sin1": StatusUp})
	v = later(l, v, 7*time.Second)
	if got := later(l, v, 7*time.Second+HoldUp).Of(webVIP); got.Status != StatusDown {
		t.Errorf("revived by one: %+v", got)
	}
}

// TestFirstHeardVotesAtOnce: a node that starts is current as soon as it has heard
// the others, however short it was alone.
func TestFirstHeardVotesAtOnce(t *testing.T) {
	l := NewLedger(fleetOf("fra1", "iad1", "sin1"), webLayout)
	tell(l, 0, 1, webVIP, map[string]Status{"iad1": StatusUnknown})
	v := later(l, nil, 0)
	tell(l, time.Second, 2, webVIP, map[string]Status{"iad1": StatusDown, "sin1": StatusDown})
	if got := later(l, v, time.Second).Of(webVIP).Status; got != StatusDown {
		t.Errorf("got %v", got)
	}
	// But where it was alone for longer, that was a cut.
	l = NewLedger(fleetOf("fra1", "iad1", "sin1"), webLayout)
	tell(l, 0, 1, webVIP, map[string]Status{"iad1": StatusUnknown})
	v = later(l, nil, 0)
	tell(l, FreshFor+time.Second, 3, webVIP, map[string]Status{"iad1": StatusDown})
	v = later(l, v, FreshFor+time.Second)
	tell(l, FreshFor+2*time.Second, 4, webVIP, map[string]Status{"sin1": StatusDown})
	v = later(l, v, FreshFor+2*time.Second)
	if got := v.Of(webVIP); v.Minority || got.Status != StatusUnknown {
		t.Errorf("minority %v, %+v", v.Minority, got)
	}
}

// TestRebaseKeepsWitnesses: a reload does not make observers trusted or settled.
func TestRebaseKeepsWitnesses(t *testing.T) {
	l := NewLedger(fleetOf("fra1", "iad1", "sin1"), webLayout)
	tell(l, 0, 1, webVIP, map[string]Status{"fra1": StatusUp, "iad1": StatusUp, "sin1": StatusUp})
	v := later(l, nil, 0)
	tell(l, 7*time.Second, 2, webVIP, map[string]Status{"fra1": StatusUp, "iad1": StatusDown, "sin1": StatusDown})
	v = later(l, v, 7*time.Second)
	l = l.Rebase(fleetOf("ams1", "fra1", "iad1", "sin1"), webLayout)
	if got := later(l, v, 8*time.Second).Of(webVIP); got.Status != StatusUp {
		t.Errorf("got %+v", got)
	}
	if got := later(l, v, 8*time.Second).Witnesses; got[2].Name != "iad1" || got[2].Returned != t0.Add(7*time.Second) || got[0].Name != "ams1" || !got[0].Born.IsZero() {
		t.Errorf("witnesses %+v", got)
	}
}

// TestJudgeIsPure: the order of arrival does not matter, and judging twice gives
// the same.
func TestJudgeIsPure(t *testing.T) {
	nodes := []string{"fra1", "fra2", "iad1", "sin1", "sin2", "lax1"}
	layout := NewLayoutOf([]Target{
		webBackend, webVIP, backend("web", "iad", 1), vip("web", "iad"), vip("web", "sin"), vip("web", "lax"),
		vip("db", "fra"), vip("db", "iad"), vip("db", "sin"), vip("db", "lax"),
	}, func(t Target) Vantage {
		switch {
		case t == webBackend:
			return VantageAll
		case t.Service == "db":
			return 2
		}
		return VantageDefault
	})
	type arrival struct {
		r  *Report
		at time.Duration
	}
	rapid.Check(t, func(t *rapid.T) {
		var prev, other *View
		a, b := NewLedger(fleetOf(nodes...), layout), NewLedger(fleetOf(nodes...), layout)
		now := time.Duration(0)
		for step := range rapid.IntRange(1, 6).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 7000).Draw(t, "pause")) * time.Millisecond
			var arrivals []arrival
			for _, n := range nodes {
				if rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
					continue
				}
				r := NewReport(n, layout)
				r.Seq = uint64(step)
				fill := Status(rapid.IntRange(0, 3).Draw(t, "mostly"))
				for i := range layout.Targets {
					r.Set(i, fill)
				}
				r.Set(rapid.IntRange(0, len(layout.Targets)-1).Draw(t, "but"), Status(rapid.IntRange(0, 3).Draw(t, "status")))
				arrivals = append(arrivals, arrival{r, now})
			}
			for _, x := range arrivals {
				a.Merge(x.r, 0, t0.Add(x.at))
			}
			for _, x := range rapid.Permutation(arrivals).Draw(t, "order") {
				b.Merge(x.r, 0, t0.Add(x.at))
			}
			m := Moment{Now: t0.Add(now), Connected: rapid.IntRange(0, 9).Draw(t, "connected") == 0}
			next := a.Judge(prev, m)
			if diff := cmp.Diff(next.Verdicts, a.Judge(prev, m).Verdicts); diff != "" {
				t.Fatalf("twice: %s", diff)
			}
			other = b.Judge(other, m)
			x, y := *next, *other
			x.Layout, y.Layout = nil, nil
			if diff := cmp.Diff(x, y, cmpopts.IgnoreUnexported(View{})); diff != "" {
				t.Fatalf("another order: %s", diff)
			}
			prev = next
		}
	})
}
