package node

import (
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/decide"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A decider to which nothing happens sleeps, also when others have been silent
// for long, and wakes in time for what time alone changes.
func TestDeciderSleepsWhileCalm(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	b.now = time.Now()
	b.set(health.KindBackend, health.StatusUp)
	const age = 500 * time.Millisecond // so that it goes stale between two reports of our own
	b.inbox.deliver(b.report("b1", 1, 1, health.KindVIP, health.StatusUp), age)
	b.pass(0)
	began, rechecked := b.now, false
	for steps := 0; b.now.Sub(began) < 20*time.Second; steps++ {
		pause := b.pause(b.now)
		calm := b.now.Sub(began) > 2*health.FreshFor
		if pause > decide.ReportEvery || calm && pause < 100*time.Millisecond || steps > 100 {
			t.Fatalf("step %d, %s after the last event: pause %s, want 100ms to %s", steps, b.now.Sub(began), pause, decide.ReportEvery)
		}
		b.pass(pause)
		after := b.now.Sub(began) + age - health.FreshFor
		rechecked = rechecked || after >= 0 && after < 100*time.Millisecond
	}
	if !rechecked {
		t.Error("nobody looked when the other node's report went stale")
	}
}

// A report is as old as it is said to be, and older by the time that it waited here.
func TestAgeOfReportsCounts(t *testing.T) {
	const tooOld = 2 * health.FreshFor
	for _, tt := range []struct {
		name        string
		age, waited time.Duration
		want        health.Status
	}{
		{"new", 0, 0, health.StatusUp},
		{"old when it came", tooOld, 0, health.StatusUnknown},
		{"not taken for long", 0, tooOld, health.StatusUnknown},
		{"both a little", tooOld / 3, tooOld / 3, health.StatusUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newDeciderBench(t, t.TempDir())
			b.now = time.Now()
			b.inbox.deliver(b.report("b1", 1, 1, health.KindVIP, health.StatusUp), tt.age)
			b.pass(tt.waited)
			if got := b.verdict(health.KindVIP, "a").Status; got != tt.want {
				t.Errorf("verdict %s, want %s", got, tt.want)
			}
		})
	}
}

func TestInboxKeepsTheNewest(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	r := func(epoch, seq uint64, s health.Status) *health.Report {
		return b.report("b1", epoch, seq, health.KindVIP, s)
	}
	one, same, two, wiped := r(5, 1, health.StatusUp), r(5, 1, health.StatusDown), r(5, 2, health.StatusUp), r(4, 9, health.StatusDown)
	for _, tt := range []struct {
		name      string
		delivered []*health.Report
		want      []*health.Report
	}{
		{"newer after older", []*health.Report{one, two}, []*health.Report{two}},
		{"older after newer", []*health.Report{two, one}, []*health.Report{two}},
		{"an older epoch", []*health.Report{one, wiped}, []*health.Report{one}},
		{"a conflict", []*health.Report{one, same}, []*health.Report{one, same}},
		{"newer ends a conflict", []*health.Report{one, same, two}, []*health.Report{two}},
		{"older than a conflict", []*health.Report{one, same, wiped}, []*health.Report{one, same}},
		{"no more than needed", []*health.Report{one, same, one, same, one}, []*health.Report{one, same}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			box := newInbox()
			for _, report := range tt.delivered {
				box.deliver(report, 0)
			}
			reports, _ := box.take()
			got := reports["b1"]
			if len(got) != len(tt.want) {
				t.Fatalf("%d reports wait, want %d", len(got), len(tt.want))
			}
			for i := range got {
				if got[i].report != tt.want[i] {
					t.Errorf("report %d is (%d, %d), want (%d, %d)", i,
						got[i].report.Epoch, got[i].report.Seq, tt.want[i].Epoch, tt.want[i].Seq)
				}
			}
			if !isClosed(box.wake) { // it has a token, which reads like closed
				t.Error("nobody was woken")
			}
			if rest, _ := box.take(); len(rest) != 0 {
				t.Errorf("%d observers wait after all was taken", len(rest))
			}
		})
	}
}

