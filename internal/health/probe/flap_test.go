package probe

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/health"
)

// TestFlapDamping: a target that changes again and again is held down though its
// probes succeed, and comes back by itself when its penalty has decayed.
func TestFlapDamping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cs := checks(1, Check{Every: time.Second, Rise: 1, Fall: 1, Flap: FlapRule{Limit: 3, HalfLife: time.Minute}})
		x := cs[0].Target
		reg := prometheus.NewRegistry()
		r, stop := start(t, Options{Checks: cs, Probe: w.probe, Registerer: reg})
		defer stop()
		state := func() State { synctest.Wait(); return r.States(nil)[0] }
		time.Sleep(time.Second)
		for _, down := range []bool{true, false, true} { // three changes: just within
			w.set(x, down)
			time.Sleep(2 * time.Second)
			if s := state(); s.Flapping || (s.Status == health.StatusDown) != down {
				t.Fatalf("down %v: %+v", down, s)
			}
		}
		if s := state(); s.Penalty < 2.5 || s.Penalty > 3 {
			t.Errorf("penalty %v after three changes", s.Penalty)
		}
		w.set(x, false)
		time.Sleep(2 * time.Second)
		s := state()
		if !s.Flapping || s.Status != health.StatusDown || !s.Last.OK() || s.Penalty <= 3 {
			t.Fatalf("after the fourth change: %+v", s)
		}
		if n := metricSum(t, reg, "pharos_probe_suppressed_rises_total"); n != 1 {
			t.Errorf("%v suppressed rises", n)
		}
		if n := metricSum(t, reg, "pharos_probe_flapping_targets"); n != 1 {
			t.Errorf("%v flapping", n)
		}
		// From about 3.9 to below 1.5 takes log2(2.6) = 1.38 half-lives.
		time.Sleep(75 * time.Second)
		if s := state(); s.Status != health.StatusDown || !s.Flapping {
			t.Errorf("too soon: %+v", s)
		}
		time.Sleep(15 * time.Second)
		if s := state(); s.Status != health.StatusUp || s.Flapping {
			t.Errorf("still damped: %+v", s)
		}
		if n := metricSum(t, reg, "pharos_probe_flapping_targets"); n != 0 {
			t.Errorf("%v flapping", n)
		}
	})
}

// TestFlapIsConstantWork: a damped target that succeeds is probed at its usual pace.
func TestFlapIsConstantWork(t *testing.T) {
	c := Check{Rise: 1, Fall: 1, Flap: FlapRule{Limit: 2, HalfLife: time.Hour}}
	tr := newTrack(target("10.0.0.1:80"), health.StatusNone)
	at := time.Unix(0, 0)
	for _, err := range []string{"", "x", "", "x", ""} {
		tr.observe(Result{At: at, Err: err}, &c)
	}
	if n := tr.observe(Result{At: at}, &c); n.soon || n.status || n.suppressed || tr.state.Status != health.StatusDown {
		t.Errorf("%+v, %+v", n, tr.state)
	}
	c.Flap = FlapRule{} // a reload without damping
	if n := tr.observe(Result{At: at}, &c); !n.status || tr.state.Status != health.StatusUp || tr.state.Penalty != 0 {
		t.Errorf("%+v, %+v", n, tr.state)
	}
}

// TestFlapProperty: for any history of results the penalty stays within its
// bounds, a damped target is never up, and three half-lives of quiet end it.
func TestFlapProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Check{Rise: 1, Fall: 1, Flap: FlapRule{
			Limit:    rapid.IntRange(minFlapLimit, maxFlapLimit).Draw(t, "limit"),
			HalfLife: time.Duration(rapid.Int64Range(int64(minHalfLife), int64(maxHalfLife)).Draw(t, "half-life")),
		}}
		tr := newTrack(target("10.0.0.1:80"), health.StatusNone)
		now, changes := time.Unix(0, 0), 0
		for range rapid.IntRange(0, 600).Draw(t, "results") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(c.Flap.HalfLife)/4).Draw(t, "wait")))
			r := Result{At: now}
			if rapid.Bool().Draw(t, "fail") {
				r.Err = "x"
			}
			was := tr.held
			tr.observe(r, &c)
			if was != health.StatusNone && was != tr.held {
				changes++
			}
			s := tr.state
			if s.Penalty < 0 || s.Penalty > float64(min(changes, penaltyCap*c.Flap.Limit)) || math.IsNaN(s.Penalty) {
				t.Fatalf("penalty %v after %d changes", s.Penalty, changes)
			}
			if s.Flapping && s.Status == health.StatusUp {
				t.Fatalf("flapping and up: %+v", s)
			}
			if s.Flapping && s.Penalty < float64(c.Flap.Limit)/2 {
				t.Fatalf("damped below half of the limit: %+v", s)
			}
		}
		wait := tr.flap.release(c.Flap)
		if wait > 3*c.Flap.HalfLife+time.Second {
			t.Fatalf("damped for %v, half-life %v", wait, c.Flap.HalfLife)
		}
		if tr.observe(Result{At: now.Add(wait + time.Second)}, &c); tr.state.Status != health.StatusUp && tr.state.Flapping && tr.held != health.StatusUp {
			t.Fatalf("not released: %+v", tr.state)
		}
		if tr.observe(Result{At: now.Add(wait + 3*c.Flap.HalfLife + 2*time.Second)}, &c); tr.state.Status != health.StatusUp {
			t.Fatalf("not up: %+v", tr.state)
		}
	})
}
