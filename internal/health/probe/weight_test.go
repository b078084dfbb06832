package probe

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/health"
)

// TestWeight runs the weights that answers carry (-1 none, -2 a failure, -3 an
// inconclusive result) through a track.
func TestWeight(t *testing.T) {
	for _, tt := range []struct {
		name string
		asks []int
		want []uint8
	}{
		{"none", []int{-1, -1}, []uint8{100, 100}},
		{"steps of five", []int{50, 53, 47, 55, 42}, []uint8{50, 50, 50, 55, 40}},
		{"noise", []int{72, 68, 71, 67, 74, 66}, []uint8{70, 70, 70, 70, 70, 70}},
		{"nearly all", []int{97, 96, 95, 99, 100}, []uint8{100, 100, 95, 95, 100}},
		{"nothing, at once", []int{4, 0, 1, 0}, []uint8{5, 0, 5, 0}},
		{"more than there is", []int{255}, []uint8{100}},
		{"no longer said", []int{30, -1}, []uint8{30, 100}},
		{"failures say nothing of it", []int{30, -2, -2, 30, -3}, []uint8{30, 30, 30, 30, 30}},
	} {
		tr := newTrack(target("10.0.0.1:80"), health.StatusNone)
		var got []uint8
		for i, ask := range tt.asks {
			r := Result{At: time.Unix(int64(i), 0)}
			switch ask {
			case -1:
			case -2:
				r.Err, r.Weight, r.HasWeight = "status 503", 90, true
			case -3:
				r.Inconclusive, r.Weight, r.HasWeight = true, 90, true
			default:
				r.Weight, r.HasWeight = uint8(ask), true
			}
			before := tr.state.Weight
			if n := tr.observe(r, &Check{Rise: 2, Fall: 3}); n.weight != (before != tr.state.Weight) {
				t.Errorf("%s: result %d: news %v, weight %d → %d", tt.name, i, n.weight, before, tr.state.Weight)
			}
			if tr.state.Degraded != (tr.state.Weight < 100) {
				t.Errorf("%s: result %d: %+v", tt.name, i, tr.state)
			}
			got = append(got, tr.state.Weight)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// TestWeightProperty: what is stated is a step within less than a step of what
// was asked last, and 0 exactly when 0 was asked.
func TestWeightProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := newTrack(target("10.0.0.1:80"), health.StatusNone)
		for _, w := range rapid.SliceOf(rapid.Uint8Range(0, 100)).Draw(t, "weights") {
			tr.weigh(Result{Weight: w, HasWeight: true})
			got := int(tr.state.Weight)
			if got%weightStep != 0 || got > fullWeight || (got == 0) != (w == 0) || max(got-int(w), int(w)-got) >= weightStep {
				t.Fatalf("asked %d, stated %d", w, got)
			}
		}
	})
}

// TestWeightSignals: a weight that changes with every probe wakes the receiver
// once a second at most, and the last one is never left untold.
func TestWeightSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w atomicWeight
		cs := checks(1, Check{Every: 50 * time.Millisecond, Timeout: time.Second})
		r, stop := start(t, Options{Checks: cs, Probe: w.probe})
		defer stop()
		time.Sleep(time.Second)
		synctest.Wait()
		<-r.Changed() // it came up
		wakes := 0
		for i := range 100 { // 10 s
			w.set(uint8(50 + 20*(i%2)))
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			select {
			case <-r.Changed():
				wakes++
			default:
			}
		}
		if wakes < 9 || wakes > 11 {
			t.Errorf("woken %d times in 10 s", wakes)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		select {
		case <-r.Changed():
		default:
		}
		w.set(0)
		time.Sleep(100 * time.Millisecond)
		w.set(5)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		<-r.Changed() // the 0
		if s := r.States(nil)[0]; s.Weight != 5 {
			t.Fatalf("%+v", s)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case <-r.Changed():
		default:
			t.Error("the second change within a second was never told")
		}
	})
}