// Who says two things at once is not believed.
func TestConflictAbstains(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	b.now = time.Now()
	b.inbox.deliver(b.report("b1", 1, 1, health.KindVIP, health.StatusUp), 0)
	b.inbox.deliver(b.report("b1", 1, 1, health.KindVIP, health.StatusDown), 0)
	b.pass(0)
	if got := b.verdict(health.KindVIP, "a"); got.Status != health.StatusUnknown || got.Up+got.Down != 0 {
		t.Errorf("got %s with %d votes, want unknown without any", got.Status, got.Up+got.Down)
	}
	if got := valueOf(t, b.metrics.reports.WithLabelValues(health.OutcomeConflict.String())); got != 1 {
		t.Errorf("%v conflicts counted, want 1", got)
	}
}

// An echo of this node's name raises the epoch above it, within bounds.
func TestEchoBounds(t *testing.T) {
	for _, tt := range []struct {
		name       string
		epoch, seq uint64
		want       uint64
	}{
		{"older epoch", 6, 1 << 40, 7},
		{"what we said", 7, 1, 7},
		{"more than we said", 7, 99, 8},
		{"newer epoch", 8, 1, 9},
		{"last that can be exceeded", maxEpoch - 2, 1, maxEpoch - 1},
		{"nothing above it that a restart would keep", maxEpoch - 1, 1, 7},
		{"would wrap", ^uint64(0), 1, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newDeciderBench(t, t.TempDir())
			b.pass(0)
			b.inbox.deliver(b.report("a1", tt.epoch, tt.seq, health.KindVIP, health.StatusDown), 0)
			b.pass(time.Millisecond)
			b.pass(decide.ReportEvery)
			if got := b.gossip.published[len(b.gossip.published)-1].Epoch; got != tt.want {
				t.Errorf("epoch %d, want %d", got, tt.want)
			}
		})
	}
}

// Two nodes of one name must not outbid each other without end.
func TestEpochRisesSlowly(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	b.pass(0)
	const every = 10 * time.Millisecond
	for range 3 * decide.RaiseEvery / every {
		b.inbox.deliver(b.report("a1", b.epoch+1, 1, health.KindVIP, health.StatusDown), 0)
		b.pass(every)
	}
	if got := b.epoch; got < 7+2*2 || got > 7+2*4 { // each echo is 1 ahead, so one raise is 2
		t.Errorf("epoch %d after 3 s of echoes, want 3 raises of 2 from 7", got)
	}
}

// Other nodes of the site keep the verdict up, but this one cannot reach the
// backends: it stays out of the way.
func TestRouteGoesWhereBackendsAreUnreachable(t *testing.T) {
	const second = "nodes: {a1: 127.9.1.1, a2: 127.9.1.9}"
	b := deciderBenchOf(t, t.TempDir(), replaceOnce(t, twoSites, "nodes: {a1: 127.9.1.1}", second))
	b.now = time.Now()
	b.core.SetReady(true)
	b.set(health.KindBackend, health.StatusUp)
	other := func(seq uint64) { b.inbox.deliver(b.report("a2", 1, seq, health.KindBackend, health.StatusUp), 0) }
	other(1)
	b.pass(0)
	if route := b.board.Load().Routes[0]; !route.Announce {
		t.Fatalf("not announced although all is well: %s", route.Why)
	}
	b.set(health.KindBackend, health.StatusDown)
	other(2)
	b.pass(10 * time.Millisecond)
	if got := b.verdict(health.KindBackend, "a").Status; got != health.StatusUp {
		t.Fatalf("verdict %s while the nodes disagree, want up", got)
	}
	if route := b.board.Load().Routes[0]; route.Announce || route.Why != steer.ReasonUnreachedHere {
		t.Errorf("announced %v (%s), want withdrawn: %s", route.Announce, route.Why, steer.ReasonUnreachedHere)
	}
	b.set(health.KindBackend, health.StatusUp)
	b.pass(10 * time.Millisecond)
	if route := b.board.Load().Routes[0]; !route.Announce {
		t.Errorf("not announced although the backends are reached again: %s", route.Why)
	}
}
