package steer

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// TestTouched: what is decided from the plan before is what is decided from nothing, and
// a flip makes new only what it touches.
func TestTouched(t *testing.T) {
	topology := compile(t, large(6, 40, 3, 5), "n000")
	random := rand.New(rand.NewPCG(5, 6))
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	view := topology.allUp()
	plan := Decide(topology, view, Facts{Now: now, Ready: true}, nil)
	kept, made := 0, 0
	for range 300 {
		now = now.Add(time.Minute)
		next := *view
		next.Verdicts = append([]health.Verdict(nil), view.Verdicts...)
		changed := map[string]bool{}
		for range 1 + random.IntN(3) {
			i := random.IntN(len(next.Verdicts))
			v := &next.Verdicts[i]
			switch random.IntN(3) {
			case 0:
				v.Status, v.Since = health.StatusDown, now
			case 1:
				v.Status, v.Since = health.StatusUp, now
			default:
				v.Restored = !v.Restored
			}
			changed[topology.Layout.Targets[i].Service] = true
		}
		before := plan
		view = &next
		facts := Facts{Now: now, Ready: true}
		plan = Decide(topology, view, facts, before)
		fresh := Decide(topology, view, facts, nil)
		for i := range plan.Services {
			if !plan.Services[i].equal(&fresh.Services[i]) {
				t.Fatalf("service %d: %+v, from nothing %+v", i, plan.Services[i], fresh.Services[i])
			}
			same := &plan.Services[i].Sites[0] == &before.Services[i].Sites[0]
			if !changed[topology.Services[i].Config.Name] && before.Services[i].Recheck.IsZero() && !same {
				t.Fatalf("service %d was decided anew without a reason", i)
			}
			if same {
				kept++
			} else {
				made++
			}
		}
	}
	if made == 0 || kept < 10*made {
		t.Errorf("%d plans of services were kept, %d made", kept, made)
	}
}

// TestTouchedByThePast: the budget goes by when VIPs fell, so a verdict whose past alone changes makes its service new: one that
// rose and fell again between two looks, and one that was taken from disk and is confirmed.
func TestTouchedByThePast(t *testing.T) {
	topology := compile(t, large(6, 4, 5, 1), "n000")
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct{ before, after health.Verdict }{
		"it fell again":   {health.Verdict{Since: now.Add(-2 * time.Hour)}, health.Verdict{Since: now.Add(-10 * time.Second)}},
		"it is confirmed": {health.Verdict{Since: now.Add(-10 * time.Second), Restored: true}, health.Verdict{Since: now.Add(-10 * time.Second)}},
	} {
		t.Run(name, func(t *testing.T) {
			verdicts := func(first health.Verdict) *health.View {
				v := *topology.allUp()
				v.Verdicts = slices.Clone(v.Verdicts)
				sites := topology.Services[0].Sites
				v.Verdicts[sites[0].VIPs[0]] = health.Verdict{Status: health.StatusDown, Since: first.Since, Restored: first.Restored}
				v.Verdicts[sites[1].VIPs[0]] = health.Verdict{Status: health.StatusDown, Since: now.Add(-8 * time.Second)}
				return &v
			}
			before := Decide(topology, verdicts(c.before), Facts{Now: now, Ready: true}, nil)
			if !before.Services[0].Recheck.IsZero() {
				t.Fatal("it would be decided anew by the time alone")
			}
			facts := Facts{Now: now.Add(time.Second), Ready: true}
			after := Decide(topology, verdicts(c.after), facts, before)
			fresh := Decide(topology, verdicts(c.after), facts, nil)
			if before.Services[0].equal(&fresh.Services[0]) {
				t.Fatal("the past makes no difference: the test shows nothing")
			}
			if !after.Services[0].equal(&fresh.Services[0]) {
				t.Errorf("%+v, from nothing %+v", after.Services[0], fresh.Services[0])
			}
		})
	}
}
