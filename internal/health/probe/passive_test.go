package probe

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/health"
)

// atomicWeight is the weight that injected probes find.
type atomicWeight struct{ percent atomic.Uint32 }

func (w *atomicWeight) set(percent uint8) { w.percent.Store(uint32(percent)) }

func (w *atomicWeight) probe(context.Context, Check) Result {
	return Result{Weight: uint8(w.percent.Load()), HasWeight: true}
}

// outcomes notes n outcomes and lets the runner see them.
func outcomes(r *Runner, to health.Target, ok bool, n int) {
	for range n {
		r.Outcome(to, ok)
	}
	synctest.Wait()
}

// TestTrafficHelpsProbes: a row of failures counts as one failed probe and has
// the target probed at once; a success in between breaks the row.
func TestTrafficHelpsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(1, Check{Every: 10 * time.Second, Recheck: 100 * time.Millisecond, Rise: 2, Fall: 3, Passive: PassiveRule{Fall: 5}})
		x := cs[0].Target
		reg := prometheus.NewRegistry()
		r, stop := start(t, Options{Checks: cs, Probe: w.probe, Registerer: reg})
		defer stop()
		time.Sleep(5 * time.Second)
		w.set(x, true)
		probes := len(w.times(x))
		outcomes(r, x, false, 4)
		outcomes(r, x, true, 1)
		outcomes(r, x, false, 4)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.States(nil)[0]; s.Streak != 1 || len(w.times(x)) != probes {
			t.Fatalf("four in a row counted: %+v", s)
		}
		began := time.Since(w.start)
		outcomes(r, x, false, 1)
		if s := r.States(nil)[0]; s.Streak != -2 { // the row and the probe it asked for
			t.Fatalf("five in a row: %+v", s)
		}
		if times := w.times(x); len(times) != probes+1 || times[probes] != began {
			t.Errorf("not probed at once: %v", times)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.States(nil)[0]; s.Status != health.StatusDown || time.Since(s.Since) < 800*time.Millisecond {
			t.Errorf("not down soon: %+v", s)
		}
		if n := metricSum(t, reg, "pharos_probe_traffic_failures_total"); n != 1 {
			t.Errorf("%v rows counted", n)
		}
	})
}

// TestTrafficStorm: however much traffic fails, probes come at the pace of
// Recheck at most; and while a target is down, traffic changes no pace at all.
func TestTrafficStorm(t *testing.T) {
	for _, down := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			cs := checks(1, Check{Every: 10 * time.Second, Recheck: 100 * time.Millisecond, Rise: 1, Fall: 3, Passive: PassiveRule{Fall: 1}})
			x := cs[0].Target
			w.set(x, down)
			r, stop := start(t, Options{Checks: cs, Probe: w.probe})
			defer stop()
			time.Sleep(5 * time.Second)
			probes := len(w.times(x))
			for range 10_000 { // 10 s
				r.Outcome(x, false)
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
			n := len(w.times(x)) - probes
			if most := map[bool]int{false: 112, true: 1}[down]; n < 1 || n > most {
				t.Errorf("down %v: %d probes in 10 s of failing traffic, at most %d", down, n, most)
			}
			if got := statusOf(r, x) == health.StatusDown; got != down {
				t.Errorf("down %v: now %v", down, statusOf(r, x))
			}
		})
	}
}

// TestPassive: traffic alone decides.
func TestPassive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(1, Check{Kind: Passive, Rise: 7, Fall: 7, Passive: PassiveRule{Fall: 3, For: 10 * time.Second}})
		x := cs[0].Target
		r, stop := start(t, Options{Checks: cs, Probe: w.probe, Initial: map[health.Target]health.Status{x: health.StatusDown}})
		defer stop()
		is := func(want health.Status, when string) {
			t.Helper()
			synctest.Wait()
			if got := statusOf(r, x); got != want {
				t.Fatalf("%s: %v, want %v", when, got, want)
			}
		}
		time.Sleep(time.Hour)
		is(health.StatusUnknown, "without traffic")
		outcomes(r, x, false, 2)
		is(health.StatusUnknown, "two failures")
		outcomes(r, x, true, 1)
		is(health.StatusUp, "the first success")
		outcomes(r, x, false, 2)
		outcomes(r, x, true, 1)
		outcomes(r, x, false, 2)
		is(health.StatusUp, "two in a row")
		outcomes(r, x, false, 1)
		is(health.StatusDown, "three in a row")
		outcomes(r, x, true, 10)
		outcomes(r, x, false, 10)
		time.Sleep(10*time.Second - time.Millisecond)
		is(health.StatusDown, "late ends of old connections")
		time.Sleep(time.Millisecond)
		is(health.StatusUp, "on trial")
		outcomes(r, x, false, 1)
		is(health.StatusDown, "the first failure on trial")
		time.Sleep(10 * time.Second)
		is(health.StatusUp, "on trial again")
		outcomes(r, x, true, 1)
		outcomes(r, x, false, 2)
		is(health.StatusUp, "confirmed: a row is three again")
		outcomes(r, x, false, 1)
		is(health.StatusDown, "three in a row again")
		if n := len(w.times(x)); n != 0 {
			t.Errorf("probed %d times", n)
		}
	})
}

