package steer

import (
	"math/rand/v2"
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