// TestPassiveDamped: a target that fails every trial is tried less and less, but
// comes back.
func TestPassiveDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs := checks(1, Check{Kind: Passive, Passive: PassiveRule{Fall: 1, For: time.Second}, Flap: FlapRule{Limit: 4, HalfLife: time.Minute}})
		x := cs[0].Target
		r, stop := start(t, Options{Checks: cs})
		defer stop()
		outcomes(r, x, true, 1)
		trials := 0
		for range 600 { // 10 minutes
			if statusOf(r, x) == health.StatusUp {
				outcomes(r, x, false, 1)
				trials++
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if trials < 5 || trials > 60 {
			t.Errorf("%d trials in ten minutes of failure", trials)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if s := r.States(nil)[0]; s.Status != health.StatusUp {
			t.Errorf("never came back: %+v", s)
		}
	})
}

// TestOutcomesAcrossReload: a handle stays good while its target has a check, and
// does nothing afterwards.
func TestOutcomesAcrossReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(2, Check{Every: time.Minute, Fall: 1})
		x := cs[0].Target
		r, stop := start(t, Options{Checks: cs, Probe: w.probe})
		defer stop()
		time.Sleep(time.Second)
		kept := r.Outcomes(x)
		for range 100 {
			kept.Note(false)
		}
		synctest.Wait()
		if len(w.times(x)) != 1 {
			t.Error("traffic counts without a rule")
		}
		cs[0].Passive.Fall = 2
		if err := r.SetChecks(cs); err != nil {
			t.Fatal(err)
		}
		if r.Outcomes(x) != kept {
			t.Error("another handle after a reload")
		}
		time.Sleep(time.Second)
		outcomes(r, x, false, 2)
		if n := len(w.times(x)); n != 3 {
			t.Errorf("%d probes: the new rule does not count", n)
		}
		if err := r.SetChecks(cs[1:]); err != nil {
			t.Fatal(err)
		}
		kept.Note(false)
		kept.Note(false)
		r.Outcome(x, false)
		synctest.Wait()
		if r.Outcomes(x) != nil || len(w.times(x)) != 3 {
			t.Error("a removed check is still there")
		}
	})
}

// TestOutcomesRace: many goroutines tell at the same time while checks change.
func TestOutcomesRace(t *testing.T) {
	w := newWorld()
	cs := checks(20, Check{Every: 10 * time.Millisecond, Passive: PassiveRule{Fall: 2}})
	for i := range 5 {
		cs[i].Kind, cs[i].Passive.For = Passive, 10*time.Millisecond
	}
	r, stop := start(t, Options{Checks: cs, Probe: w.probe})
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 20_000 {
				r.Outcome(cs[i%20].Target, (i+g)%7 < 3)
			}
		})
	}
	for i := range 20 {
		if err := r.SetChecks(cs[:20-i%3]); err != nil {
			t.Error(err)
		}
		r.States(nil)
	}
	all.Wait()
	stop()
	for o, n := r.told.Load(), 0; o != nil; o, n = o.next, n+1 {
		if n > 2*len(cs) {
			t.Fatal("outcomes queue")
		}
	}
}

// BenchmarkOutcome is what the hot path of forwarding pays.
func BenchmarkOutcome(b *testing.B) {
	cs := checks(1000, Check{Passive: PassiveRule{Fall: 5}})
	r, err := New(Options{Checks: cs})
	if err != nil {
		b.Fatal(err)
	}
	for _, ok := range []bool{true, false} {
		b.Run(fmt.Sprintf("look-up/%v", ok), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Outcome(cs[500].Target, ok)
			}
		})
		b.Run(fmt.Sprintf("handle/%v", ok), func(b *testing.B) {
			o := r.Outcomes(cs[501].Target)
			b.ReportAllocs()
			for b.Loop() {
				o.Note(ok)
			}
		})
	}
}

func TestOutcomeAllocatesNothing(t *testing.T) {
	cs := checks(3, Check{Passive: PassiveRule{Fall: 2}})
	r, err := New(Options{Checks: cs})
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() { r.Outcome(cs[i%3].Target, i%4 == 0); i++ }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	r.Outcome(health.Target{}, false) // nobody's
}
